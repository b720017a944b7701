/** Payloads of vhost-user messages, to and from bytes. All numbers are little-endian; those of 64 bits are two words. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { CONFIG_SIZE_LIMIT } from '@airlock/virtio/config/space.ts';
import type { Form } from './protocol.ts';

/** 64 bits as two words, lowest first: features, status and error values need every bit. */
export type Words = readonly [low: number, high: number];

/** vhost-user "Memory region description"; addresses may be above 2^53 and are then inexact: nothing maps there. */
export interface RegionEntry {
  readonly guestAddress: number;
  readonly size: number;
  readonly userAddress: number;
  readonly offset: number;
}

export interface VringAddresses {
  readonly index: number;
  readonly flags: number;
  readonly descriptors: number;
  readonly used: number;
  readonly available: number;
  readonly log: number;
}

/** Types of IOTLB messages. */
export const IOTLB_MISS = 1;
export const IOTLB_UPDATE = 2;
export const IOTLB_INVALIDATE = 3;
export const IOTLB_ACCESS_FAIL = 4;

export interface IotlbEntry {
  readonly address: number;
  readonly size: number;
  readonly userAddress: number;
  readonly access: number;
  readonly type: number;
}

/** Flags of SET_CONFIG: a driver wrote (0), or a migrated device is being set up (1). */
export const CONFIG_FROM_DRIVER = 0;
export const CONFIG_FROM_MIGRATION = 1;

export interface ConfigSpan {
  readonly offset: number;
  readonly flags: number;
  readonly bytes: Uint8Array;
}

export interface InflightArea {
  readonly size: number;
  readonly offset: number;
  readonly queues: number;
  readonly queueSize: number;
}

export type Payload =
  | { readonly form: 'none' }
  | { readonly form: 'u64'; readonly words: Words }
  | { readonly form: 'vring-fd'; readonly index: number; readonly hasFd: boolean }
  | { readonly form: 'vring'; readonly index: number; readonly value: number }
  | { readonly form: 'vring-address'; readonly addresses: VringAddresses }
  | { readonly form: 'regions'; readonly regions: readonly RegionEntry[] }
  | { readonly form: 'region'; readonly region: RegionEntry }
  | { readonly form: 'log'; readonly size: number; readonly offset: number }
  | { readonly form: 'iotlb'; readonly entry: IotlbEntry }
  | { readonly form: 'config'; readonly span: ConfigSpan }
  | { readonly form: 'inflight'; readonly area: InflightArea }
  | { readonly form: 'opaque'; readonly bytes: Uint8Array };

export const NO_PAYLOAD: Payload = { form: 'none' };

/** SET_MEM_TABLE holds no more; more memory needs CONFIGURE_MEM_SLOTS. */
export const TABLE_REGIONS_LIMIT = 8;
const REGION_SIZE = 32;
const CONFIG_HEADER = 12;
/** The largest payload that anything here sends or takes. */
export const PAYLOAD_LIMIT = CONFIG_HEADER + CONFIG_SIZE_LIMIT;
const NO_FD = 0x100;

/**
 * The payload of a message whose kind has `form`. Every size is exact. Codes: `vhost-user-payload-size`,
 * `vhost-user-payload-invalid`.
 */
export function parsePayload(form: Form, bytes: Uint8Array): Result<Payload> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const { length } = bytes;
  switch (form) {
    case 'none':
      return length === 0 ? ok(NO_PAYLOAD) : wrongSize(form, length);
    case 'u64':
      if (length !== 8) return wrongSize(form, length);
      return ok({ form, words: [view.getUint32(0, true), view.getUint32(4, true)] });
    case 'vring-fd': {
      if (length !== 8) return wrongSize(form, length);
      const value = view.getUint32(0, true);
      if (view.getUint32(4, true) !== 0 || (value & ~(NO_FD | 0xff)) !== 0) {
        return fail('vhost-user-payload-invalid', `queue and flag 0x${value.toString(16)} have bits that mean nothing`);
      }
      return ok({ form, index: value & 0xff, hasFd: (value & NO_FD) === 0 });
    }
    case 'vring':
      if (length !== 8) return wrongSize(form, length);
      return ok({ form, index: view.getUint32(0, true), value: view.getUint32(4, true) });
    case 'vring-address':
      if (length !== 40) return wrongSize(form, length);
      return ok({
        form,
        addresses: {
          index: view.getUint32(0, true),
          flags: view.getUint32(4, true),
          descriptors: readAddress(view, 8),
          used: readAddress(view, 16),
          available: readAddress(view, 24),
          log: readAddress(view, 32),
        },
      });
    case 'regions':
      return parseRegions(view);
    case 'region':
      if (length !== 8 + REGION_SIZE) return wrongSize(form, length);
      return ok({ form, region: readRegion(view, 8) });
    case 'log':
      if (length !== 16) return wrongSize(form, length);
      return ok({ form, size: readAddress(view, 0), offset: readAddress(view, 8) });
    case 'iotlb':
      // C pads the structure to 32 bytes; those who pack it send 26.
      if (length !== 32 && length !== 26) return wrongSize(form, length);
      return ok({
        form,
        entry: {
          address: readAddress(view, 0),
          size: readAddress(view, 8),
          userAddress: readAddress(view, 16),
          access: view.getUint8(24),
          type: view.getUint8(25),
        },
      });
    case 'config':
      return parseConfig(view, bytes);
    case 'inflight':
      // 24 in C, 20 where it is packed.
      if (length !== 24 && length !== 20) return wrongSize(form, length);
      return ok({
        form,
        area: {
          size: readAddress(view, 0),
          offset: readAddress(view, 8),
          queues: view.getUint16(16, true),
          queueSize: view.getUint16(18, true),
        },
      });
    case 'opaque':
      return ok({ form, bytes: bytes.slice() });
  }
}

