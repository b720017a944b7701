/** GET_MEASUREMENTS and MEASUREMENTS, and the record of measurement blocks in it. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { since } from '../algorithms.ts';
import { FieldReader, le16 } from '../little-endian.ts';
import { NONCE_SIZE, REQUESTER_CONTEXT_SIZE } from './challenge.ts';
import { REQUEST, RESPONSE } from './codes.ts';
import { OPAQUE_LIMIT } from './opaque.ts';
import { type Decoded, header, type MessageContext, MessageReader } from './reader.ts';

const SIGN = 1;
const RAW = 2;
const FRESH = 4;

/** Operations beside the indices 1 to 254. */
export const MEASUREMENT_OPERATION = { count: 0, all: 0xff } as const;
/** Indices that have a fixed meaning. */
export const MEASUREMENT_INDEX = { manifest: 0xfd, deviceMode: 0xfe } as const;
export const DMTF_MEASUREMENT = 1;

export const MEASUREMENT_TYPES = [
  ...['immutable-rom', 'mutable-firmware', 'hardware-configuration', 'firmware-configuration'],
  ...['measurement-manifest', 'device-mode', 'firmware-version', 'secure-version-number'],
  ...['hash-extend', 'informational', 'structured-manifest'],
] as const;

export interface MeasurementsRequest {
  readonly operation: number;
  readonly raw: boolean;
  readonly fresh: boolean;
  /** What a signed answer must carry; null asks for none. */
  readonly sign: { readonly nonce: Uint8Array; readonly slot: number } | null;
  readonly context: Uint8Array;
}

export interface Measurements {
  /** Of the operation `count`. */
  readonly total: number;
  readonly slot: number;
  /** 1.2: did a block change since the last signature? 0 not told, 1 changed, 2 not changed. */
  readonly changed: number;
  readonly blocks: number;
  readonly record: Uint8Array;
  readonly nonce: Uint8Array;
  readonly opaque: Uint8Array;
  readonly context: Uint8Array;
  readonly signature: Uint8Array;
}

/** One measurement in the DMTF's form. */
export interface MeasurementBlock {
  readonly index: number;
  /** Name of MEASUREMENT_TYPES, or `type-N`. */
  readonly type: string;
  readonly typeCode: number;
  /** The value itself; otherwise its digest in the measurement hash. */
  readonly raw: boolean;
  readonly value: Uint8Array;
}

export function encodeGetMeasurements({ version }: MessageContext, request: MeasurementsRequest): Uint8Array {
  const { operation, raw, fresh, sign, context } = request;
  const attributes =
    (sign !== null ? SIGN : 0) |
    (raw && since(version, '1.2') ? RAW : 0) |
    (fresh && since(version, '1.3') ? FRESH : 0);
  return concat(
    header(version, REQUEST.GET_MEASUREMENTS, attributes, operation),
    sign !== null ? concat(sign.nonce, Uint8Array.of(sign.slot & 0xf)) : new Uint8Array(),
    since(version, '1.3') ? context : new Uint8Array(),
  );
}

/** Codes: `message-malformed`. */
export function decodeGetMeasurements(
  bytes: Uint8Array,
  { version, padding }: MessageContext,
): Result<Decoded<MeasurementsRequest>> {
  const reader = new MessageReader(bytes, version, REQUEST.GET_MEASUREMENTS);
  const attributes = reader.parameter1;
  let sign: MeasurementsRequest['sign'] = null;
  if ((attributes & SIGN) !== 0) {
    const nonce = reader.take(NONCE_SIZE, 'Nonce');
    const slot = reader.u8('SlotIDParam') & 0xf;
    if (slot > 7 && slot !== 15) reader.refuse(`slot ${slot}`);
    sign = { nonce, slot };
  }
  const context = reader.take(since(version, '1.3') ? REQUESTER_CONTEXT_SIZE : 0, 'RequesterContext');
  const raw = since(version, '1.2') && (attributes & RAW) !== 0;
  const fresh = since(version, '1.3') && (attributes & FRESH) !== 0;
  return reader.end({ operation: reader.parameter2, raw, fresh, sign, context }, padding);
}

