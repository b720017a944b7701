/** NEGOTIATE_ALGORITHMS and ALGORITHMS: offers and selections as masks. What they mean is told in ../negotiate.ts. */
import type { Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { type SpdmVersion, since } from '../algorithms.ts';
import { le16, le32 } from '../little-endian.ts';
import { REQUEST, RESPONSE } from './codes.ts';
import { type Decoded, header, type MessageContext, MessageReader } from './reader.ts';

/** Tables of ALGORITHMS by AlgType. */
export const TABLE = { dhe: 2, aead: 3, requesterSignature: 4, keySchedule: 5, requesterPqc: 6, kem: 7 } as const;
export type TableName = keyof typeof TABLE;
const TABLES = Object.keys(TABLE) as TableName[];
/** AlgType 6 and 7 came with 1.4. */
const TABLES_11 = 5;
const LENGTH_LIMIT = 128;
const EXTENDED_LIMIT = 20;

/** Masks of what is offered, or of what is selected. */
export interface AlgorithmMasks {
  readonly measurementSpecification: number;
  /** Bits 0 and 1: opaque data formats. Bit 4: several keys in this connection. */
  readonly otherParameters: number;
  readonly measurementLog: number;
  readonly signature: number;
  readonly pqcSignature: number;
  readonly hash: number;
  readonly tables: Readonly<Record<TableName, number>>;
}

export interface AlgorithmSelection extends AlgorithmMasks {
  readonly measurementHash: number;
  /** The tables that were there at all. */
  readonly present: readonly TableName[];
}

export const NO_TABLES: Readonly<Record<TableName, number>> = {
  dhe: 0,
  aead: 0,
  requesterSignature: 0,
  keySchedule: 0,
  requesterPqc: 0,
  kem: 0,
};

function encodeTables(version: SpdmVersion, masks: AlgorithmMasks, names: readonly TableName[]): Uint8Array[] {
  return names
    .filter((name) => since(version, '1.4') || TABLE[name] <= TABLES_11)
    .map((name) => concat(Uint8Array.of(TABLE[name], 0x20), le16(masks.tables[name])));
}

/** Tables with an empty mask are left out. */
export function encodeNegotiateAlgorithms(version: SpdmVersion, offer: AlgorithmMasks): Uint8Array {
  const tables = encodeTables(
    version,
    offer,
    TABLES.filter((name) => offer.tables[name] !== 0),
  );
  return concat(
    header(version, REQUEST.NEGOTIATE_ALGORITHMS, tables.length),
    le16(32 + 4 * tables.length),
    Uint8Array.of(offer.measurementSpecification, since(version, '1.2') ? offer.otherParameters : 0),
    le32(offer.signature),
    le32(offer.hash),
    le32(since(version, '1.4') ? offer.pqcSignature : 0),
    new Uint8Array(8),
    Uint8Array.of(0, 0, 0, since(version, '1.3') ? offer.measurementLog : 0),
    ...tables,
  );
}

export function encodeAlgorithms(version: SpdmVersion, selection: AlgorithmSelection): Uint8Array {
  const tables = encodeTables(version, selection, selection.present);
  return concat(
    header(version, RESPONSE.ALGORITHMS, tables.length),
    le16(36 + 4 * tables.length),
    Uint8Array.of(selection.measurementSpecification, since(version, '1.2') ? selection.otherParameters : 0),
    le32(selection.measurementHash),
    le32(selection.signature),
    le32(selection.hash),
    le32(since(version, '1.4') ? selection.pqcSignature : 0),
    new Uint8Array(7),
    Uint8Array.of(since(version, '1.3') ? selection.measurementLog : 0, 0, 0, 0, 0),
    ...tables,
  );
}

export interface AlgorithmOffer extends AlgorithmMasks {
  readonly present: readonly TableName[];
}

/** Extended algorithms are skipped over: none is known. Codes: `message-malformed`. */
export function decodeNegotiateAlgorithms(
  bytes: Uint8Array,
  { version, padding }: MessageContext,
): Result<Decoded<AlgorithmOffer>> {
  const reader = new MessageReader(bytes, version, REQUEST.NEGOTIATE_ALGORITHMS);
  const length = reader.u16('Length');
  const measurementSpecification = reader.u8('MeasurementSpecification');
  const other = reader.u8('OtherParamsSupport');
  const signature = reader.u32('BaseAsymAlgo');
  const hash = reader.u32('BaseHashAlgo');
  const pqc = reader.u32('PqcAsymAlgo');
  reader.skip(8);
  const extended = reader.u8('ExtAsymCount') + reader.u8('ExtHashCount');
  reader.skip(1);
  const mel = reader.u8('MELspecification');
  if (extended > EXTENDED_LIMIT) reader.refuse(`${extended} extended algorithms`);
  reader.skip(4 * extended);
  const { masks, present } = readTables(reader, version);
  if (length !== reader.position) reader.refuse(`Length ${length}, its fields have ${reader.position} bytes`);
  if (length > LENGTH_LIMIT) reader.refuse(`Length ${length}, at most ${LENGTH_LIMIT} is permitted`);
  return reader.end(
    {
      measurementSpecification,
      otherParameters: since(version, '1.2') ? other : 0,
      measurementLog: since(version, '1.3') ? mel : 0,
      signature,
      pqcSignature: since(version, '1.4') ? pqc : 0,
      hash,
      tables: masks,
      present,
    },
    padding,
  );
}

/** A selected extended algorithm is an error: none was offered. Codes: `message-malformed`. */
export function decodeAlgorithms(
  bytes: Uint8Array,
  { version, padding }: MessageContext,
): Result<Decoded<AlgorithmSelection>> {
  const reader = new MessageReader(bytes, version, RESPONSE.ALGORITHMS);
  const length = reader.u16('Length');
  const measurementSpecification = reader.u8('MeasurementSpecificationSel');
  const other = reader.u8('OtherParamsSelection');
  const measurementHash = reader.u32('MeasurementHashAlgo');
  const signature = reader.u32('BaseAsymSel');
  const hash = reader.u32('BaseHashSel');
  const pqc = reader.u32('PqcAsymSel');
  reader.skip(7);
  const mel = reader.u8('MELspecificationSel');
  const extended = reader.u8('ExtAsymSelCount') + reader.u8('ExtHashSelCount');
  reader.skip(2);
  if (extended > 0) reader.refuse('it selects extended algorithms, none was offered');
  const { masks, present, extended: more } = readTables(reader, version);
  if (more > 0) reader.refuse('a table selects extended algorithms, none was offered');
  if (length !== reader.position) reader.refuse(`Length ${length}, its fields have ${reader.position} bytes`);
  return reader.end(
    {
      measurementSpecification,
      otherParameters: since(version, '1.2') ? other : 0,
      measurementHash,
      measurementLog: since(version, '1.3') ? mel : 0,
      signature,
      pqcSignature: since(version, '1.4') ? pqc : 0,
      hash,
      tables: masks,
      present,
    },
    padding,
  );
}

function readTables(
  reader: MessageReader,
  version: SpdmVersion,
): { masks: Record<TableName, number>; present: TableName[]; extended: number } {
  const masks = { ...NO_TABLES };
  const present: TableName[] = [];
  let extended = 0;
  let last = 0;
  for (let index = 0; index < reader.parameter1 && reader.problem === null; index++) {
    const type = reader.u8('AlgType');
    const count = reader.u8('AlgCount');
    const name = TABLES.find((table) => TABLE[table] === type);
    if (name === undefined || (!since(version, '1.4') && type > TABLES_11)) {
      reader.refuse(`AlgType ${type} is reserved`);
      break;
    }
    if (type <= last) reader.refuse('its tables are not in ascending order of AlgType');
    last = type;
    if (count >> 4 !== 2) reader.refuse(`AlgCount says ${count >> 4} bytes, 2 are defined`);
    masks[name] = reader.u16('AlgSupported');
    extended += count & 0xf;
    reader.skip(4 * (count & 0xf));
    present.push(name);
  }
  return { masks, present, extended };
}
