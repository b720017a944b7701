/** Little-endian fields, one after the other: what PCIe, MCTP and DMTF messages are made of. */
import type { Problem } from '@airlock/core/result.ts';
import type { SpdmErrorCode } from './errors.ts';

/**
 * Reads fields of a message of known bounds. The first fault stops everything: from then on every read gives zero or
 * nothing, so that callers check `problem` once, at the end. Faults carry the code that was given and the field's name.
 */
export class FieldReader {
  private readonly bytes: Uint8Array;
  private readonly code: SpdmErrorCode;
  private readonly what: string;
  private at = 0;
  problem: Problem | null = null;

  /** `what` names the message in faults: `TDISP CAPABILITIES`. */
  constructor(bytes: Uint8Array, code: SpdmErrorCode, what: string) {
    this.bytes = bytes;
    this.code = code;
    this.what = what;
  }

  /** Bytes that are left; none after a fault. */
  get left(): number {
    return this.problem === null ? this.bytes.length - this.at : 0;
  }

  refuse(message: string): void {
    this.problem ??= { code: this.code, message: `${this.what}: ${message}` };
  }

  private advance(count: number, field: string): number {
    if (this.problem !== null) return -1;
    if (count > this.bytes.length - this.at) {
      this.refuse(`ends within ${field}: ${count} bytes needed, ${this.bytes.length - this.at} there`);
      return -1;
    }
    const at = this.at;
    this.at += count;
    return at;
  }

  u8(field: string): number {
    const at = this.advance(1, field);
    return at < 0 ? 0 : (this.bytes[at] ?? 0);
  }

  u16(field: string): number {
    const at = this.advance(2, field);
    return at < 0 ? 0 : (this.bytes[at] ?? 0) | ((this.bytes[at + 1] ?? 0) << 8);
  }

  u32(field: string): number {
    const at = this.advance(4, field);
    if (at < 0) return 0;
    const [a = 0, b = 0, c = 0, d = 0] = this.bytes.subarray(at, at + 4);
    return (a | (b << 8) | (c << 16) | (d << 24)) >>> 0;
  }

  u64(field: string): bigint {
    const low = this.u32(field);
    const high = this.u32(field);
    return this.problem === null ? BigInt(low) | (BigInt(high) << 32n) : 0n;
  }

  /** A copy: what was read cannot be changed under the reader. */
  take(count: number, field: string): Uint8Array {
    const at = this.advance(count, field);
    return at < 0 ? new Uint8Array() : this.bytes.slice(at, at + count);
  }

  /** Everything that is left, copied. */
  rest(): Uint8Array {
    return this.take(this.left, 'its end');
  }

  /** Reserved bytes, which must be zero. */
  reserved(count: number, field = 'a reserved field'): void {
    for (const byte of this.take(count, field)) if (byte !== 0) this.refuse(`${field} is not zero`);
  }

  /** Nothing may follow. */
  finish(): void {
    if (this.left > 0) this.refuse(`${this.left} bytes too many`);
  }
}

export function le16(value: number): Uint8Array {
  return Uint8Array.of(value & 0xff, (value >>> 8) & 0xff);
}

export function le32(value: number): Uint8Array {
  return Uint8Array.of(value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, (value >>> 24) & 0xff);
}

export function le64(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  for (let i = 0; i < 8; i++) bytes[i] = Number((value >> BigInt(8 * i)) & 0xffn);
  return bytes;
}
