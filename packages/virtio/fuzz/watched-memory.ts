/**
 * Memory that tells on whoever misuses it: every read and write through the region's view is counted and held against a
 * budget (so a walk without an end is caught, not waited for), bytes outside of the region are watched, and the other
 * side may change what was just read, as a second processor could.
 */
import type { Region } from '@airlock/virtio/memory/region.ts';

export class WatchedView extends DataView<ArrayBuffer> {
  /** Accesses since it was set; more than `budget` is an endless walk. */
  steps = 0;
  budget = Number.POSITIVE_INFINITY;
  /** Called after a read of `width` bytes at `offset`, when set. */
  afterRead: ((offset: number, width: number) => void) | null = null;

  private note(offset: number, width: number): void {
    this.steps++;
    if (this.steps > this.budget) throw new Error(`more than ${this.budget} accesses in one call`);
    if (!(offset >= 0 && offset + width <= this.byteLength)) throw new Error(`access at ${offset}, out of the region`);
  }

  override getUint16(offset: number, littleEndian?: boolean): number {
    this.note(offset, 2);
    const value = super.getUint16(offset, littleEndian);
    if (this.afterRead !== null) this.afterRead(offset, 2);
    return value;
  }

  override getUint32(offset: number, littleEndian?: boolean): number {
    this.note(offset, 4);
    const value = super.getUint32(offset, littleEndian);
    if (this.afterRead !== null) this.afterRead(offset, 4);
    return value;
  }

  override setUint16(offset: number, value: number, littleEndian?: boolean): void {
    this.note(offset, 2);
    super.setUint16(offset, value, littleEndian);
  }

  override setUint32(offset: number, value: number, littleEndian?: boolean): void {
    this.note(offset, 4);
    super.setUint32(offset, value, littleEndian);
  }
}

const GUARD = 256;
const GUARD_BYTE = 0x5a;

export interface WatchedMemory {
  readonly region: Region;
  readonly view: WatchedView;
  /** For the adversary: the same bytes, unwatched. */
  readonly raw: DataView;
  checkGuards(): void;
}

export function watchedMemory(name: string, length: number): WatchedMemory {
  const buffer = new ArrayBuffer(length + 2 * GUARD);
  const whole = new Uint8Array(buffer).fill(GUARD_BYTE);
  const bytes = new Uint8Array(buffer, GUARD, length).fill(0);
  const view = new WatchedView(buffer, GUARD, length);
  return {
    region: { name, bytes, view, host: 0 },
    view,
    raw: new DataView(buffer, GUARD, length),
    checkGuards() {
      for (let i = 0; i < GUARD; i++) {
        if (whole[i] !== GUARD_BYTE || whole[GUARD + length + i] !== GUARD_BYTE) {
          throw new Error(`${name}: a byte outside of the region was changed`);
        }
      }
    },
  };
}
