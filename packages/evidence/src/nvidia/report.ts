/**
 * Attestation reports of NVIDIA GPUs and switches: an SPDM 1.1 GET_MEASUREMENTS request of 37 bytes, the MEASUREMENTS
 * response behind it, NVIDIA's own fields in the opaque data. DSP0274 1.1.2 §10.11; NVIDIA attestation SDK.
 */
import { asciiText } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { u16le, u32le } from '../bytes.ts';

export const REQUEST_SIZE = 37;
const RESPONSE_HEAD = 8;
const NONCE = 32;
const SIGNATURE = 96;
const REPORT_LIMIT = 64 * 1024;
const MSRSCNT = 12;
/** P-384 raw signature over everything before it: request and response, since SPDM 1.1 signs no version exchange. */

/** Fields that Airlock has a name for; others are counted. */
export const OPAQUE_FIELDS: Readonly<Record<number, { readonly name: string; readonly form: 'text' | 'hex' }>> = {
  3: { name: 'driver-version', form: 'text' },
  4: { name: 'gpu-info', form: 'hex' },
  5: { name: 'sku', form: 'hex' },
  6: { name: 'vbios-version', form: 'hex' },
  7: { name: 'manufacturer-id', form: 'hex' },
  8: { name: 'tamper-detection', form: 'hex' },
  11: { name: 'nvdec0-status', form: 'hex' },
  13: { name: 'cpr-info', form: 'hex' },
  14: { name: 'board-id', form: 'hex' },
  15: { name: 'chip-sku', form: 'text' },
  16: { name: 'chip-sku-mod', form: 'text' },
  17: { name: 'project', form: 'text' },
  18: { name: 'project-sku', form: 'text' },
  19: { name: 'project-sku-mod', form: 'text' },
  20: { name: 'fwid', form: 'hex' },
  21: { name: 'protected-pcie-status', form: 'hex' },
};

export interface NvidiaReport {
  /** As far as the size fields reach, a copy. */
  readonly bytes: Uint8Array;
  /** The requester's nonce. */
  readonly nonce: Uint8Array;
  readonly responderNonce: Uint8Array;
  readonly slot: number;
  /** By index, 1 to 255; DMTF measurement values. */
  readonly measurements: ReadonlyMap<number, { readonly type: number; readonly value: Uint8Array }>;
  /** By NVIDIA's number of the field. */
  readonly opaque: ReadonlyMap<number, Uint8Array>;
  readonly signed: Uint8Array;
  readonly signature: Uint8Array;
  readonly trailing: number;
}

/** Does this begin with SPDM 1.1 GET_MEASUREMENTS of everything, signed, and its answer? */
export function isNvidiaReport(bytes: Uint8Array): boolean {
  return (
    bytes.length > REQUEST_SIZE + RESPONSE_HEAD &&
    bytes[0] === 0x11 &&
    bytes[1] === 0xe0 &&
    bytes[REQUEST_SIZE] === 0x11 &&
    bytes[REQUEST_SIZE + 1] === 0x60
  );
}

/** Codes: `nvidia-report-invalid`. */
export function readNvidiaReport(given: Uint8Array): Result<NvidiaReport> {
  const wrong = (what: string) => fail('nvidia-report-invalid', what);
  if (given.length > REPORT_LIMIT) return wrong(`${given.length} bytes; no report is that long`);
  if (!isNvidiaReport(given)) return wrong('not an SPDM 1.1 GET_MEASUREMENTS request with its response');
  if (((given[2] ?? 0) & 1) === 0) return wrong('the request did not ask for a signature');
  const recordAt = REQUEST_SIZE + RESPONSE_HEAD;
  const count = given[REQUEST_SIZE + 4] ?? 0;
  const recordLength = u32le(given, REQUEST_SIZE + 5) & 0xffffff;
  const nonceAt = recordAt + recordLength;
  if (nonceAt + NONCE + 2 > given.length) return wrong('the measurement record is cut off');
  const opaqueAt = nonceAt + NONCE + 2;
  const opaqueEnd = opaqueAt + u16le(given, opaqueAt - 2);
  const end = opaqueEnd + SIGNATURE;
  if (end > given.length) return wrong('the opaque data or the signature is cut off');
  const bytes = given.slice(0, end);

  const measurements = new Map<number, { type: number; value: Uint8Array }>();
  let at = recordAt;
  for (let i = 0; i < count; i++) {
    if (at + 7 > nonceAt) return wrong(`measurement block ${i} is cut off`);
    const [index, specification, size] = [bytes[at] ?? 0, bytes[at + 1] ?? 0, u16le(bytes, at + 2)];
    const valueSize = u16le(bytes, at + 5);
    if (specification !== 1 || size !== valueSize + 3 || at + 4 + size > nonceAt)
      return wrong(`measurement block ${i} contradicts itself`);
    if (measurements.has(index)) return wrong(`measurement ${index} stands twice`);
    measurements.set(index, { type: bytes[at + 4] ?? 0, value: bytes.subarray(at + 7, at + 4 + size) });
    at += 4 + size;
  }
  if (at !== nonceAt) return wrong('the measurement record is longer than its blocks');

  const opaque = new Map<number, Uint8Array>();
  for (at = opaqueAt; at < opaqueEnd; ) {
    const size = u16le(bytes, at + 2);
    const field = u16le(bytes, at);
    if (at + 4 + size > opaqueEnd) return wrong(`opaque field ${field} is cut off`);
    if (opaque.has(field)) return wrong(`opaque field ${field} stands twice`);
    opaque.set(field, bytes.subarray(at + 4, at + 4 + size));
    at += 4 + size;
  }
  return ok({
    bytes,
    nonce: bytes.subarray(4, 36),
    responderNonce: bytes.subarray(nonceAt, nonceAt + NONCE),
    slot: bytes[36] ?? 0,
    measurements,
    opaque,
    signed: bytes.subarray(0, opaqueEnd),
    signature: bytes.subarray(opaqueEnd),
    trailing: given.length - end,
  });
}

/** Text fields end at their first zero. */
export function opaqueText(value: Uint8Array): string {
  const end = value.indexOf(0);
  return asciiText(end === -1 ? value : value.subarray(0, end));
}

/** How often each measurement was extended since the last reset; empty when the field is not there. */
export function measurementCounts(report: NvidiaReport): number[] {
  const raw = report.opaque.get(MSRSCNT) ?? new Uint8Array();
  return Array.from({ length: Math.floor(raw.length / 4) }, (_, i) => u32le(raw, i * 4));
}
