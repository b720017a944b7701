/** TDISP messages, PCIe 6.1 §11.3: sixteen bytes of header with the interface they are for, then the fields of each. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { FieldReader, le16, le32, le64 } from '../little-endian.ts';
import { TDI_STATES, type TdiState } from './interface.ts';

export const TDISP_VERSION = 0x10;
export const NONCE_SIZE = 32;

/** Message types; a response’s is its request’s without the top bit. */
export const TDISP_REQUEST = {
  GET_VERSION: 0x81,
  GET_CAPABILITIES: 0x82,
  LOCK_INTERFACE: 0x83,
  GET_DEVICE_INTERFACE_REPORT: 0x84,
  GET_DEVICE_INTERFACE_STATE: 0x85,
  START_INTERFACE: 0x86,
  STOP_INTERFACE: 0x87,
  BIND_P2P_STREAM: 0x88,
  UNBIND_P2P_STREAM: 0x89,
  SET_MMIO_ATTRIBUTE: 0x8a,
  VDM: 0x8b,
} as const;
export type TdispRequestName = keyof typeof TDISP_REQUEST;
const REQUEST_NAMES = new Map(Object.entries(TDISP_REQUEST).map(([name, code]) => [code, name as TdispRequestName]));
const ERROR = 0x7f;

/** TDISP_ERROR, §11.3.29. */
export const TDISP_ERROR = {
  INVALID_REQUEST: 0x01,
  BUSY: 0x03,
  INVALID_INTERFACE_STATE: 0x04,
  UNSPECIFIED: 0x05,
  UNSUPPORTED_REQUEST: 0x07,
  VERSION_MISMATCH: 0x41,
  VENDOR_SPECIFIC_ERROR: 0xff,
  INVALID_INTERFACE: 0x101,
  INVALID_NONCE: 0x102,
  INSUFFICIENT_ENTROPY: 0x103,
  INVALID_DEVICE_CONFIGURATION: 0x104,
} as const;
export type TdispErrorName = keyof typeof TDISP_ERROR;
const ERROR_NAMES = new Map(Object.entries(TDISP_ERROR).map(([name, code]) => [code as number, name]));

/** FLAGS of LOCK_INTERFACE_REQUEST, §11.3.8. */
export const LOCK_FLAG = {
  noFirmwareUpdate: 1 << 0,
  systemCacheLineSize: 1 << 1,
  lockMsix: 1 << 2,
  bindP2p: 1 << 3,
  allRequestRedirect: 1 << 4,
} as const;
const LOCK_FLAGS = 0x1f;

export interface LockParameters {
  readonly flags: number;
  readonly defaultStream: number;
  /** Added to the addresses of the interface report, in bytes; a multiple of 4 KiB. */
  readonly mmioReportingOffset: bigint;
  readonly p2pAddressMask: bigint;
}

export interface TdispCapabilities {
  readonly dsmCapabilities: number;
  /** Requests that the device takes, by bit: bit 1 is GET_VERSION. */
  readonly requests: Uint8Array;
  readonly lockFlags: number;
  readonly addressWidth: number;
  /** Outstanding requests for this interface, and for all. */
  readonly requestsThis: number;
  readonly requestsAll: number;
}

/** MMIO_RANGE, §11.3.11. */
export interface MmioRange {
  /** Number of its first 4 KiB page, with the reporting offset in it. */
  readonly firstPage: bigint;
  readonly pages: number;
  readonly attributes: number;
  readonly rangeId: number;
}

export type TdispRequest =
  | { readonly name: 'GET_VERSION' | 'GET_DEVICE_INTERFACE_STATE' | 'STOP_INTERFACE' }
  | { readonly name: 'GET_CAPABILITIES'; readonly tsmCapabilities: number }
  | ({ readonly name: 'LOCK_INTERFACE' } & LockParameters)
  | { readonly name: 'GET_DEVICE_INTERFACE_REPORT'; readonly offset: number; readonly length: number }
  | { readonly name: 'START_INTERFACE'; readonly nonce: Uint8Array }
  | { readonly name: 'BIND_P2P_STREAM' | 'UNBIND_P2P_STREAM'; readonly stream: number }
  | { readonly name: 'SET_MMIO_ATTRIBUTE'; readonly range: MmioRange }
  | { readonly name: 'VDM'; readonly registry: number; readonly vendor: Uint8Array; readonly data: Uint8Array };

export type TdispResponse =
  | { readonly name: 'GET_VERSION'; readonly versions: readonly number[] }
  | { readonly name: 'GET_CAPABILITIES'; readonly capabilities: TdispCapabilities }
  | { readonly name: 'LOCK_INTERFACE'; readonly nonce: Uint8Array }
  | { readonly name: 'GET_DEVICE_INTERFACE_REPORT'; readonly remainder: number; readonly portion: Uint8Array }
  | { readonly name: 'GET_DEVICE_INTERFACE_STATE'; readonly state: TdiState }
  | {
      readonly name:
        | 'START_INTERFACE'
        | 'STOP_INTERFACE'
        | 'BIND_P2P_STREAM'
        | 'UNBIND_P2P_STREAM'
        | 'SET_MMIO_ATTRIBUTE';
    }
  | { readonly name: 'VDM'; readonly registry: number; readonly vendor: Uint8Array; readonly data: Uint8Array }
  | { readonly name: 'ERROR'; readonly error: number; readonly data: number; readonly extended: Uint8Array };

