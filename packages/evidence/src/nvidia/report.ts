/**
 * Attestation reports of NVIDIA GPUs and switches: an SPDM 1.1 GET_MEASUREMENTS request of 37 bytes, the MEASUREMENTS
 * response behind it, NVIDIA's own fields in the opaque data. DSP0274 1.1.2 §10.11; NVIDIA attestation SDK.
 */
import { asciiText, hex, hexByte } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { u16le, u32le } from '../bytes.ts';

export const REQUEST_SIZE = 37;
const RESPONSE_HEAD = 8;
const NONCE = 32;
const SIGNATURE = 96;
const REPORT_LIMIT = 64 * 1024;
/** P-384 raw signature over everything before it: request and response, since SPDM 1.1 signs no version exchange. */

/** `list` is of eight bytes each, `counts` of numbers of four; the others as they stand. */
export type OpaqueForm = 'text' | 'hex' | 'list' | 'counts' | 'version';

/** Fields that Airlock has a name for; others are counted. NVIDIA attestation SDK. */
export const OPAQUE_FIELDS: Readonly<Record<number, { readonly name: string; readonly form: OpaqueForm }>> = {
  1: { name: 'cert-issuer-name', form: 'hex' },
  2: { name: 'cert-authority-key-identifier', form: 'hex' },
  3: { name: 'driver-version', form: 'text' },
  4: { name: 'gpu-info', form: 'hex' },
  5: { name: 'sku', form: 'hex' },
  6: { name: 'vbios-version', form: 'version' },
  7: { name: 'manufacturer-id', form: 'hex' },
  8: { name: 'tamper-detection', form: 'hex' },
  9: { name: 'smc', form: 'hex' },
  10: { name: 'vpr', form: 'hex' },
  11: { name: 'nvdec0-status', form: 'hex' },
  12: { name: 'measurement-counts', form: 'counts' },
  13: { name: 'cpr-info', form: 'hex' },
  14: { name: 'board-id', form: 'hex' },
  15: { name: 'chip-sku', form: 'text' },
  16: { name: 'chip-sku-mod', form: 'text' },
  17: { name: 'project', form: 'text' },
  18: { name: 'project-sku', form: 'text' },
  19: { name: 'project-sku-mod', form: 'text' },
  20: { name: 'fwid', form: 'hex' },
  21: { name: 'protected-pcie-status', form: 'hex' },
  // A GPU lists the switches that it sees, a switch names itself.
  22: { name: 'switch-pdi', form: 'list' },
  23: { name: 'floorswept-ports', form: 'hex' },
  24: { name: 'position-id', form: 'hex' },
  25: { name: 'lock-switch-status', form: 'hex' },
  26: { name: 'gpu-pdi', form: 'list' },
  32: { name: 'gpu-link-connection', form: 'hex' },
  33: { name: 'system-enable-status', form: 'hex' },
  34: { name: 'opaque-data-version', form: 'hex' },
  35: { name: 'chip-info', form: 'hex' },
  36: { name: 'feature-flag', form: 'hex' },
};
const DRIVER_VERSION = 3;
const VBIOS_VERSION = 6;
const NVDEC_STATUS = 11;
const NVDEC_OFF = 0x55;

export interface NvidiaReport {
  /** As far as the size fields reach, a copy. */
  readonly bytes: Uint8Array;
  /** The requester's nonce. */
  readonly nonce: Uint8Array;
  readonly responderNonce: Uint8Array;
  readonly slot: number;
  /** By index, 1 to 255; DMTF measurement values. */
  readonly measurements: ReadonlyMap<number, NvidiaMeasurement>;
  /** By NVIDIA's number of the field. */
  readonly opaque: ReadonlyMap<number, Uint8Array>;
  readonly signed: Uint8Array;
  readonly signature: Uint8Array;
  readonly trailing: number;
}

/** One DMTF measurement value. The view of its bytes is made when somebody looks: most reports only have their signature checked. */
export class NvidiaMeasurement {
  readonly type: number;
  private readonly bytes: Uint8Array;
  private readonly at: number;
  private readonly end: number;

  constructor(type: number, bytes: Uint8Array, at: number, end: number) {
    this.type = type;
    this.bytes = bytes;
    this.at = at;
    this.end = end;
  }

  get value(): Uint8Array {
    return this.bytes.subarray(this.at, this.end);
  }
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

  const measurements = new Map<number, NvidiaMeasurement>();
  let at = recordAt;
  for (let i = 0; i < count; i++) {
    if (at + 7 > nonceAt) return wrong(`measurement block ${i} is cut off`);
    const [index, specification, size] = [bytes[at] ?? 0, bytes[at + 1] ?? 0, u16le(bytes, at + 2)];
    const valueSize = u16le(bytes, at + 5);
    if (specification !== 1 || size !== valueSize + 3 || at + 4 + size > nonceAt)
      return wrong(`measurement block ${i} contradicts itself`);
    if (measurements.has(index)) return wrong(`measurement ${index} stands twice`);
    measurements.set(index, new NvidiaMeasurement(bytes[at + 4] ?? 0, bytes, at + 7, at + 4 + size));
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

/**
 * By the chip that its certificate names: a GPU whose driver is not loaded states none either, and whoever took it for a
 * switch would not miss the driver's manifest. Without a name a switch is what has no driver.
 */
export function isSwitch(report: NvidiaReport, device: string | null = null): boolean {
  return device === null ? !report.opaque.has(DRIVER_VERSION) : /^LS_?\d/.test(device);
}

/** As the manifests name them; null where the report does not say. */
export function versionsOf(report: NvidiaReport): { readonly driver: string | null; readonly vbios: string | null } {
  const driver = report.opaque.get(DRIVER_VERSION);
  const vbios = report.opaque.get(VBIOS_VERSION);
  return {
    driver: driver === undefined ? null : opaqueText(driver),
    vbios: vbios === undefined ? null : biosVersion(vbios),
  };
}

/** A switch writes text; a GPU five bytes, of which the first four stand backwards: 00 74 00 96 20 is 96.00.74.00.20. */
export function biosVersion(value: Uint8Array): string | null {
  const text = opaqueText(value);
  if (/^[0-9A-Fa-f]{2}(\.[0-9A-Fa-f]{2}){4}$/.test(text)) return text.toUpperCase();
  if (value.length !== 8) return null;
  const [a = 0, b = 0, c = 0, d = 0, e = 0] = value;
  return [d, c, b, a, e].map(hexByte).join('.').toUpperCase();
}

/** The report says that the video decoder is off. */
export function nvdecDisabled(report: NvidiaReport): boolean {
  const status = report.opaque.get(NVDEC_STATUS);
  return status?.length === 1 && status[0] === NVDEC_OFF;
}

/** A field's value in the form that it has. */
export function opaqueValue(form: OpaqueForm, value: Uint8Array): string | readonly string[] | readonly number[] {
  switch (form) {
    case 'text':
      return opaqueText(value);
    case 'version':
      return biosVersion(value) ?? hex(value);
    case 'list':
      return chunks(value, 8).map(hex);
    case 'counts':
      return chunks(value, 4).map((one) => u32le(one, 0));
    case 'hex':
      return hex(value);
  }
}

function chunks(value: Uint8Array, size: number): Uint8Array[] {
  return Array.from({ length: Math.ceil(value.length / size) }, (_, i) => value.subarray(i * size, (i + 1) * size));
}
