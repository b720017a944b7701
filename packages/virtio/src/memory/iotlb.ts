/**
 * The device's side of ACCESS_PLATFORM over vhost-user: what the front-end's IOMMU says about I/O virtual addresses,
 * as it was told by IOTLB messages. An address that it was not told of is MISSING, and the transport asks.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { READ_WRITE, type Region } from './region.ts';
import { AddressSpace } from './space.ts';

/** VHOST_IOTLB_UPDATE as a value; `access` holds READ, WRITE or both. */
export interface IotlbUpdate {
  readonly address: number;
  readonly size: number;
  /** In the front-end's own address space. */
  readonly userAddress: number;
  readonly access: number;
}

/** As many as Linux's vhost keeps by default (max_iotlb_entries). */
export const IOTLB_LIMIT = 2048;

/** The most pieces of the memory table that one update may span. */
const PIECES_LIMIT = 512;

export class Iotlb {
  /** What rings translate through. */
  readonly space: AddressSpace;
  private readonly user: AddressSpace;

  /** `user` leads the front-end's addresses to memory: `guestMemory().user`. */
  constructor(user: AddressSpace, limit: number = IOTLB_LIMIT) {
    this.user = user;
    this.space = new AddressSpace({ limit, missing: true });
  }

  /**
   * Takes an update; what it overlaps is replaced, as Linux's vhost does. When the table is full it is emptied first:
   * every address can be asked for again. Codes: `iotlb-update-invalid`, `mapping-invalid`.
   */
  update(update: IotlbUpdate): Result<void> {
    const { address, size, userAddress, access } = update;
    if (access < 1 || access > READ_WRITE) return fail('iotlb-update-invalid', `permission ${access}`);
    if (!isRange(address, size) || !isRange(userAddress, size)) {
      return fail('iotlb-update-invalid', `${size} bytes at ${address} from ${userAddress}`);
    }
    // Find every piece before anything changes, so that a refused update leaves the table as it was.
    const pieces: { region: Region; offset: number; size: number }[] = [];
    for (let done = 0; done < size; ) {
      const run = this.user.translate(userAddress + done, READ_WRITE);
      if (run <= 0 || pieces.length === PIECES_LIMIT) {
        return fail('iotlb-update-invalid', `the memory table does not hold ${size} bytes at ${userAddress}`);
      }
      const piece = Math.min(run, size - done);
      pieces.push({ region: this.user.region, offset: this.user.offset, size: piece });
      done += piece;
    }
    const removed = this.space.unmap(address, size);
    if (!removed.ok) this.space.clear();
    let start = address;
    for (const { region, offset, size: bytes } of pieces) {
      const mapping = { start, size: bytes, region, offset, access };
      let mapped = this.space.map(mapping);
      if (!mapped.ok && mapped.error.code === 'mapping-limit') {
        this.space.clear();
        mapped = this.space.map(mapping);
      }
      if (!mapped.ok) return mapped;
      start += bytes;
    }
    return ok(undefined);
  }

  /** VHOST_IOTLB_INVALIDATE. A size of 0, or one that reaches the end of all addresses, is what it says. */
  invalidate(address: number, size: number): void {
    if (size <= 0 || !(address >= 0)) return;
    const removed = this.space.unmap(address, size);
    // No room to split the mapping in two: forgetting more than was asked for is always right.
    if (!removed.ok) this.space.clear();
  }
}

function isRange(start: number, size: number): boolean {
  return Number.isSafeInteger(start) && Number.isSafeInteger(size) && start >= 0 && size > 0 && size <= 2 ** 53 - start;
}