function wrongSize(form: Form, length: number): Result<never> {
  return fail('vhost-user-payload-size', `${length} bytes are no ${form}`);
}

function parseRegions(view: DataView): Result<Payload> {
  if (view.byteLength < 8) return wrongSize('regions', view.byteLength);
  const count = view.getUint32(0, true);
  if (count > TABLE_REGIONS_LIMIT) {
    return fail('vhost-user-payload-invalid', `${count} regions; a table holds ${TABLE_REGIONS_LIMIT}`);
  }
  if (view.byteLength !== 8 + count * REGION_SIZE) {
    return fail('vhost-user-payload-size', `${view.byteLength} bytes for ${count} regions`);
  }
  return ok({
    form: 'regions',
    regions: Array.from({ length: count }, (_, i) => readRegion(view, 8 + i * REGION_SIZE)),
  });
}

function parseConfig(view: DataView, bytes: Uint8Array): Result<Payload> {
  if (bytes.length < CONFIG_HEADER) return wrongSize('config', bytes.length);
  const offset = view.getUint32(0, true);
  const size = view.getUint32(4, true);
  if (size > CONFIG_SIZE_LIMIT || offset > CONFIG_SIZE_LIMIT) {
    return fail('vhost-user-payload-invalid', `${size} bytes of configuration at ${offset}`);
  }
  if (bytes.length !== CONFIG_HEADER + size) {
    return fail('vhost-user-payload-size', `${bytes.length} bytes for ${size} bytes of configuration`);
  }
  const span = { offset, flags: view.getUint32(8, true), bytes: bytes.slice(CONFIG_HEADER) };
  return ok({ form: 'config', span });
}

function readRegion(view: DataView, at: number): RegionEntry {
  return {
    guestAddress: readAddress(view, at),
    size: readAddress(view, at + 8),
    userAddress: readAddress(view, at + 16),
    offset: readAddress(view, at + 24),
  };
}

/** Exact below 2^53. What is higher stays higher, and every use of an address refuses that. */
function readAddress(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
}

function writeAddress(view: DataView, at: number, value: number): void {
  view.setUint32(at, value % 2 ** 32, true);
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}

/** The bytes of a payload. */
export function encodePayload(payload: Payload): Uint8Array {
  switch (payload.form) {
    case 'none':
      return new Uint8Array(0);
    case 'u64':
      return words(...payload.words);
    case 'vring-fd':
      return words(payload.index | (payload.hasFd ? 0 : NO_FD), 0);
    case 'vring':
      return words(payload.index, payload.value);
    case 'vring-address': {
      const { index, flags, descriptors, used, available, log } = payload.addresses;
      const { bytes, view } = room(40);
      view.setUint32(0, index, true);
      view.setUint32(4, flags, true);
      [descriptors, used, available, log].forEach((address, i) => {
        writeAddress(view, 8 + 8 * i, address);
      });
      return bytes;
    }
    case 'regions': {
      const { bytes, view } = room(8 + payload.regions.length * REGION_SIZE);
      view.setUint32(0, payload.regions.length, true);
      payload.regions.forEach((region, i) => {
        writeRegion(view, 8 + i * REGION_SIZE, region);
      });
      return bytes;
    }
    case 'region': {
      const { bytes, view } = room(8 + REGION_SIZE);
      writeRegion(view, 8, payload.region);
      return bytes;
    }
    case 'log': {
      const { bytes, view } = room(16);
      writeAddress(view, 0, payload.size);
      writeAddress(view, 8, payload.offset);
      return bytes;
    }
    case 'iotlb': {
      const { address, size, userAddress, access, type } = payload.entry;
      const { bytes, view } = room(32);
      writeAddress(view, 0, address);
      writeAddress(view, 8, size);
      writeAddress(view, 16, userAddress);
      view.setUint8(24, access);
      view.setUint8(25, type);
      return bytes;
    }
    case 'config': {
      const { offset, flags, bytes: content } = payload.span;
      const { bytes, view } = room(CONFIG_HEADER + content.length);
      view.setUint32(0, offset, true);
      view.setUint32(4, content.length, true);
      view.setUint32(8, flags, true);
      bytes.set(content, CONFIG_HEADER);
      return bytes;
    }
    case 'inflight': {
      const { size, offset, queues, queueSize } = payload.area;
      const { bytes, view } = room(24);
      writeAddress(view, 0, size);
      writeAddress(view, 8, offset);
      view.setUint16(16, queues, true);
      view.setUint16(18, queueSize, true);
      return bytes;
    }
    case 'opaque':
      return payload.bytes;
  }
}

function writeRegion(view: DataView, at: number, region: RegionEntry): void {
  writeAddress(view, at, region.guestAddress);
  writeAddress(view, at + 8, region.size);
  writeAddress(view, at + 16, region.userAddress);
  writeAddress(view, at + 24, region.offset);
}

function room(length: number): { readonly bytes: Uint8Array; readonly view: DataView } {
  const bytes = new Uint8Array(length);
  return { bytes, view: new DataView(bytes.buffer) };
}

function words(low: number, high: number): Uint8Array {
  const { bytes, view } = room(8);
  view.setUint32(0, low, true);
  view.setUint32(4, high, true);
  return bytes;
}
