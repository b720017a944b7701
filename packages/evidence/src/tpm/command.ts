/**
 * TPM 2.0 commands and their answers, as bytes: what a quote needs and nothing else. TPM 2.0 Part 3; structures of Part 2.
 * Every authorization is the empty password, which keys made here and hierarchies of a virtual TPM have.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { concat } from '../bytes.ts';
import { readPublicArea } from './public-area.ts';
import { createTpmReader, type TpmReader } from './reader.ts';

export const TPM_OWNER = 0x40000001;
const PASSWORD = 0x40000009;
const NO_SESSIONS = 0x8001;
const SESSIONS = 0x8002;
const CODES = {
  createPrimary: 0x131,
  nvRead: 0x14e,
  quote: 0x158,
  flush: 0x165,
  nvReadPublic: 0x169,
  readPublic: 0x173,
  pcrRead: 0x17e,
} as const;
const NULL = 0x10;
const SHA256 = 0x0b;
const ECDSA = 0x18;
const P256 = 3;
const DIGEST_LIMIT = 64;
const ANSWER_LIMIT = 4096;
const PCRS = 24;
/** As many bytes as one NV_Read asks for; every TPM can give these. */
export const NV_CHUNK = 512;

/** fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, sign: a key that signs only what the TPM made. */
const ATTESTATION_KEY = 0x00050472;

const u16 = (value: number) => Uint8Array.of((value >> 8) & 0xff, value & 0xff);
const u32 = (value: number) => concat(u16(value >>> 16), u16(value & 0xffff));
const sized = (bytes: Uint8Array) => concat(u16(bytes.length), bytes);

function command(
  code: number,
  handles: readonly number[],
  parameters: readonly Uint8Array[],
  authorized: boolean,
): Uint8Array {
  const session = concat(u32(PASSWORD), sized(new Uint8Array()), Uint8Array.of(0), sized(new Uint8Array()));
  const body = concat(...handles.map(u32), ...(authorized ? [u32(session.length), session] : []), ...parameters);
  return concat(u16(authorized ? SESSIONS : NO_SESSIONS), u32(10 + body.length), u32(code), body);
}

/** `pcrs` of bank SHA-256, numbers from 0 to 23. */
function selection(pcrs: readonly number[]): Uint8Array {
  const bitmap = new Uint8Array(PCRS / 8);
  for (const pcr of pcrs) if (pcr < PCRS) bitmap[pcr >> 3] = (bitmap[pcr >> 3] ?? 0) | (1 << (pcr & 7));
  return concat(u32(1), u16(SHA256), Uint8Array.of(bitmap.length), bitmap);
}

/** A restricted P-256 signing key below the owner's seed: the same one every time, until the TPM is cleared. */
export function createPrimaryCommand(): Uint8Array {
  const unique = concat(sized(new Uint8Array()), sized(new Uint8Array()));
  const parameters = concat(u16(NULL), u16(ECDSA), u16(SHA256), u16(P256), u16(NULL));
  const template = concat(u16(0x23), u16(SHA256), u32(ATTESTATION_KEY), sized(new Uint8Array()), parameters, unique);
  const sensitive = concat(sized(new Uint8Array()), sized(new Uint8Array()));
  const given = [sized(sensitive), sized(template), sized(new Uint8Array()), u32(0)];
  return command(CODES.createPrimary, [TPM_OWNER], given, true);
}

/** Signed as the key's own scheme says. `qualifyingData`: at most 32 bytes are accepted by every TPM. */
export function quoteCommand(key: number, qualifyingData: Uint8Array, pcrs: readonly number[]): Uint8Array {
  return command(CODES.quote, [key], [sized(qualifyingData), u16(NULL), selection(pcrs)], true);
}

export function pcrReadCommand(pcrs: readonly number[]): Uint8Array {
  return command(CODES.pcrRead, [], [selection(pcrs)], false);
}

export function readPublicCommand(key: number): Uint8Array {
  return command(CODES.readPublic, [key], [], false);
}

export function flushCommand(handle: number): Uint8Array {
  return command(CODES.flush, [], [u32(handle)], false);
}

export function nvReadPublicCommand(index: number): Uint8Array {
  return command(CODES.nvReadPublic, [index], [], false);
}

export function nvReadCommand(index: number, offset: number, size: number): Uint8Array {
  return command(CODES.nvRead, [TPM_OWNER, index], [u16(size), u16(offset)], true);
}

