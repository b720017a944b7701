/**
 * vhost-user's memory table: each entry is a stretch of the front-end's memory, with two addresses. Descriptors hold
 * guest addresses; ring addresses (SET_VRING_ADDR) and IOTLB updates hold addresses of the front-end's own process.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { READ_WRITE, type Region } from './region.ts';
import { AddressSpace } from './space.ts';

/** As SET_MEM_TABLE and ADD_MEM_REG carry it, with the bytes that its file descriptor was mapped to. */
export interface MemoryTableEntry {
  readonly guestAddress: number;
  readonly userAddress: number;
  readonly size: number;
  /** Where in the region the entry begins: the message's mmap_offset, when the region maps the file from 0. */
  readonly offset: number;
  readonly region: Region;
}

/** The most entries: what QEMU offers through CONFIGURE_MEM_SLOTS is 509; the plain table holds 8. */
export const MEMORY_SLOTS_LIMIT = 509;

export interface GuestMemory {
  /** For descriptors, where no IOTLB is in use. */
  readonly guest: AddressSpace;
  /** For ring addresses and the IOTLB. */
  readonly user: AddressSpace;
}

/** Empty guest memory, to add entries to one by one. */
export function emptyGuestMemory(): GuestMemory {
  return { guest: new AddressSpace(), user: new AddressSpace() };
}

/** Guest memory of a whole table. Codes: `memory-table-invalid`. Nothing is kept of a table with one wrong entry. */
export function guestMemory(table: readonly MemoryTableEntry[]): Result<GuestMemory> {
  if (table.length === 0 || table.length > MEMORY_SLOTS_LIMIT) {
    return fail('memory-table-invalid', `${table.length} regions; 1 to ${MEMORY_SLOTS_LIMIT} are possible`);
  }
  const memory = emptyGuestMemory();
  for (const entry of table) {
    const added = addMemory(memory, entry);
    if (!added.ok) return added;
  }
  return ok(memory);
}

/** Adds one entry (ADD_MEM_REG); changes nothing when it fails. Code: `memory-table-invalid`. */
export function addMemory(memory: GuestMemory, entry: MemoryTableEntry): Result<void> {
  const { size, region, offset } = entry;
  const guest = memory.guest.map({ start: entry.guestAddress, size, region, offset, access: READ_WRITE });
  if (!guest.ok) return fail('memory-table-invalid', `guest address: ${guest.error.message}`);
  const user = memory.user.map({ start: entry.userAddress, size, region, offset, access: READ_WRITE });
  if (user.ok) return user;
  memory.guest.unmap(entry.guestAddress, size);
  return fail('memory-table-invalid', `user address: ${user.error.message}`);
}

/** Takes one entry out (REM_MEM_REG). Its region must stay mapped while a chain that was taken before is unfinished. */
export function removeMemory(memory: GuestMemory, entry: MemoryTableEntry): Result<void> {
  const guest = memory.guest.unmap(entry.guestAddress, entry.size);
  return guest.ok ? memory.user.unmap(entry.userAddress, entry.size) : guest;
}
