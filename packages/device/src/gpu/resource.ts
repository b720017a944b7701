/** Pictures that the driver made (§5.7.6.8): pixels of ours, and where in the driver's memory theirs are. */
import { type AddressSpace, DENIED, MISSING } from '@airlock/virtio/memory/space.ts';

/** All formats of 2D (§5.7.6.8) have four bytes a pixel; where red, green and blue are in them. */
export const FORMATS: Readonly<Record<number, readonly [number, number, number]>> = {
  1: [2, 1, 0], // B8G8R8A8
  2: [2, 1, 0], // B8G8R8X8
  3: [1, 2, 3], // A8R8G8B8
  4: [1, 2, 3], // X8R8G8B8
  67: [0, 1, 2], // R8G8B8A8
  68: [3, 2, 1], // X8B8G8R8
  121: [3, 2, 1], // A8B8G8R8
  134: [0, 1, 2], // R8G8B8X8
};
export const PIXEL = 4;
const READ = 1;

/** One run of the driver's memory behind a resource. */
export interface Backing {
  readonly address: number;
  readonly length: number;
}

export interface Rectangle {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

export class Resource {
  readonly format: number;
  readonly width: number;
  readonly height: number;
  readonly pixels: Uint8Array;
  /** Empty until something is attached. */
  backing: readonly Backing[] = [];

  constructor(format: number, width: number, height: number) {
    this.format = format;
    this.width = width;
    this.height = height;
    this.pixels = new Uint8Array(width * height * PIXEL);
  }

  holds({ x, y, width, height }: Rectangle): boolean {
    return width > 0 && height > 0 && x + width <= this.width && y + height <= this.height;
  }

  /**
   * Copies a rectangle out of the driver's memory, whose first byte stands `offset` bytes into the backing. False when the
   * backing ends before, or is not the driver's to give. What was copied until then stays.
   */
  transfer(space: AddressSpace, { x, y, width, height }: Rectangle, offset: number): boolean {
    const stride = this.width * PIXEL;
    for (let row = 0; row < height; row++) {
      const into = ((y + row) * this.width + x) * PIXEL;
      const from = offset + row * stride;
      if (!this.copy(space, from, this.pixels.subarray(into, into + width * PIXEL))) return false;
    }
    return true;
  }

  private copy(space: AddressSpace, from: number, into: Uint8Array): boolean {
    let skip = from;
    let done = 0;
    for (const { address, length } of this.backing) {
      if (skip >= length) {
        skip -= length;
        continue;
      }
      const end = Math.min(length - skip, into.length - done);
      if (!readMemory(space, address + skip, into.subarray(done, done + end))) return false;
      done += end;
      skip = 0;
      if (done === into.length) return true;
    }
    return done === into.length;
  }
}

/** Copies from wherever an address leads. */
function readMemory(space: AddressSpace, address: number, into: Uint8Array): boolean {
  for (let done = 0; done < into.length; ) {
    const run = space.translate(address + done, READ);
    if (run <= 0 || run === DENIED || run === MISSING) return false;
    const piece = Math.min(run, into.length - done);
    into.set(space.region.bytes.subarray(space.offset, space.offset + piece), done);
    done += piece;
  }
  return true;
}
