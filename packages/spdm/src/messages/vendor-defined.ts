/** VENDOR_DEFINED_REQUEST and VENDOR_DEFINED_RESPONSE: another body's protocol within SPDM. */
import type { Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { since } from '../algorithms.ts';
import { le16, le32 } from '../little-endian.ts';
import { type Decoded, header, type MessageContext, MessageReader } from './reader.ts';

const LARGE = 0x80;
const VENDOR_LIMIT = 16;

export interface VendorMessage {
  /** Registry or standards body; 3 is the PCI-SIG. */
  readonly standard: number;
  readonly vendor: Uint8Array;
  readonly payload: Uint8Array;
  /** The length has four bytes although two would do (1.4); an answer has to be as its request is. */
  readonly large?: boolean;
}

/** `code` is that of the request or of the response; payloads over 64 KiB need 1.4. */
export function encodeVendorDefined({ version }: MessageContext, code: number, message: VendorMessage): Uint8Array {
  const { standard, vendor, payload } = message;
  const large = since(version, '1.4') && (message.large === true || payload.length > 0xffff);
  return concat(
    header(version, code, large ? LARGE : 0),
    le16(standard),
    Uint8Array.of(vendor.length),
    vendor,
    le16(large ? 0 : payload.length),
    large ? le32(payload.length) : new Uint8Array(),
    payload,
  );
}

/** Codes: `message-malformed`. */
export function decodeVendorDefined(
  bytes: Uint8Array,
  { version, padding }: MessageContext,
  code: number,
): Result<Decoded<VendorMessage>> {
  const reader = new MessageReader(bytes, version, code);
  const large = since(version, '1.4') && (reader.parameter1 & LARGE) !== 0;
  const standard = reader.u16('StandardID');
  const vendorLength = reader.u8('Len');
  if (vendorLength > VENDOR_LIMIT) reader.refuse(`VendorID of ${vendorLength} bytes`);
  const vendor = reader.take(vendorLength, 'VendorID');
  let length = reader.u16('PayloadLength');
  if (large) length = reader.u32('LargePayloadLength');
  const payload = reader.take(length, 'Payload');
  return reader.end({ standard, vendor, payload, ...(large ? { large } : {}) }, padding);
}
