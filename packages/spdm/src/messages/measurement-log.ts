/** GET_MEASUREMENT_EXTENSION_LOG and MEASUREMENT_EXTENSION_LOG, 1.3: a log in portions. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { FieldReader, le32 } from '../little-endian.ts';
import { REQUEST, RESPONSE } from './codes.ts';
import { MEASUREMENT_TYPES } from './measurements.ts';
import { type Decoded, header, type MessageContext, MessageReader } from './reader.ts';

export interface LogRequest {
  readonly offset: number;
  readonly length: number;
}

export interface LogPortion {
  readonly portion: Uint8Array;
  readonly remainder: number;
}

/** One entry of the DMTF's log: how an extended measurement came about. */
export interface LogEntry {
  readonly logIndex: number;
  readonly measurementIndex: number;
  readonly type: string;
  readonly raw: boolean;
  readonly value: Uint8Array;
}

export function encodeGetMeasurementLog({ version }: MessageContext, { offset, length }: LogRequest): Uint8Array {
  return concat(header(version, REQUEST.GET_MEASUREMENT_EXTENSION_LOG), le32(offset), le32(length));
}

/** Codes: `message-malformed`. */
export function decodeGetMeasurementLog(
  bytes: Uint8Array,
  { version, padding }: MessageContext,
): Result<Decoded<LogRequest>> {
  const reader = new MessageReader(bytes, version, REQUEST.GET_MEASUREMENT_EXTENSION_LOG);
  const offset = reader.u32('Offset');
  const length = reader.u32('Length');
  return reader.end({ offset, length }, padding);
}

export function encodeMeasurementLog({ version }: MessageContext, { portion, remainder }: LogPortion): Uint8Array {
  return concat(header(version, RESPONSE.MEASUREMENT_EXTENSION_LOG), le32(portion.length), le32(remainder), portion);
}

/** Codes: `message-malformed`. */
export function decodeMeasurementLog(
  bytes: Uint8Array,
  { version, padding }: MessageContext,
): Result<Decoded<LogPortion>> {
  const reader = new MessageReader(bytes, version, RESPONSE.MEASUREMENT_EXTENSION_LOG);
  const length = reader.u32('PortionLength');
  const remainder = reader.u32('RemainderLength');
  return reader.end({ portion: reader.take(length, 'MEL'), remainder }, padding);
}

export function encodeLogEntries(entries: readonly (LogEntry & { readonly typeCode: number })[]): Uint8Array {
  const body = concat(
    ...entries.map(({ logIndex, measurementIndex, typeCode, raw, value }) =>
      concat(
        le32(logIndex),
        Uint8Array.of(measurementIndex, 0, 0, 0, typeCode | (raw ? 0x80 : 0)),
        Uint8Array.of(value.length & 0xff, value.length >> 8),
        value,
      ),
    ),
  );
  return concat(le32(entries.length), le32(body.length), new Uint8Array(8), body);
}

/** The DMTF's form of a log. Codes: `measurements-invalid`. */
export function readLogEntries(log: Uint8Array): Result<readonly LogEntry[]> {
  const reader = new FieldReader(log, 'measurements-invalid', 'MEL');
  const count = reader.u32('NumberOfEntries');
  const length = reader.u32('MELEntriesLength');
  reader.take(8, 'reserved bytes');
  if (reader.problem === null && length !== reader.left)
    reader.refuse(`MELEntriesLength ${length}, ${reader.left} bytes are there`);
  const entries: LogEntry[] = [];
  while (reader.left > 0 && entries.length < count) {
    const logIndex = reader.u32('MELIndex');
    const measurementIndex = reader.u8('MeasIndex');
    reader.take(3, 'reserved bytes');
    const code = reader.u8('ValueType');
    const value = reader.take(reader.u16('ValueSize'), 'Value');
    const type = MEASUREMENT_TYPES[code & 0x7f] ?? `type-${code & 0x7f}`;
    entries.push({ logIndex, measurementIndex, type, raw: (code & 0x80) !== 0, value });
  }
  reader.finish();
  if (reader.problem !== null) return { ok: false, error: reader.problem };
  return entries.length === count
    ? ok(entries)
    : fail('measurements-invalid', `MEL: ${entries.length} of ${count} entries`);
}
