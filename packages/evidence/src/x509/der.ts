/**
 * DER (X.690 §10): the strict subset of BER in which certificates, revocation lists and their extensions are written.
 * One encoding for one value: whatever DER forbids is refused. Depth and size are bounded.
 */
import { asciiText } from '@airlock/core/bytes.ts';
import type { Problem } from '@airlock/core/result.ts';
import type { EvidenceErrorCode } from '../errors.ts';
import { momentOf } from '../time.ts';

export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  oid: 0x06,
  enumerated: 0x0a,
  utf8String: 0x0c,
  printableString: 0x13,
  teletexString: 0x14,
  ia5String: 0x16,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const;

const DEPTH_LIMIT = 16;

/** Where the first thing that is wrong is kept; shared by a reader and all readers below it. */
interface Fault {
  problem: Problem | null;
}

/**
 * Reads one element after the other. The first fault stops everything: from then on every read gives an empty value and
 * `more` is false, so that callers check `problem` once, at the end.
 */
export class DerReader {
  readonly bytes: Uint8Array;
  private at: number;
  private readonly end: number;
  private readonly depth: number;
  private readonly fault: Fault;

  constructor(bytes: Uint8Array, within?: { at: number; end: number; depth: number; fault: Fault }) {
    this.bytes = bytes;
    this.at = within?.at ?? 0;
    this.end = within?.end ?? bytes.length;
    this.depth = within?.depth ?? 0;
    this.fault = within?.fault ?? { problem: null };
  }

  get problem(): Problem | null {
    return this.fault.problem;
  }

  /** Is there another element? */
  get more(): boolean {
    return this.fault.problem === null && this.at < this.end;
  }

  /** The next element's identifier octet, or -1. */
  peek(): number {
    return this.more ? (this.bytes[this.at] ?? -1) : -1;
  }

  refuse(code: EvidenceErrorCode, message: string): void {
    this.fault.problem ??= { code, message: `${message}, at byte ${this.at}` };
  }

  /** Nothing may follow. */
  finish(): void {
    if (this.more) this.refuse('der-trailing-bytes', `${this.end - this.at} bytes too many`);
  }

  /** The element's whole encoding and where its content starts; moves on. */
  private next(tag: number): { start: number; content: number; end: number } {
    const start = this.at;
    const none = { start, content: start, end: start };
    if (this.fault.problem !== null) return none;
    const found = this.peek();
    if (found !== tag) {
      this.refuse('der-unexpected-tag', `${tagName(tag)} expected, ${found === -1 ? 'nothing' : tagName(found)} found`);
      return none;
    }
    let at = start + 1;
    const first = this.bytes[at++];
    if (at > this.end || first === undefined) {
      this.refuse('der-truncated', 'no length');
      return none;
    }
    let length = first;
    if (first >= 0x80) {
      const octets = first & 0x7f;
      if (octets === 0) this.refuse('der-not-canonical', 'indefinite length');
      else if (octets > 3) this.refuse('der-too-large', `a length of ${octets} octets`);
      else if (at + octets > this.end) this.refuse('der-truncated', 'the length is cut off');
      if (this.fault.problem !== null) return none;
      length = 0;
      for (let i = 0; i < octets; i++) length = length * 256 + (this.bytes[at++] ?? 0);
      if (length < 0x80 || length < 256 ** (octets - 1))
        this.refuse('der-not-canonical', 'a length in too many octets');
    }
    if (length > this.end - at) this.refuse('der-truncated', `${length} bytes promised, ${this.end - at} there`);
    if (this.fault.problem !== null) return none;
    this.at = at + length;
    return { start, content: at, end: at + length };
  }

  /** The content of the next element. */
  take(tag: number): Uint8Array {
    const { content, end } = this.next(tag);
    return this.bytes.subarray(content, end);
  }

  /** The next element with its header, for signatures and comparisons. */
  whole(tag: number): Uint8Array {
    const { start, end } = this.next(tag);
    return this.bytes.subarray(start, end);
  }

  /** A reader of what the next element holds. */
  enter(tag: number): DerReader {
    const { content, end } = this.next(tag);
    if (this.depth >= DEPTH_LIMIT) this.refuse('der-too-large', `nested deeper than ${DEPTH_LIMIT}`);
    return new DerReader(this.bytes, { at: content, end, depth: this.depth + 1, fault: this.fault });
  }

  /** A reader of bytes that this one gave out, which shares its fault. */
  inside(bytes: Uint8Array): DerReader {
    return new DerReader(bytes, { at: 0, end: bytes.length, depth: this.depth + 1, fault: this.fault });
  }

  /** Whatever the next element is, with its header. */
  any(): Uint8Array {
    return this.whole(this.peek());
  }

  /** Content octets of an INTEGER or ENUMERATED, two's complement, minimal. */
  integerBytes(tag: number = TAG.integer): Uint8Array {
    const bytes = this.take(tag);
    if (this.fault.problem !== null) return bytes;
    const [first, second] = bytes;
    if (first === undefined) this.refuse('der-value-invalid', 'an integer without octets');
    else if (second !== undefined && ((first === 0 && second < 0x80) || (first === 0xff && second >= 0x80)))
      this.refuse('der-not-canonical', 'a padded integer');
    return bytes;
  }

