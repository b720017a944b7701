/** IDE_KM, PCIe 6.1 §6.33.3: keys of a link’s integrity and data encryption, set within an SPDM session. */
import { ok, type Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { FieldReader, le32 } from '../little-endian.ts';

const OBJECT = {
  QUERY: 0,
  QUERY_RESP: 1,
  KEY_PROG: 2,
  KP_ACK: 3,
  K_SET_GO: 4,
  K_SET_STOP: 5,
  K_GOSTOP_ACK: 6,
} as const;
export type IdeObject = keyof typeof OBJECT;
const NAMES = new Map(Object.entries(OBJECT).map(([name, id]) => [id as number, name as IdeObject]));

export const IDE_KEY_SIZE = 32;
export const IDE_IV_SIZE = 8;
/** Capability header and registers, link streams and selective streams with their association blocks. */
const REGISTER_LIMIT = 4096;

/** Sub-streams of a stream: posted, non-posted, completions. */
export const SUB_STREAMS = ['pr', 'npr', 'cpl'] as const;
export type SubStream = (typeof SUB_STREAMS)[number];
export const DIRECTIONS = ['rx', 'tx'] as const;
/** As the port sees it. */
export type IdeDirection = (typeof DIRECTIONS)[number];

/** Which key is meant: StreamID, KeySet, direction, sub-stream and port. */
export interface IdeSlot {
  readonly stream: number;
  readonly keySet: 0 | 1;
  readonly direction: IdeDirection;
  readonly subStream: SubStream;
  readonly port: number;
}

/** Status of KP_ACK. */
export const KP_STATUS = [
  'success',
  'incorrect length',
  'unsupported port index',
  'unsupported value',
  'unspecified failure',
] as const;

export type IdeMessage =
  | { readonly name: 'QUERY'; readonly port: number }
  | {
      readonly name: 'QUERY_RESP';
      readonly port: number;
      /** Device and function number, as a routing id has them. */
      readonly devfn: number;
      readonly bus: number;
      readonly segment: number;
      readonly maxPort: number;
      /** The IDE extended capability’s registers from its capability register on. */
      readonly registers: readonly number[];
    }
  | {
      readonly name: 'KEY_PROG';
      readonly slot: IdeSlot;
      /** 32 bytes, AES-256-GCM. */
      readonly key: Uint8Array;
      /** 8 bytes, the invocation field of the first IV. */
      readonly iv: Uint8Array;
    }
  | { readonly name: 'KP_ACK'; readonly slot: IdeSlot; readonly status: number }
  | { readonly name: 'K_SET_GO' | 'K_SET_STOP' | 'K_GOSTOP_ACK'; readonly slot: IdeSlot };

/** A byte with the key set in bit 0, direction in bit 1, sub-stream in the high nibble. */
function slotByte({ keySet, direction, subStream }: IdeSlot): number {
  return keySet | (DIRECTIONS.indexOf(direction) << 1) | (SUB_STREAMS.indexOf(subStream) << 4);
}

export function encodeIdeMessage(message: IdeMessage): Uint8Array {
  const id = OBJECT[message.name];
  if (message.name === 'QUERY') return Uint8Array.of(id, 0, message.port);
  if (message.name === 'QUERY_RESP') {
    const { port, devfn, bus, segment, maxPort, registers } = message;
    return concat(Uint8Array.of(id, 0, port, devfn, bus, segment, maxPort), ...registers.map(le32));
  }
  const { slot } = message;
  const status = message.name === 'KP_ACK' ? message.status : 0;
  const start = Uint8Array.of(id, 0, 0, slot.stream, status, slotByte(slot), slot.port);
  return message.name === 'KEY_PROG' ? concat(start, message.key, message.iv) : start;
}

function readSlot(reader: FieldReader, stream: number, byte: number, port: number): IdeSlot {
  const subStream = SUB_STREAMS[byte >> 4];
  if (subStream === undefined || (byte & 0x0c) !== 0) reader.refuse(`sub-stream 0x${byte.toString(16)}`);
  const keySet = (byte & 1) === 0 ? 0 : 1;
  return { stream, keySet, direction: (byte & 2) === 0 ? 'rx' : 'tx', subStream: subStream ?? 'pr', port };
}

function readMessage(reader: FieldReader, name: IdeObject): IdeMessage {
  if (name === 'QUERY' || name === 'QUERY_RESP') {
    reader.reserved(1);
    const port = reader.u8('the port index');
    if (name === 'QUERY') return { name, port };
    const devfn = reader.u8('the device and function number');
    const bus = reader.u8('the bus number');
    const segment = reader.u8('the segment');
    const maxPort = reader.u8('the highest port index');
    if (reader.left % 4 !== 0 || reader.left > REGISTER_LIMIT) reader.refuse(`registers of ${reader.left} bytes`);
    const registers: number[] = [];
    while (reader.left > 0) registers.push(reader.u32('a register'));
    return { name, port, devfn, bus, segment, maxPort, registers };
  }
  reader.reserved(2);
  const stream = reader.u8('the stream');
  const status = reader.u8(name === 'KP_ACK' ? 'the status' : 'a reserved field');
  if (name !== 'KP_ACK' && status !== 0) reader.refuse('a reserved field is not zero');
  const slot = readSlot(reader, stream, reader.u8('the sub-stream'), reader.u8('the port index'));
  if (name === 'KP_ACK') return { name, slot, status };
  if (name !== 'KEY_PROG') return { name, slot };
  const key = reader.take(IDE_KEY_SIZE, 'the key');
  return { name, slot, key, iv: reader.take(IDE_IV_SIZE, 'the IV') };
}

/** One message and nothing after it. Codes: `ide-km-message-invalid`. */
export function decodeIdeMessage(bytes: Uint8Array): Result<IdeMessage> {
  const reader = new FieldReader(bytes, 'ide-km-message-invalid', 'IDE_KM message');
  const id = reader.u8('the object id');
  const name = NAMES.get(id);
  if (name === undefined) reader.refuse(`object id ${id}`);
  const message = readMessage(reader, name ?? 'QUERY');
  reader.finish();
  return reader.problem === null ? ok(message) : { ok: false, error: reader.problem };
}

export interface IdeCapability {
  readonly link: boolean;
  readonly selective: boolean;
  readonly flowThrough: boolean;
  readonly partialHeaderEncryption: boolean;
  readonly aggregation: boolean;
  readonly pcrc: boolean;
  readonly ideKm: boolean;
  /** Streams of either kind; 0 where the kind is not supported. */
  readonly linkStreams: number;
  readonly selectiveStreams: number;
}

/** IDE Capability Register, PCIe 6.1 §7.9.26.2. */
export function readIdeCapability(register: number): IdeCapability {
  const bit = (at: number) => ((register >>> at) & 1) === 1;
  return {
    link: bit(0),
    selective: bit(1),
    flowThrough: bit(2),
    partialHeaderEncryption: bit(3),
    aggregation: bit(4),
    pcrc: bit(5),
    ideKm: bit(6),
    linkStreams: bit(0) ? ((register >>> 13) & 7) + 1 : 0,
    selectiveStreams: bit(1) ? ((register >>> 16) & 0xff) + 1 : 0,
  };
}
