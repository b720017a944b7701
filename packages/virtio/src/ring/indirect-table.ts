/** Indirect descriptor tables that do not lie in one piece of memory. */
import { READ } from '../memory/region.ts';
import { type AddressSpace, DENIED, MISSING } from '../memory/space.ts';
import { APPENDED } from './chain.ts';

/** Gathers an indirect table of several pieces; each byte is read once. Returns as `Chain.append`. */
export function copyTable(space: AddressSpace, address: number, length: number, into: DataView): number {
  const target = new Uint8Array(into.buffer, into.byteOffset, length);
  for (let done = 0; done < length; ) {
    const run = space.translate(address + done, READ);
    if (run <= 0) return run === MISSING ? 5 : run === DENIED ? 6 : 4;
    const piece = Math.min(run, length - done);
    target.set(space.region.bytes.subarray(space.offset, space.offset + piece), done);
    done += piece;
  }
  return APPENDED;
}