  /** A number from 0 to 2^32-1. */
  unsigned(tag: number = TAG.integer): number {
    const bytes = this.integerBytes(tag);
    if (this.fault.problem !== null) return 0;
    let value = 0;
    for (const byte of bytes) value = value * 256 + byte;
    if ((bytes[0] ?? 0) >= 0x80 || value > 0xffffffff) this.refuse('der-value-invalid', 'an integer out of range');
    return value;
  }

  boolean(): boolean {
    const bytes = this.take(TAG.boolean);
    if (this.fault.problem !== null) return false;
    if (bytes.length !== 1 || (bytes[0] !== 0 && bytes[0] !== 0xff)) this.refuse('der-not-canonical', 'a boolean');
    return bytes[0] === 0xff;
  }

  /** Dotted form, `1.2.840.10045.4.3.3`. */
  oid(): string {
    const bytes = this.take(TAG.oid);
    if (this.fault.problem !== null) return '';
    const text = knownOid(bytes);
    if (text === undefined) this.refuse('der-value-invalid', 'an object identifier');
    return text ?? '';
  }

  /** A BIT STRING of whole octets. */
  octetsOfBits(): Uint8Array {
    const bytes = this.take(TAG.bitString);
    if (this.fault.problem !== null) return bytes;
    if (bytes[0] !== 0) this.refuse('der-value-invalid', 'a bit string of whole octets was expected');
    return bytes.subarray(1);
  }

  /** A named bit list; bit 0 is the first. At most 24 bits. */
  flags(): number {
    const bytes = this.take(TAG.bitString);
    if (this.fault.problem !== null) return 0;
    const unused = bytes[0] ?? 8;
    const last = bytes[bytes.length - 1] ?? 0;
    if (unused > 7 || bytes.length > 4 || (bytes.length === 1 && unused !== 0)) {
      this.refuse('der-value-invalid', 'a bit list');
    } else if (bytes.length > 1 && (last & ((1 << unused) - 1)) !== 0) this.refuse('der-not-canonical', 'a bit list');
    let value = 0;
    for (let bit = 0; bit < (bytes.length - 1) * 8 - unused; bit++) {
      if (((bytes[1 + (bit >> 3)] ?? 0) & (0x80 >> (bit & 7))) !== 0) value |= 1 << bit;
    }
    return value;
  }

  /** UTCTime or GeneralizedTime, both in UTC with seconds (RFC 5280 §4.1.2.5); milliseconds since 1970. */
  time(): number {
    const utc = this.peek() === TAG.utcTime;
    const bytes = this.take(utc ? TAG.utcTime : TAG.generalizedTime);
    if (this.fault.problem !== null) return 0;
    const text = asciiText(bytes);
    const match = (utc ? /^(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/ : /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/).exec(
      text,
    );
    const [year, month, day, hour, minute, second] = (match ?? []).slice(1).map(Number);
    const full = utc ? (year ?? 0) + ((year ?? 0) < 50 ? 2000 : 1900) : (year ?? 0);
    const moment =
      match === null ? undefined : momentOf(full, month ?? 0, day ?? 0, hour ?? 0, minute ?? 0, second ?? 0);
    if (moment === undefined) this.refuse('der-value-invalid', `${text.slice(0, 32)} is no time`);
    return moment ?? 0;
  }
}

/** Certificates name the same few again and again. */
const oids = new Map<string, string>();
const OIDS_LIMIT = 256;

function knownOid(bytes: Uint8Array): string | undefined {
  if (bytes.length > 32) return undefined;
  const name = String.fromCharCode.apply(null, bytes as unknown as number[]);
  const known = oids.get(name);
  if (known !== undefined) return known;
  const text = oidText(bytes);
  if (text === undefined) return undefined;
  if (oids.size >= OIDS_LIMIT) oids.clear();
  oids.set(name, text);
  return text;
}

function oidText(bytes: Uint8Array): string | undefined {
  const last = bytes[bytes.length - 1];
  if (last === undefined || last >= 0x80 || bytes.length > 32) return undefined;
  const arcs: number[] = [];
  let value = 0;
  let fresh = true;
  for (const byte of bytes) {
    if (fresh && byte === 0x80) return undefined;
    value = value * 128 + (byte & 0x7f);
    if (value > 2 ** 40) return undefined;
    fresh = byte < 0x80;
    if (!fresh) continue;
    if (arcs.length === 0) {
      const root = Math.min(2, Math.floor(value / 40));
      arcs.push(root, value - root * 40);
    } else arcs.push(value);
    value = 0;
  }
  return arcs.join('.');
}

function tagName(tag: number): string {
  const named = Object.entries(TAG).find(([, value]) => value === tag);
  return named === undefined ? `tag 0x${tag.toString(16)}` : named[0];
}
