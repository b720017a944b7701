/** Where a zstd stream ends, without decompressing it. RFC 8878 §3.1. */
import { readLe } from '@airlock/core/bytes.ts';

const MAGIC = 0xfd2fb528;
const SKIPPABLE = 0x184d2a50;

/** Length of all frames that follow each other from the start; undefined when one is malformed or cut short. */
export function zstdFrameLength(bytes: Uint8Array): number | undefined {
  let at = 0;
  while (at + 4 <= bytes.length) {
    const magic = readLe(bytes, at, 4) ?? 0;
    if (magic >= SKIPPABLE && magic <= SKIPPABLE + 15) {
      const size = readLe(bytes, at + 4, 4);
      if (size === undefined || at + 8 + size > bytes.length) return undefined;
      at += 8 + size;
      continue;
    }
    if (magic !== MAGIC) break;
    const end = frameEnd(bytes, at);
    if (end === undefined) return undefined;
    at = end;
  }
  return at === 0 ? undefined : at;
}

function frameEnd(bytes: Uint8Array, start: number): number | undefined {
  const descriptor = bytes[start + 4];
  if (descriptor === undefined) return undefined;
  const single = (descriptor & 0x20) !== 0;
  const sizeFlag = descriptor >> 6;
  const dictionary = [0, 1, 2, 4][descriptor & 3] ?? 0;
  const contentSize = sizeFlag === 0 ? (single ? 1 : 0) : 2 ** sizeFlag;
  let at = start + 5 + (single ? 0 : 1) + dictionary + contentSize;
  for (;;) {
    const header = bytes.subarray(at, at + 3);
    if (header.length < 3) return undefined;
    const word = (header[0] ?? 0) | ((header[1] ?? 0) << 8) | ((header[2] ?? 0) << 16);
    const type = (word >> 1) & 3;
    if (type === 3) return undefined;
    at += 3 + (type === 1 ? 1 : word >> 3);
    if ((word & 1) !== 0) break;
  }
  if ((descriptor & 4) !== 0) at += 4;
  return at <= bytes.length ? at : undefined;
}
