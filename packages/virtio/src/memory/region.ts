/** A named stretch of memory that both sides of a device reach. */
import { fail, ok, type Result } from '@airlock/core/result.ts';

/** Access bits, from the device's point of view, with the values of vhost-user's IOTLB permissions. */
export const READ = 1;
export const WRITE = 2;
export const READ_WRITE = 3;

export interface Region {
  /** For messages: `guest-ram-0`, `bounce`. */
  readonly name: string;
  readonly bytes: Uint8Array;
  /** Of the same bytes. Ring code reads shared fields through it, so that a test can count and forge the reads. */
  readonly view: DataView;
  /** Address of the first byte in this process, for system calls that take one; 0 where there is none. */
  readonly host: number;
}

/**
 * A region over `length` bytes of `buffer` from `offset`. `host` is the address of the region's own first byte.
 * Code: `region-invalid`.
 */
export function makeRegion(
  name: string,
  buffer: ArrayBufferLike,
  offset = 0,
  length: number = buffer.byteLength - offset,
  host = 0,
): Result<Region> {
  const whole = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && Number.isSafeInteger(host);
  if (!whole || offset < 0 || length <= 0 || host < 0 || length > buffer.byteLength - offset) {
    return fail('region-invalid', `region ${name}: ${length} bytes from ${offset} of a buffer of ${buffer.byteLength}`);
  }
  return ok({ name, bytes: new Uint8Array(buffer, offset, length), view: new DataView(buffer, offset, length), host });
}

/** Stands where no region is yet; it has no bytes. */
export const NOWHERE: Region = {
  name: 'nowhere',
  bytes: new Uint8Array(0),
  view: new DataView(new ArrayBuffer(0)),
  host: 0,
};
