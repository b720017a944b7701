/**
 * The Internet checksum (RFC 1071). Sums are of little-endian halves: the sum of swapped halves is the swapped sum, so
 * what is stored little-endian in the end has its bytes in the right order, and nothing is swapped on the way.
 */
import type { Frame } from './frame.ts';

/** Sum of the bytes from `from` to `to`, the last one padded with zero; not folded. At most 64 KiB. */
export function sumBytes(view: DataView, from: number, to: number): number {
  // Two sums of halves stay small integers: 16 384 × 65 535 is below 2^31.
  let low = 0;
  let high = 0;
  let at = from;
  for (const end = to - 15; at < end; at += 16) {
    const a = view.getUint32(at, true);
    const b = view.getUint32(at + 4, true);
    const c = view.getUint32(at + 8, true);
    const d = view.getUint32(at + 12, true);
    low += (a & 0xffff) + (b & 0xffff) + (c & 0xffff) + (d & 0xffff);
    high += (a >>> 16) + (b >>> 16) + (c >>> 16) + (d >>> 16);
  }
  for (; at + 1 < to; at += 2) low += view.getUint16(at, true);
  if (at < to) low += view.getUint8(at);
  return low + high;
}

/** 16 bits of a sum. */
export function foldSum(sum: number): number {
  let folded = (sum & 0xffff) + Math.floor(sum / 65_536);
  while (folded > 0xffff) folded = (folded & 0xffff) + (folded >>> 16);
  return folded;
}

/** What is stored, little-endian, so that the sum over all of it is right. */
export function checksumOf(sum: number): number {
  return ~foldSum(sum) & 0xffff;
}

/** The part of a sum that a number in network order makes. */
export function swapHalf(value: number): number {
  return ((value & 0xff) << 8) | ((value >>> 8) & 0xff);
}

/**
 * Fills in the checksum that the sender left to do: its field holds the sum of the pseudo header, and everything from
 * `checksumStart` on is added (§5.1.6.2). The caller has held the offsets against the length of the frame.
 */
export function finishChecksum(frame: Frame): void {
  const { view, start } = frame;
  const from = start + frame.checksumStart;
  const sum = checksumOf(sumBytes(view, from, start + frame.length));
  // A checksum of UDP that comes out as zero would say that there is none; for TCP both mean the same.
  view.setUint16(from + frame.checksumOffset, sum === 0 ? 0xffff : sum, true);
  frame.flags = 0;
  frame.checksumStart = 0;
  frame.checksumOffset = 0;
}
