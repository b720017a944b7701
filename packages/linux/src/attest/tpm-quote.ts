/** A TPM's quote through /dev/tpmrm0, which gives every opener keys and handles of its own. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import {
  createPrimaryCommand,
  flushCommand,
  type LoadedKey,
  NV_CHUNK,
  nvReadCommand,
  nvReadPublicCommand,
  pcrReadCommand,
  type QuoteAnswer,
  quoteCommand,
  readCreatePrimary,
  readNvData,
  readNvPublic,
  readPcrAnswer,
  readPublicCommand,
  readQuoteAnswer,
  readReadPublic,
} from '@airlock/evidence/tpm/command.ts';
import type { Exchange } from './hands.ts';

export const TPM_DEVICE = '/dev/tpmrm0';
/** Where Azure's paravisor leaves its report and its attestation key. */
export const AZURE_REPORT_INDEX = 0x01400001;
export const AZURE_KEY_HANDLE = 0x81000003;
const ALL = Array.from({ length: 24 }, (_, pcr) => pcr);
const NV_LIMIT = 8192;

export interface TpmEvidence extends QuoteAnswer {
  /** PCR 0 to 23, bank SHA-256. */
  readonly pcrs: readonly Uint8Array[];
  readonly key: LoadedKey;
}

/**
 * With `handle` the key is one that is there already; else one is made below the owner's seed and dropped again. Codes:
 * those of the hand, `tpm-refused`, `tpm-structure-invalid`.
 */
export async function quoteTpm(
  tpm: Exchange,
  qualifyingData: Uint8Array,
  handle?: number,
): Promise<Result<TpmEvidence>> {
  const key = handle === undefined ? await makeKey(tpm) : await findKey(tpm, handle);
  if (!key.ok) return key;
  const quoted = await quoteWith(tpm, key.value, qualifyingData);
  if (handle === undefined) await tpm.transceive(flushCommand(key.value.handle));
  return quoted;
}

async function makeKey(tpm: Exchange): Promise<Result<LoadedKey>> {
  const answer = await tpm.transceive(createPrimaryCommand());
  return answer.ok ? readCreatePrimary(answer.value) : answer;
}

async function findKey(tpm: Exchange, handle: number): Promise<Result<LoadedKey>> {
  const answer = await tpm.transceive(readPublicCommand(handle));
  if (!answer.ok) return answer;
  const spki = readReadPublic(answer.value);
  return spki.ok ? ok({ handle, spki: spki.value }) : spki;
}

async function quoteWith(tpm: Exchange, key: LoadedKey, qualifyingData: Uint8Array): Promise<Result<TpmEvidence>> {
  const answer = await tpm.transceive(quoteCommand(key.handle, qualifyingData, ALL));
  if (!answer.ok) return answer;
  const quote = readQuoteAnswer(answer.value);
  if (!quote.ok) return quote;
  const pcrs = await readPcrs(tpm);
  return pcrs.ok ? ok({ ...quote.value, pcrs: pcrs.value, key }) : pcrs;
}

/** A TPM reads a few at a time and says which. */
async function readPcrs(tpm: Exchange): Promise<Result<Uint8Array[]>> {
  const values = new Map<number, Uint8Array>();
  while (values.size < ALL.length) {
    const wanted = ALL.filter((pcr) => !values.has(pcr));
    const answer = await tpm.transceive(pcrReadCommand(wanted));
    if (!answer.ok) return answer;
    const read = readPcrAnswer(answer.value);
    if (!read.ok) return read;
    const fresh = read.value.pcrs.filter((pcr) => wanted.includes(pcr));
    if (fresh.length === 0) return fail('tpm-refused', `PCRs ${wanted.join(', ')} are not in its SHA-256 bank`);
    for (const [i, pcr] of read.value.pcrs.entries()) values.set(pcr, read.value.values[i] ?? new Uint8Array());
  }
  return ok(ALL.map((pcr) => values.get(pcr) ?? new Uint8Array()));
}

/** What an NV index holds; null where the TPM has no such index. Codes: as above. */
export async function readNvIndex(tpm: Exchange, index: number): Promise<Result<Uint8Array | null>> {
  const stated = await tpm.transceive(nvReadPublicCommand(index));
  if (!stated.ok) return stated;
  const size = readNvPublic(stated.value);
  if (!size.ok) return size.error.code === 'tpm-refused' ? ok(null) : size;
  if (size.value > NV_LIMIT) return fail('tpm-structure-invalid', `NV index of ${size.value} bytes`);
  const parts: Uint8Array[] = [];
  for (let at = 0; at < size.value; at += NV_CHUNK) {
    const length = Math.min(NV_CHUNK, size.value - at);
    const answer = await tpm.transceive(nvReadCommand(index, at, length));
    if (!answer.ok) return answer;
    const data = readNvData(answer.value);
    if (!data.ok) return data;
    if (data.value.length !== length) return fail('tpm-structure-invalid', 'less of an NV index than was asked for');
    parts.push(data.value);
  }
  return ok(concat(...parts));
}
