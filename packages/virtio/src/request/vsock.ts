/** Socket packets. VIRTIO 1.4 §5.10.6. */
import { fail, ok, type Result } from '@airlock/core/result.ts';

export const VSOCK_HEADER_SIZE = 44;
export const VSOCK_STREAM = 1;
export const VSOCK_SEQPACKET = 2;

export const VSOCK_OPERATIONS = [
  'invalid',
  'request',
  'response',
  'rst',
  'shutdown',
  'rw',
  'credit-update',
  'credit-request',
] as const;
export type VsockOperation = Exclude<(typeof VSOCK_OPERATIONS)[number], 'invalid'>;

export interface VsockHeader {
  readonly sourceCid: number;
  readonly destinationCid: number;
  readonly sourcePort: number;
  readonly destinationPort: number;
  /** Bytes that follow; held against the buffers that came with the header. */
  readonly length: number;
  readonly type: number;
  readonly operation: VsockOperation;
  readonly flags: number;
  readonly bufferAllocation: number;
  readonly forwardCount: number;
}

/**
 * Reads a header that `payloadRoom` bytes follow in its buffers. An unknown `type` is no error here: it is answered with
 * a RST. Codes: `request-truncated`, `request-malformed` (length beyond the buffers, a CID above 32 bits, an unknown
 * operation, a payload where the operation has none).
 */
export function parseVsockHeader(bytes: Uint8Array, payloadRoom: number): Result<VsockHeader> {
  if (bytes.length < VSOCK_HEADER_SIZE) return fail('request-truncated', `vsock header of ${bytes.length} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = view.getUint32(24, true);
  const number = view.getUint16(30, true);
  const operation = VSOCK_OPERATIONS[number];
  if (operation === undefined || operation === 'invalid') return fail('request-malformed', `vsock operation ${number}`);
  if (length > payloadRoom) return fail('request-malformed', `vsock: ${length} bytes in a buffer of ${payloadRoom}`);
  if (length > 0 && operation !== 'rw') return fail('request-malformed', `vsock ${operation} with ${length} bytes`);
  if (view.getUint32(4, true) !== 0 || view.getUint32(12, true) !== 0) {
    return fail('request-malformed', 'vsock: the upper half of a CID is reserved');
  }
  return ok({
    sourceCid: view.getUint32(0, true),
    destinationCid: view.getUint32(8, true),
    sourcePort: view.getUint32(16, true),
    destinationPort: view.getUint32(20, true),
    length,
    type: view.getUint16(28, true),
    operation,
    flags: view.getUint32(32, true),
    bufferAllocation: view.getUint32(36, true),
    forwardCount: view.getUint32(40, true),
  });
}

export function encodeVsockHeader(header: VsockHeader): Uint8Array {
  const bytes = new Uint8Array(VSOCK_HEADER_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, header.sourceCid, true);
  view.setUint32(8, header.destinationCid, true);
  view.setUint32(16, header.sourcePort, true);
  view.setUint32(20, header.destinationPort, true);
  view.setUint32(24, header.length, true);
  view.setUint16(28, header.type, true);
  view.setUint16(30, VSOCK_OPERATIONS.indexOf(header.operation), true);
  view.setUint32(32, header.flags, true);
  view.setUint32(36, header.bufferAllocation, true);
  view.setUint32(40, header.forwardCount, true);
  return bytes;
}
