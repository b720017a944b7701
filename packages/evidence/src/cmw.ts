/** Conceptual message wrappers (RFC 9999): what a message is, and the message, in JSON or CBOR. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { fromBase64, toBase64Url } from './bytes.ts';
import { type Cbor, readCbor } from './cbor.ts';

/** Bits of the indicator. */
export const CMW_INDICATORS = {
  'reference-values': 1,
  endorsements: 2,
  evidence: 4,
  'attestation-results': 8,
} as const;

export interface CmwRecord {
  /** A media type, or a CoAP content format. */
  readonly type: string | number;
  readonly value: Uint8Array;
  /** Bits of `CMW_INDICATORS`; null where it does not say. */
  readonly indicator: number | null;
}

const RECORD_LIMIT = 64;
const DEPTH_LIMIT = 4;
/** The member that names a collection's type, and is no record. */
const COLLECTION_TYPE = '__cmwc_t';

/** `["application/eat+jwt", "…", 8]` */
export function writeCmw({ type, value, indicator }: CmwRecord): string {
  return JSON.stringify([type, toBase64Url(value), ...(indicator === null ? [] : [indicator])]);
}

/** Records of a record or a collection in CBOR, collections within collections too. Codes: `cmw-invalid`, `cbor-invalid`. */
export function readCborCmw(bytes: Uint8Array): Result<CmwRecord[]> {
  const read = readCbor(bytes);
  if (!read.ok) return read;
  const records: CmwRecord[] = [];
  return collect(records, read.value, 0) ? ok(records) : fail('cmw-invalid', 'neither record nor collection');
}

/** The same of JSON that was read before. Codes: `cmw-invalid`. */
export function readJsonCmw(value: unknown): Result<CmwRecord[]> {
  const records: CmwRecord[] = [];
  return collectJson(records, value, 0) ? ok(records) : fail('cmw-invalid', 'neither record nor collection');
}

/** Does this begin like a record in CBOR: two or three parts, of which the first is a media type or a number? */
export function isCborCmw(bytes: Uint8Array): boolean {
  const [first = 0, second = 0] = bytes;
  if (first !== 0x82 && first !== 0x83) return false;
  return second >> 5 === 3
    ? String.fromCharCode(...bytes.subarray(2, 40)).includes('/')
    : second >> 5 === 0 && bytes.length > 40;
}

function isType(type: unknown): type is string | number {
  if (typeof type === 'number') return Number.isInteger(type) && type >= 0 && type <= 0xffff;
  return typeof type === 'string' && /^[a-z0-9][a-z0-9.+-]*\/[a-z0-9][\x20-\x7e]{0,255}$/i.test(type);
}

function isIndicator(indicator: unknown): indicator is number | undefined {
  return indicator === undefined || (typeof indicator === 'number' && indicator > 0 && indicator < 16);
}

function collect(records: CmwRecord[], value: Cbor, depth: number): boolean {
  if (depth > DEPTH_LIMIT || records.length >= RECORD_LIMIT) return false;
  if (Array.isArray(value)) {
    const [type, content, indicator] = value as readonly Cbor[];
    if (value.length < 2 || value.length > 3 || !isType(type) || !(content instanceof Uint8Array)) return false;
    if (!isIndicator(indicator)) return false;
    records.push({ type, value: content, indicator: indicator ?? null });
    return true;
  }
  if (!(value instanceof Map) || value.size === 0) return false;
  return [...value].every(([name, one]) => name === COLLECTION_TYPE || collect(records, one, depth + 1));
}

function collectJson(records: CmwRecord[], value: unknown, depth: number): boolean {
  if (depth > DEPTH_LIMIT || records.length >= RECORD_LIMIT) return false;
  if (Array.isArray(value)) {
    const [type, text, indicator] = value as readonly unknown[];
    const content = typeof text === 'string' ? fromBase64(text) : undefined;
    if (value.length < 2 || value.length > 3 || !isType(type) || content === undefined || !isIndicator(indicator))
      return false;
    records.push({ type, value: content, indicator: indicator ?? null });
    return true;
  }
  if (typeof value !== 'object' || value === null) return false;
  const members = Object.entries(value);
  return (
    members.length > 0 &&
    members.every(([name, one]) => name === COLLECTION_TYPE || collectJson(records, one, depth + 1))
  );
}
