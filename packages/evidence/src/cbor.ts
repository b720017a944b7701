/** CBOR (RFC 8949) from strangers: definite lengths, bounded depth, whole numbers, no name twice in a map. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { concat } from './bytes.ts';

export type Cbor =
  | number
  /** A positive number above 2^53: eight bytes that somebody counts as one. */
  | bigint
  | string
  | boolean
  | null
  | Uint8Array
  | readonly Cbor[]
  | ReadonlyMap<number | string, Cbor>
  | CborTag;

export interface CborTag {
  readonly tag: number;
  readonly value: Cbor;
}

const SIZE_LIMIT = 256 * 1024;
const DEPTH_LIMIT = 16;

/** One item and nothing after it; byte strings are copies. Codes: `cbor-invalid`. */
export function readCbor(given: Uint8Array): Result<Cbor> {
  if (given.length > SIZE_LIMIT) return fail('cbor-invalid', `${given.length} bytes`);
  const bytes = given.slice();
  let at = 0;
  let wrong: string | null = null;
  let large: bigint | null = null;
  const refuse = (what: string): null => {
    wrong ??= `${what}, at byte ${at}`;
    return null;
  };
  const argument = (info: number): number => {
    if (info < 24) return info;
    const size = info === 24 ? 1 : info === 25 ? 2 : info === 26 ? 4 : info === 27 ? 8 : 0;
    if (size === 0 || at + size > bytes.length) {
      refuse(size === 0 ? 'an indefinite or reserved length' : 'a number is cut off');
      return 0;
    }
    let value = 0;
    for (let i = 0; i < size; i++) value = value * 256 + (bytes[at++] ?? 0);
    large = Number.isSafeInteger(value) ? null : u64be(bytes, at - size);
    return value;
  };
  const string = (length: number): Uint8Array => {
    if (length > bytes.length - at) {
      refuse(`${length} bytes promised, ${bytes.length - at} there`);
      return new Uint8Array();
    }
    at += length;
    return bytes.subarray(at - length, at);
  };
  const item = (depth: number): Cbor => {
    if (wrong !== null) return null;
    const head = bytes[at++];
    if (head === undefined) return refuse('nothing is left');
    if (depth > DEPTH_LIMIT) return refuse(`nested deeper than ${DEPTH_LIMIT}`);
    const major = head >> 5;
    if (major === 7) {
      if (head === 0xf4 || head === 0xf5) return head === 0xf5;
      return head === 0xf6 ? null : refuse('a simple value or float');
    }
    large = null;
    const value = argument(head & 31);
    if (wrong !== null) return null;
    if (large !== null && major !== 0) return refuse('a number above 2^53');
    switch (major) {
      case 0:
        return large ?? value;
      case 1:
        return -1 - value;
      case 2:
        return string(value);
      case 3: {
        const raw = string(value);
        if (raw.some((byte) => byte > 0x7f)) return refuse('text that is not ASCII');
        return raw.length > 4096 ? refuse('a text of more than 4096 characters') : String.fromCharCode(...raw);
      }
      case 4: {
        const list: Cbor[] = [];
        for (let i = 0; i < value && wrong === null; i++) list.push(item(depth + 1));
        return list;
      }
      case 5: {
        const map = new Map<number | string, Cbor>();
        for (let i = 0; i < value && wrong === null; i++) {
          const key = item(depth + 1);
          if (typeof key !== 'number' && typeof key !== 'string') return refuse('a name that is no number or text');
          if (map.has(key)) return refuse('a name that stands twice');
          map.set(key, item(depth + 1));
        }
        return map;
      }
      default:
        return { tag: value, value: item(depth + 1) };
    }
  };
  const value = item(0);
  if (wrong === null && at !== bytes.length) refuse(`${bytes.length - at} bytes too many`);
  return wrong === null ? ok(value) : fail('cbor-invalid', wrong);
}

export function isTag(value: Cbor, tag: number): value is CborTag {
  return typeof value === 'object' && value !== null && 'tag' in value && value.tag === tag;
}

/** A byte string, as CBOR writes it. */
export function cborBytes(bytes: Uint8Array): Uint8Array {
  const { length } = bytes;
  const head =
    length < 24
      ? [0x40 | length]
      : length < 256
        ? [0x58, length]
        : length < 65536
          ? [0x59, length >> 8, length & 0xff]
          : [0x5a, length >>> 24, (length >> 16) & 0xff, (length >> 8) & 0xff, length & 0xff];
  return concat(Uint8Array.from(head), bytes);
}

function u64be(bytes: Uint8Array, at: number): bigint {
  let value = 0n;
  for (let i = 0; i < 8; i++) value = (value << 8n) | BigInt(bytes[at + i] ?? 0);
  return value;
}
