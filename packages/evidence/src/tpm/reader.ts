/** Big-endian fields, as TPMs write them, with one fault kept: after it every read is zero or empty. */
import { u16be, u32be } from '../bytes.ts';

export interface TpmReader {
  /** What went wrong first, or null. */
  readonly problem: string | null;
  readonly left: number;
  u8(): number;
  u16(): number;
  u32(): number;
  take(length: number): Uint8Array;
  /** TPM2B: two bytes of length, then as many. */
  sized(most: number): Uint8Array;
  refuse(what: string): void;
  /** Nothing may follow. */
  finish(): void;
}

export function createTpmReader(bytes: Uint8Array): TpmReader {
  let at = 0;
  let problem: string | null = null;
  const refuse = (what: string): void => {
    problem ??= `${what}, at byte ${at}`;
  };
  const take = (length: number): Uint8Array => {
    if (problem === null && at + length > bytes.length) refuse(`${length} bytes promised, ${bytes.length - at} there`);
    if (problem !== null) return new Uint8Array();
    at += length;
    return bytes.subarray(at - length, at);
  };
  const u16 = () => u16be(take(2), 0);
  return {
    get problem() {
      return problem;
    },
    get left() {
      return problem === null ? bytes.length - at : 0;
    },
    u8: () => take(1)[0] ?? 0,
    u16,
    u32: () => u32be(take(4), 0),
    take,
    sized(most) {
      const length = u16();
      if (length > most) refuse(`${length} bytes where at most ${most} may be`);
      return take(length);
    },
    refuse,
    finish() {
      if (problem === null && at < bytes.length) refuse(`${bytes.length - at} bytes too many`);
    },
  };
}