export interface Addressed<Message> {
  readonly version: number;
  /** FUNCTION_ID of INTERFACE_ID. */
  readonly interface: number;
  readonly message: Message;
}

/** `INVALID_NONCE`, or the number. */
export function tdispErrorName(code: number): string {
  return ERROR_NAMES.get(code) ?? `0x${code.toString(16)}`;
}

function header(type: number, id: number, version = TDISP_VERSION): Uint8Array {
  return concat(Uint8Array.of(version, type, 0, 0), le32(id), new Uint8Array(8));
}

function encodeRange({ firstPage, pages, attributes, rangeId }: MmioRange): Uint8Array {
  return concat(le64(firstPage), le32(pages), le16(attributes), le16(rangeId));
}

/** Also of the interface report. */
export function readRange(reader: FieldReader): MmioRange {
  const firstPage = reader.u64('the first page of a range');
  const pages = reader.u32('the pages of a range');
  const attributes = reader.u16('the attributes of a range');
  const rangeId = reader.u16('the id of a range');
  if (attributes >>> 4 !== 0) reader.refuse('reserved attributes of a range are set');
  return { firstPage, pages, attributes, rangeId };
}

export const encodeMmioRange = encodeRange;

function vendorData(message: { registry: number; vendor: Uint8Array; data: Uint8Array }): Uint8Array {
  return concat(Uint8Array.of(message.registry, message.vendor.length), message.vendor, message.data);
}

function readVendorData(reader: FieldReader): { registry: number; vendor: Uint8Array; data: Uint8Array } {
  const registry = reader.u8('the registry');
  const vendor = reader.take(reader.u8('the vendor’s length'), 'the vendor');
  return { registry, vendor, data: reader.rest() };
}

/** The body without a header. */
function requestBody(request: TdispRequest): Uint8Array {
  switch (request.name) {
    case 'GET_CAPABILITIES':
      return le32(request.tsmCapabilities);
    case 'LOCK_INTERFACE':
      return concat(
        le16(request.flags),
        Uint8Array.of(request.defaultStream, 0),
        le64(request.mmioReportingOffset),
        le64(request.p2pAddressMask),
      );
    case 'GET_DEVICE_INTERFACE_REPORT':
      return concat(le16(request.offset), le16(request.length));
    case 'START_INTERFACE':
      return request.nonce;
    case 'BIND_P2P_STREAM':
    case 'UNBIND_P2P_STREAM':
      return Uint8Array.of(request.stream);
    case 'SET_MMIO_ATTRIBUTE':
      return encodeRange(request.range);
    case 'VDM':
      return vendorData(request);
    default:
      return new Uint8Array();
  }
}

export function encodeTdispRequest(interfaceId: number, request: TdispRequest): Uint8Array {
  return concat(header(TDISP_REQUEST[request.name], interfaceId), requestBody(request));
}

function readRequest(reader: FieldReader, name: TdispRequestName): TdispRequest {
  switch (name) {
    case 'GET_VERSION':
    case 'GET_DEVICE_INTERFACE_STATE':
    case 'STOP_INTERFACE':
      return { name };
    case 'GET_CAPABILITIES':
      return { name, tsmCapabilities: reader.u32('the TSM’s capabilities') };
    case 'LOCK_INTERFACE': {
      const flags = reader.u16('the flags');
      if (flags & ~LOCK_FLAGS) reader.refuse('reserved flags are set');
      const defaultStream = reader.u8('the default stream');
      reader.reserved(1);
      const mmioReportingOffset = reader.u64('the MMIO reporting offset');
      const p2pAddressMask = reader.u64('the P2P address mask');
      return { name, flags, defaultStream, mmioReportingOffset, p2pAddressMask };
    }
    case 'GET_DEVICE_INTERFACE_REPORT':
      return { name, offset: reader.u16('the offset'), length: reader.u16('the length') };
    case 'START_INTERFACE':
      return { name, nonce: reader.take(NONCE_SIZE, 'the nonce') };
    case 'BIND_P2P_STREAM':
    case 'UNBIND_P2P_STREAM':
      return { name, stream: reader.u8('the stream') };
    case 'SET_MMIO_ATTRIBUTE':
      return { name, range: readRange(reader) };
    case 'VDM':
      return { name, ...readVendorData(reader) };
  }
}

interface Header {
  readonly version: number;
  readonly type: number;
  readonly interface: number;
}

function readHeader(reader: FieldReader): Header {
  const version = reader.u8('the version');
  const type = reader.u8('the message type');
  reader.reserved(2);
  const id = reader.u32('the interface');
  if (id >>> 25 !== 0) reader.refuse('reserved bits of the interface are set');
  reader.reserved(8);
  return { version, type, interface: id };
}

