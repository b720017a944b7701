/** GET_VERSION and VERSION: the only messages whose version byte is always 1.0. */
import type { Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { le16 } from '../little-endian.ts';
import { REQUEST, RESPONSE } from './codes.ts';
import { type Decoded, header, MessageReader } from './reader.ts';

/** One VersionNumberEntry: nibbles of major, minor, update and alpha. */
export interface VersionEntry {
  readonly major: number;
  readonly minor: number;
  readonly update: number;
  /** Not 0 for drafts, which are compatible with nothing. */
  readonly alpha: number;
}

export function encodeGetVersion(): Uint8Array {
  return header(null, REQUEST.GET_VERSION);
}

/** Codes: `message-malformed`. */
export function decodeGetVersion(bytes: Uint8Array, padding: number): Result<Decoded<null>> {
  return new MessageReader(bytes, null, REQUEST.GET_VERSION).end(null, padding);
}

export function encodeVersion(entries: readonly VersionEntry[]): Uint8Array {
  return concat(
    header(null, RESPONSE.VERSION),
    Uint8Array.of(0, entries.length),
    ...entries.map(({ major, minor, update, alpha }) =>
      le16(((major << 12) | (minor << 8) | (update << 4) | alpha) & 0xffff),
    ),
  );
}

/** Codes: `message-malformed`. */
export function decodeVersion(bytes: Uint8Array, padding: number): Result<Decoded<readonly VersionEntry[]>> {
  const reader = new MessageReader(bytes, null, RESPONSE.VERSION);
  reader.skip(1);
  const count = reader.u8('VersionNumberEntryCount');
  if (count === 0) reader.refuse('no version');
  const entries: VersionEntry[] = [];
  for (let index = 0; index < count && reader.problem === null; index++) {
    const entry = reader.u16('VersionNumberEntry');
    entries.push({
      major: entry >> 12,
      minor: (entry >> 8) & 0xf,
      update: (entry >> 4) & 0xf,
      alpha: entry & 0xf,
    });
  }
  return reader.end(entries, padding);
}
