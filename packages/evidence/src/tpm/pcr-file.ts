/**
 * PCR values in the file that `tpm2_quote --pcr` writes unless it is told otherwise (`serialized`): the C structures of
 * tpm2-tools as they lie in memory, numbers little-endian. A selection of up to 16 banks, then lists of up to eight digests.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { u16le, u32le } from '../bytes.ts';
import { HASH_SIZE } from '../crypto.ts';
import { type PcrValues, TPM_HASHES } from './quote.ts';

const BANKS = 16;
const SELECTION = 8;
const SELECTIONS = 4 + BANKS * SELECTION;
const DIGESTS = 8;
const DIGEST = 66;
const LIST = 4 + DIGESTS * DIGEST;
/** 16 banks of 32 PCRs. */
const LIST_LIMIT = 64;

/** By the file's length, which only so many lists can have, and the numbers at both places that count something. */
export function isPcrFile(bytes: Uint8Array): boolean {
  const lists = (bytes.length - SELECTIONS - 4) / LIST;
  const banks = u32le(bytes, 0);
  if (!Number.isInteger(lists) || lists < 1 || lists > LIST_LIMIT || banks < 1 || banks > BANKS) return false;
  const known = TPM_HASHES[u16le(bytes, 4)] !== undefined || banks > 1;
  return known && u32le(bytes, SELECTIONS) === lists;
}

/** One entry a bank that is known and has values. Codes: `quote-wrapper-invalid`. */
export function readPcrFile(bytes: Uint8Array): Result<readonly PcrValues[]> {
  const wrong = (what: string) => fail('quote-wrapper-invalid', `PCR values of tpm2_quote: ${what}`);
  if (!isPcrFile(bytes)) return wrong('its counts and its size contradict each other');
  const digests: Uint8Array[] = [];
  for (let at = SELECTIONS + 4; at < bytes.length; at += LIST) {
    const count = u32le(bytes, at);
    if (count > DIGESTS) return wrong(`a list of ${count} digests`);
    for (let i = 0; i < count; i++) {
      const start = at + 4 + i * DIGEST;
      const size = u16le(bytes, start);
      if (size > DIGEST - 2) return wrong(`a digest of ${size} bytes`);
      digests.push(bytes.slice(start + 2, start + 2 + size));
    }
  }
  const banks: PcrValues[] = [];
  let next = 0;
  for (let i = 0; i < u32le(bytes, 0); i++) {
    const at = 4 + i * SELECTION;
    const hash = TPM_HASHES[u16le(bytes, at)];
    const size = bytes[at + 2] ?? 0;
    if (size > 4) return wrong(`a PCR bitmap of ${size} bytes`);
    const values = new Map<number, Uint8Array>();
    for (let pcr = 0; pcr < size * 8; pcr++) {
      if ((((bytes[at + 3 + (pcr >> 3)] ?? 0) >> (pcr & 7)) & 1) === 0) continue;
      const value = digests[next++];
      if (value === undefined) return wrong('fewer digests than PCRs are selected');
      if (hash !== undefined && value.length !== HASH_SIZE[hash]) return wrong('a digest that is not of its bank');
      values.set(pcr, value);
    }
    if (hash !== undefined && values.size > 0) {
      if (banks.some(({ bank }) => bank === hash)) return wrong(`bank ${hash} stands twice`);
      banks.push({ bank: hash, values });
    }
  }
  return next === digests.length ? ok(banks) : wrong('more digests than PCRs are selected');
}
