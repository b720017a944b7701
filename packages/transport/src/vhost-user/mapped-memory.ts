/** The memory that a front-end shares: what SET_MEM_TABLE, ADD_MEM_REG and REM_MEM_REG leave mapped. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import {
  addMemory,
  emptyGuestMemory,
  type GuestMemory,
  MEMORY_SLOTS_LIMIT,
  type MemoryTableEntry,
  removeMemory,
} from '@airlock/virtio/memory/vhost-user-table.ts';
import { type Mapping, mapSharedMemory } from '../shared-memory.ts';
import type { SystemCalls } from '../system-calls.ts';
import type { RegionEntry } from './payload.ts';

interface Slot {
  readonly entry: MemoryTableEntry;
  readonly mapping: Mapping;
}

export class MappedMemory {
  readonly memory: GuestMemory = emptyGuestMemory();
  private readonly calls: SystemCalls;
  private readonly slots: Slot[] = [];
  private readonly unsealed: boolean;
  private named = 0;

  /** `unsealed`: takes memory that the front-end can shrink, see `mapSharedMemory`. */
  constructor(calls: SystemCalls, unsealed = false) {
    this.calls = calls;
    this.unsealed = unsealed;
  }

  get size(): number {
    return this.slots.length;
  }

  /**
   * Maps `fd` (which stays the caller's) at the addresses of `entry`. Codes: `memory-table-invalid`, those of
   * `mapSharedMemory`.
   */
  add(entry: RegionEntry, fd: number): Result<void> {
    if (this.slots.length >= MEMORY_SLOTS_LIMIT) {
      return fail('memory-table-invalid', `more than ${MEMORY_SLOTS_LIMIT} regions`);
    }
    const mapping = mapSharedMemory(this.calls, fd, {
      name: `guest-memory-${this.named++}`,
      offset: entry.offset,
      length: entry.size,
      writable: true,
      unsealed: this.unsealed,
    });
    if (!mapping.ok) return mapping;
    const { guestAddress, userAddress, size } = entry;
    const placed: MemoryTableEntry = { guestAddress, userAddress, size, offset: 0, region: mapping.value.region };
    const added = addMemory(this.memory, placed);
    if (!added.ok) {
      mapping.value.release();
      return added;
    }
    this.slots.push({ entry: placed, mapping: mapping.value });
    return ok(undefined);
  }

  /** Is there a region with these addresses and this size? */
  has(entry: RegionEntry): boolean {
    return this.find(entry) >= 0;
  }

  /** Unmaps a region; nothing may use it any more. Code: `memory-table-invalid`. */
  remove(entry: RegionEntry): Result<void> {
    const at = this.find(entry);
    const slot = this.slots[at];
    if (slot === undefined) {
      return fail('memory-table-invalid', `no region of ${entry.size} bytes at guest address ${entry.guestAddress}`);
    }
    const removed = removeMemory(this.memory, slot.entry);
    if (!removed.ok) return removed;
    this.slots.splice(at, 1);
    slot.mapping.release();
    return ok(undefined);
  }

  private find({ guestAddress, userAddress, size }: RegionEntry): number {
    return this.slots.findIndex(
      ({ entry }) => entry.guestAddress === guestAddress && entry.userAddress === userAddress && entry.size === size,
    );
  }

  /** Unmaps everything; nothing may use it any more. */
  close(): void {
    this.memory.guest.clear();
    this.memory.user.clear();
    for (const { mapping } of this.slots.splice(0)) mapping.release();
  }
}
