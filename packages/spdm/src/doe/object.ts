/** Data objects of PCIe Data Object Exchange, PCIe 6.1 §6.30.1: two header dwords, then whole dwords. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { FieldReader, le16, le32 } from '../little-endian.ts';

export const PCI_SIG = 0x0001;

/** Data object types of the PCI-SIG. */
export const DOE_TYPE = { discovery: 0, spdm: 1, securedSpdm: 2 } as const;

/** A length of 2^18 dwords, which is written as 0, in bytes and with the header. */
export const DOE_OBJECT_LIMIT = 4 * (1 << 18);
export const DOE_HEADER = 8;

export interface DoeObject {
  readonly vendor: number;
  readonly type: number;
  /** A multiple of four bytes; what does not fill the last dword ends in zeros. */
  readonly payload: Uint8Array;
}

export interface DoeHeader {
  readonly vendor: number;
  readonly type: number;
  /** Of the whole object with its header, in bytes. */
  readonly length: number;
}

/** The object, padded with zeros to whole dwords. Codes: `doe-object-too-large`. */
export function encodeDoeObject(vendor: number, type: number, payload: Uint8Array): Result<Uint8Array> {
  const length = DOE_HEADER + Math.ceil(payload.length / 4) * 4;
  if (length > DOE_OBJECT_LIMIT) return fail('doe-object-too-large', `${payload.length} bytes in one data object`);
  const bytes = new Uint8Array(length);
  bytes.set(le16(vendor));
  bytes[2] = type & 0xff;
  bytes.set(le32(length === DOE_OBJECT_LIMIT ? 0 : length / 4), 4);
  bytes.set(payload, DOE_HEADER);
  return ok(bytes);
}

/** The first two dwords. Codes: `doe-object-invalid`. */
export function decodeDoeHeader(bytes: Uint8Array): Result<DoeHeader> {
  const reader = new FieldReader(bytes, 'doe-object-invalid', 'DOE data object');
  const vendor = reader.u16('the vendor id');
  const type = reader.u8('the data object type');
  reader.reserved(1);
  const dwords = reader.u32('the length');
  if (reader.problem === null && dwords >>> 18 !== 0) reader.refuse('reserved bits of the length are set');
  if (reader.problem === null && dwords === 1) reader.refuse('a length of 1 dword, the header alone has 2');
  if (reader.problem !== null) return { ok: false, error: reader.problem };
  return ok({ vendor, type, length: dwords === 0 ? DOE_OBJECT_LIMIT : dwords * 4 });
}

/** One object and nothing after it. Codes: `doe-object-invalid`. */
export function decodeDoeObject(bytes: Uint8Array): Result<DoeObject> {
  const header = decodeDoeHeader(bytes);
  if (!header.ok) return header;
  const { vendor, type, length } = header.value;
  if (length !== bytes.length)
    return fail('doe-object-invalid', `DOE data object: its length is ${length} bytes, ${bytes.length} are there`);
  return ok({ vendor, type, payload: bytes.slice(DOE_HEADER) });
}
