/** OpaqueData: elements of several vendors in one field. */
import { ok, type Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { FieldReader, le16 } from '../little-endian.ts';

/** The most that OpaqueDataLength may say. */
export const OPAQUE_LIMIT = 1024;

export interface OpaqueElement {
  /** Registry or standards body; 0 is the DMTF. */
  readonly id: number;
  readonly vendor: Uint8Array;
  readonly data: Uint8Array;
}

/** Format 1 of 1.2 and later: a count, then elements padded to four bytes. */
export function encodeOpaqueElements(elements: readonly OpaqueElement[]): Uint8Array {
  return concat(
    Uint8Array.of(elements.length, 0, 0, 0),
    ...elements.map(({ id, vendor, data }) => {
      const element = concat(Uint8Array.of(id, vendor.length), vendor, le16(data.length), data);
      return concat(element, new Uint8Array((4 - (element.length % 4)) % 4));
    }),
  );
}

/** Format 1. Codes: `message-malformed`. */
export function decodeOpaqueElements(bytes: Uint8Array): Result<readonly OpaqueElement[]> {
  const reader = new FieldReader(bytes, 'message-malformed', 'OpaqueData');
  const count = reader.u8('TotalElements');
  reader.take(3, 'reserved bytes');
  const elements: OpaqueElement[] = [];
  for (let index = 0; index < count && reader.problem === null; index++) {
    const before = reader.left;
    const id = reader.u8('ID');
    const vendor = reader.take(reader.u8('VendorLen'), 'VendorID');
    const data = reader.take(reader.u16('OpaqueElementDataLen'), 'OpaqueElementData');
    reader.take((4 - ((before - reader.left) % 4)) % 4, 'AlignPadding');
    elements.push({ id, vendor, data });
  }
  reader.finish();
  return reader.problem === null ? ok(elements) : { ok: false, error: reader.problem };
}
