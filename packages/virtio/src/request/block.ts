/**
 * Block requests. VIRTIO 1.4 §5.2.6. The functions read a field of shared memory once or look at private copies, and
 * allocate nothing: a block device runs them half a million times a second.
 */
import type { Region } from '../memory/region.ts';
import type { Chain } from '../ring/chain.ts';

/** §5.2.6: what a request asks for. */
export const BLK_IN = 0;
export const BLK_OUT = 1;
export const BLK_FLUSH = 4;
export const BLK_GET_ID = 8;
export const BLK_GET_LIFETIME = 10;
export const BLK_DISCARD = 11;
export const BLK_WRITE_ZEROES = 13;
export const BLK_SECURE_ERASE = 14;

/** §5.2.6: the last byte of a reply. */
export const BLK_OK = 0;
export const BLK_IOERR = 1;
export const BLK_UNSUPPORTED = 2;

export const BLK_SECTOR = 512;
export const BLK_HEADER_SIZE = 16;
export const BLK_ID_SIZE = 20;
export const BLK_SEGMENT_SIZE = 16;
/** Discard, write-zeroes and erase: the one flag that a segment may carry, and only for write-zeroes. */
export const BLK_UNMAP = 1;

/** No sector is higher: 2^53 bytes. */
const SECTOR_LIMIT = 2 ** 44;

/** A request's header and what its buffers are; made once and filled for one request after another. */
export class BlockRequest {
  type = 0;
  sector = 0;
  /** Bytes of data: device-readable ones after the header, or device-writable ones before the status. */
  length = 0;
  /** Where the status byte goes, counted in the device-writable bytes. */
  statusAt = 0;
  private readonly header = new Uint8Array(BLK_HEADER_SIZE);
  private readonly view = new DataView(this.header.buffer);

  /**
   * Reads the header of `chain`. BLK_OK; BLK_IOERR when header and buffers contradict each other; BLK_UNSUPPORTED for a
   * type that the standard does not know. -1 when there is not even room for a status: give the chain back with 0.
   */
  parse(chain: Chain): number {
    if (chain.writableBytes < 1) return -1;
    this.statusAt = chain.writableBytes - 1;
    this.type = 0;
    this.sector = 0;
    this.length = 0;
    let view: DataView = this.view;
    let at = 0;
    if (chain.readablePieces > 0 && (chain.lengths[0] as number) >= BLK_HEADER_SIZE) {
      // In one piece, as nearly always: each field is read once, there where it is.
      view = (chain.regions[0] as Region).view;
      at = chain.offsets[0] as number;
    } else if (chain.read(0, this.header) < BLK_HEADER_SIZE) return BLK_IOERR;
    const type = view.getUint32(at, true);
    const low = view.getUint32(at + 8, true);
    const high = view.getUint32(at + 12, true);
    this.type = type;
    this.sector = high * 4294967296 + low;
    const outgoing = chain.readableBytes - BLK_HEADER_SIZE;
    const incoming = this.statusAt;
    switch (type) {
      case BLK_IN:
        this.length = incoming;
        return outgoing === 0 && incoming > 0 && this.aligned() ? BLK_OK : BLK_IOERR;
      case BLK_OUT:
        this.length = outgoing;
        return incoming === 0 && outgoing > 0 && this.aligned() ? BLK_OK : BLK_IOERR;
      case BLK_FLUSH:
        // §5.2.6.1: the driver sets the sector to 0; older drivers do not, and it means nothing.
        return outgoing === 0 && incoming === 0 ? BLK_OK : BLK_IOERR;
      case BLK_GET_ID:
        this.length = Math.min(incoming, BLK_ID_SIZE);
        return outgoing === 0 && incoming > 0 ? BLK_OK : BLK_IOERR;
      case BLK_GET_LIFETIME:
        this.length = incoming;
        return outgoing === 0 && incoming > 0 ? BLK_OK : BLK_IOERR;
      case BLK_DISCARD:
      case BLK_WRITE_ZEROES:
      case BLK_SECURE_ERASE:
        this.length = outgoing;
        return incoming === 0 && outgoing > 0 && outgoing % BLK_SEGMENT_SIZE === 0 ? BLK_OK : BLK_IOERR;
      default:
        return BLK_UNSUPPORTED;
    }
  }

  private aligned(): boolean {
    return this.length % BLK_SECTOR === 0 && this.sector <= SECTOR_LIMIT;
  }

  /** Does a read or write lie within a disk of `capacity` sectors? */
  within(capacity: number): boolean {
    return this.sector <= capacity && this.length / BLK_SECTOR <= capacity - this.sector;
  }
}

/** One segment of a discard, write-zeroes or secure-erase request. §5.2.6. */
export interface BlockSegment {
  readonly sector: number;
  readonly sectors: number;
  readonly unmap: boolean;
}

/**
 * The segments of a request whose data was copied to `data`, or a status: BLK_IOERR for one beyond `capacity`,
 * BLK_UNSUPPORTED for a flag that its type does not have (§5.2.6.2).
 */
export function parseSegments(
  type: number,
  data: Uint8Array,
  capacity: number,
  limit: number,
): BlockSegment[] | number {
  const count = data.length / BLK_SEGMENT_SIZE;
  if (!Number.isInteger(count) || count < 1 || count > limit) return BLK_IOERR;
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const segments: BlockSegment[] = [];
  for (let at = 0; at < data.length; at += BLK_SEGMENT_SIZE) {
    const sector = view.getUint32(at + 4, true) * 4294967296 + view.getUint32(at, true);
    const sectors = view.getUint32(at + 8, true);
    const flags = view.getUint32(at + 12, true);
    if ((flags & ~BLK_UNMAP) !== 0 || (flags !== 0 && type !== BLK_WRITE_ZEROES)) return BLK_UNSUPPORTED;
    if (sector > capacity || sectors > capacity - sector) return BLK_IOERR;
    segments.push({ sector, sectors, unmap: flags === BLK_UNMAP });
  }
  return segments;
}

/** Driver side: the 16 bytes of a header. */
export function writeBlockHeader(view: DataView, at: number, type: number, sector: number): void {
  view.setUint32(at, type, true);
  view.setUint32(at + 4, 0, true);
  view.setUint32(at + 8, sector >>> 0, true);
  view.setUint32(at + 12, Math.floor(sector / 4294967296), true);
}