/** Just the header, so that a responder can refuse the rest. Codes: `tdisp-message-invalid`. */
export function decodeTdispHeader(bytes: Uint8Array): Result<Header> {
  const reader = new FieldReader(bytes, 'tdisp-message-invalid', 'TDISP message');
  const read = readHeader(reader);
  return reader.problem === null ? ok(read) : { ok: false, error: reader.problem };
}

/** One request and nothing after it. Codes: `tdisp-message-invalid`, `tdisp-unexpected` (an unknown request). */
export function decodeTdispRequest(bytes: Uint8Array): Result<Addressed<TdispRequest>> {
  const reader = new FieldReader(bytes, 'tdisp-message-invalid', 'TDISP request');
  const { version, type, interface: id } = readHeader(reader);
  if (reader.problem !== null) return { ok: false, error: reader.problem };
  const name = REQUEST_NAMES.get(type as 0x81);
  if (name === undefined) return fail('tdisp-unexpected', `TDISP request 0x${type.toString(16)}`);
  const message = readRequest(reader, name);
  reader.finish();
  return reader.problem === null ? ok({ version, interface: id, message }) : { ok: false, error: reader.problem };
}

function responseBody(response: TdispResponse): Uint8Array {
  switch (response.name) {
    case 'GET_VERSION':
      return Uint8Array.of(response.versions.length, ...response.versions);
    case 'GET_CAPABILITIES': {
      const { dsmCapabilities, requests, lockFlags, addressWidth, requestsThis, requestsAll } = response.capabilities;
      return concat(
        le32(dsmCapabilities),
        requests,
        le16(lockFlags),
        Uint8Array.of(0, 0, 0, addressWidth, requestsThis, requestsAll),
      );
    }
    case 'LOCK_INTERFACE':
      return response.nonce;
    case 'GET_DEVICE_INTERFACE_REPORT':
      return concat(le16(response.portion.length), le16(response.remainder), response.portion);
    case 'GET_DEVICE_INTERFACE_STATE':
      return Uint8Array.of(TDI_STATES.indexOf(response.state));
    case 'VDM':
      return vendorData(response);
    case 'ERROR':
      return concat(le32(response.error), le32(response.data), response.extended);
    default:
      return new Uint8Array();
  }
}

export function encodeTdispResponse(interfaceId: number, response: TdispResponse, version?: number): Uint8Array {
  const type = response.name === 'ERROR' ? ERROR : TDISP_REQUEST[response.name] & 0x7f;
  return concat(header(type, interfaceId, version), responseBody(response));
}

function readCapabilities(reader: FieldReader): TdispCapabilities {
  const dsmCapabilities = reader.u32('the device’s capabilities');
  const requests = reader.take(16, 'the requests that it takes');
  const lockFlags = reader.u16('the lock flags');
  reader.reserved(3);
  const addressWidth = reader.u8('the address width');
  const requestsThis = reader.u8('the outstanding requests');
  const requestsAll = reader.u8('the outstanding requests of all');
  return { dsmCapabilities, requests, lockFlags, addressWidth, requestsThis, requestsAll };
}

function readResponse(reader: FieldReader, name: TdispRequestName): TdispResponse {
  switch (name) {
    case 'GET_VERSION': {
      const count = reader.u8('the number of versions');
      return { name, versions: [...reader.take(count, 'the versions')] };
    }
    case 'GET_CAPABILITIES':
      return { name, capabilities: readCapabilities(reader) };
    case 'LOCK_INTERFACE':
      return { name, nonce: reader.take(NONCE_SIZE, 'the nonce') };
    case 'GET_DEVICE_INTERFACE_REPORT': {
      const length = reader.u16('the portion’s length');
      const remainder = reader.u16('the remainder’s length');
      return { name, remainder, portion: reader.take(length, 'the portion') };
    }
    case 'GET_DEVICE_INTERFACE_STATE': {
      const value = reader.u8('the state');
      const state = TDI_STATES[value];
      if (state === undefined) reader.refuse(`state ${value}`);
      return { name, state: state ?? 'ERROR' };
    }
    case 'VDM':
      return { name, ...readVendorData(reader) };
    default:
      return { name };
  }
}

/** One response and nothing after it. Codes: `tdisp-message-invalid`, `tdisp-unexpected` (an unknown response). */
export function decodeTdispResponse(bytes: Uint8Array): Result<Addressed<TdispResponse>> {
  const reader = new FieldReader(bytes, 'tdisp-message-invalid', 'TDISP response');
  const { version, type, interface: id } = readHeader(reader);
  if (reader.problem !== null) return { ok: false, error: reader.problem };
  let message: TdispResponse;
  if (type === ERROR) {
    const error = reader.u32('the error');
    const data = reader.u32('the error’s data');
    message = { name: 'ERROR', error, data, extended: reader.rest() };
  } else {
    const name = type < 0x80 ? REQUEST_NAMES.get((type | 0x80) as 0x81) : undefined;
    if (name === undefined) return fail('tdisp-unexpected', `TDISP response 0x${type.toString(16)}`);
    message = readResponse(reader, name);
  }
  reader.finish();
  return reader.problem === null ? ok({ version, interface: id, message }) : { ok: false, error: reader.problem };
}