/** The parameters of an answer, and its handle where it has one. Codes: `tpm-refused`, `tpm-structure-invalid`. */
function open(
  answer: Uint8Array,
  withHandle: boolean,
): Result<{ readonly handle: number; readonly reader: TpmReader }> {
  const wrong = (what: string) => fail('tpm-structure-invalid', `answer: ${what}`);
  if (answer.length > ANSWER_LIMIT) return wrong(`${answer.length} bytes`);
  const reader = createTpmReader(answer.slice());
  const tag = reader.u16();
  const size = reader.u32();
  const code = reader.u32();
  if (reader.problem !== null) return wrong(reader.problem);
  if (size !== answer.length) return wrong(`it says ${size} bytes and has ${answer.length}`);
  if (code !== 0) return fail('tpm-refused', `the TPM answered 0x${code.toString(16)}`);
  if (tag !== SESSIONS && tag !== NO_SESSIONS) return wrong(`tag 0x${tag.toString(16)}`);
  const handle = withHandle ? reader.u32() : 0;
  if (tag === NO_SESSIONS) return ok({ handle, reader });
  const parameters = reader.take(reader.u32());
  if (reader.problem !== null) return wrong(reader.problem);
  return ok({ handle, reader: createTpmReader(parameters) });
}

function finish<T>(reader: TpmReader, value: T): Result<T> {
  return reader.problem === null ? ok(value) : fail('tpm-structure-invalid', `answer: ${reader.problem}`);
}

export interface LoadedKey {
  readonly handle: number;
  /** SubjectPublicKeyInfo. */
  readonly spki: Uint8Array;
}

/** Codes: `tpm-refused`, `tpm-structure-invalid`; also of the next ones. */
export function readCreatePrimary(answer: Uint8Array): Result<LoadedKey> {
  const opened = open(answer, true);
  if (!opened.ok) return opened;
  const spki = readPublicArea(opened.value.reader.sized(1024));
  return spki.ok ? ok({ handle: opened.value.handle, spki: spki.value }) : spki;
}

export function readReadPublic(answer: Uint8Array): Result<Uint8Array> {
  const opened = open(answer, false);
  return opened.ok ? readPublicArea(opened.value.reader.sized(1024)) : opened;
}

export interface QuoteAnswer {
  /** TPMS_ATTEST */
  readonly message: Uint8Array;
  /** TPMT_SIGNATURE */
  readonly signature: Uint8Array;
}

export function readQuoteAnswer(answer: Uint8Array): Result<QuoteAnswer> {
  const opened = open(answer, false);
  if (!opened.ok) return opened;
  const { reader } = opened.value;
  const message = reader.sized(1024);
  const signature = reader.take(reader.left);
  return finish(reader, { message, signature });
}

/** Values in the order of their numbers, with the numbers that the TPM really read: at most eight at a time. */
export function readPcrAnswer(
  answer: Uint8Array,
): Result<{ readonly pcrs: readonly number[]; readonly values: readonly Uint8Array[] }> {
  const opened = open(answer, false);
  if (!opened.ok) return opened;
  const { reader } = opened.value;
  reader.u32(); // how often PCRs changed
  if (reader.u32() !== 1) reader.refuse('not one bank');
  if (reader.u16() !== SHA256) reader.refuse('another bank');
  const bitmap = reader.take(reader.u8());
  const pcrs: number[] = [];
  for (let pcr = 0; pcr < Math.min(bitmap.length * 8, 32); pcr++)
    if (((bitmap[pcr >> 3] ?? 0) & (1 << (pcr & 7))) !== 0) pcrs.push(pcr);
  const count = reader.u32();
  if (count !== pcrs.length) reader.refuse('as many values as numbers are needed');
  const values: Uint8Array[] = [];
  for (let i = 0; i < pcrs.length && reader.problem === null; i++) values.push(reader.sized(DIGEST_LIMIT));
  reader.finish();
  return finish(reader, { pcrs, values });
}

/** The size of an NV index in bytes. */
export function readNvPublic(answer: Uint8Array): Result<number> {
  const opened = open(answer, false);
  if (!opened.ok) return opened;
  const area = createTpmReader(opened.value.reader.sized(256));
  area.take(4 + 2 + 4);
  area.sized(DIGEST_LIMIT);
  const size = area.u16();
  area.finish();
  return finish(area, size);
}

export function readNvData(answer: Uint8Array): Result<Uint8Array> {
  const opened = open(answer, false);
  return opened.ok ? finish(opened.value.reader, opened.value.reader.sized(NV_CHUNK)) : opened;
}