/** Everything before the signature. */
export function encodeMeasurements({ version }: MessageContext, answer: Omit<Measurements, 'signature'>): Uint8Array {
  const { record } = answer;
  const changed = since(version, '1.2') ? (answer.changed & 3) << 4 : 0;
  return concat(
    header(version, RESPONSE.MEASUREMENTS, answer.total, (answer.slot & 0xf) | changed),
    Uint8Array.of(answer.blocks, record.length & 0xff, (record.length >> 8) & 0xff, (record.length >> 16) & 0xff),
    record,
    answer.nonce,
    le16(answer.opaque.length),
    answer.opaque,
    since(version, '1.3') ? answer.context : new Uint8Array(),
  );
}

/** `signed`: was a signature asked for? It is the end of the message then. Codes: `message-malformed`. */
export function decodeMeasurements(
  bytes: Uint8Array,
  { version, signatureSize, padding }: MessageContext,
  signed: boolean,
): Result<Decoded<Measurements>> {
  const reader = new MessageReader(bytes, version, RESPONSE.MEASUREMENTS);
  const blocks = reader.u8('NumberOfBlocks');
  const record = reader.take(reader.u24('MeasurementRecordLength'), 'MeasurementRecord');
  const nonce = reader.take(NONCE_SIZE, 'Nonce');
  const opaqueLength = reader.u16('OpaqueDataLength');
  if (opaqueLength > OPAQUE_LIMIT) reader.refuse(`OpaqueDataLength ${opaqueLength}, at most ${OPAQUE_LIMIT}`);
  const opaque = reader.take(opaqueLength, 'OpaqueData');
  const context = reader.take(since(version, '1.3') ? REQUESTER_CONTEXT_SIZE : 0, 'RequesterContext');
  const signature = reader.take(signed ? signatureSize : 0, 'Signature');
  const changed = since(version, '1.2') ? (reader.parameter2 >> 4) & 3 : 0;
  if (changed === 3) reader.refuse('a reserved value tells whether measurements changed');
  const message: Measurements = {
    total: reader.parameter1,
    slot: reader.parameter2 & 0xf,
    changed,
    blocks,
    record,
    nonce,
    opaque,
    context,
    signature,
  };
  return reader.end(message, padding);
}

export function encodeMeasurementBlock({ index, typeCode, raw, value }: Omit<MeasurementBlock, 'type'>): Uint8Array {
  return concat(
    Uint8Array.of(index, DMTF_MEASUREMENT),
    le16(value.length + 3),
    Uint8Array.of(typeCode | (raw ? 0x80 : 0)),
    le16(value.length),
    value,
  );
}

/**
 * The blocks of a record: exactly `count`, each in the DMTF's form, with indices that ascend and occur once. `digestSize`
 * is what a digest must have, 0 when every value is raw. Codes: `measurements-invalid`.
 */
export function readMeasurementRecord(
  record: Uint8Array,
  count: number,
  digestSize: number,
): Result<readonly MeasurementBlock[]> {
  const reader = new FieldReader(record, 'measurements-invalid', 'MeasurementRecord');
  const blocks: MeasurementBlock[] = [];
  for (let last = 0; reader.left > 0; ) {
    const index = reader.u8('Index');
    const specification = reader.u8('MeasurementSpecification');
    const size = reader.u16('MeasurementSize');
    const code = reader.u8('DMTFSpecMeasurementValueType');
    const length = reader.u16('DMTFSpecMeasurementValueSize');
    const value = reader.take(length, 'DMTFSpecMeasurementValue');
    if (reader.problem !== null) break;
    const typeCode = code & 0x7f;
    const raw = (code & 0x80) !== 0;
    if (index === 0 || index === 0xff) return fail('measurements-invalid', `a block has index ${index}`);
    if (index <= last) return fail('measurements-invalid', `block ${index} does not follow block ${last}`);
    if (specification !== DMTF_MEASUREMENT)
      return fail('measurements-invalid', `block ${index} is of measurement specification ${specification}`);
    if (size !== length + 3)
      return fail('measurements-invalid', `block ${index} has ${size} bytes, its value ${length}`);
    if (!raw && length !== digestSize)
      return fail('measurements-invalid', `block ${index} is a digest of ${length} bytes, expected ${digestSize}`);
    last = index;
    blocks.push({ index, type: MEASUREMENT_TYPES[typeCode] ?? `type-${typeCode}`, typeCode, raw, value });
  }
  if (reader.problem !== null) return { ok: false, error: reader.problem };
  if (blocks.length !== count)
    return fail('measurements-invalid', `${blocks.length} blocks, NumberOfBlocks says ${count}`);
  return ok(blocks);
}
