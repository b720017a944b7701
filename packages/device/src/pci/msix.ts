/**
 * MSI-X: the capability's control word, the table and the pending bits (PCIe 6.0 §7.7.2). A vector that is masked is
 * remembered and sent when it is unmasked, once.
 */
import { CAP_MSIX, type Capability } from './capability.ts';
import { type Bank, constant, type Stored, stored } from './register.ts';

/** Where a message goes: a write of four bytes. */
export type SendMessage = (address: number, data: number) => void;

const ENABLE = 0x8000;
const MASK_ALL = 0x4000;
const ENTRY = 16;
/** §7.7.2.2: the table size is encoded in eleven bits. */
export const MSIX_VECTORS_LIMIT = 2048;

export class Msix {
  readonly vectors: number;
  readonly table: Bank;
  readonly pending: Bank;
  readonly capability: Capability;
  /** Sends what was interrupted with and is not masked. */
  send: SendMessage = () => {};
  private readonly control: Stored;
  private readonly entries: DataView;
  private readonly waiting: Uint8Array;

  /** The table stands at `tableAt` of BAR `bar`, the pending bits at `pendingAt`. At most MSIX_VECTORS_LIMIT vectors. */
  constructor(vectors: number, bar: number, tableAt: number, pendingAt: number) {
    this.vectors = vectors;
    this.waiting = new Uint8Array(vectors);
    this.entries = new DataView(new ArrayBuffer(vectors * ENTRY));
    this.control = stored('message_control', 2, {
      initial: vectors - 1,
      writable: ENABLE | MASK_ALL,
      changed: () => this.flush(),
    });
    this.capability = {
      space: 'standard',
      id: CAP_MSIX,
      registers: [this.control, constant('table', 4, tableAt | bar), constant('pending_bits', 4, pendingAt | bar)],
    };
    this.table = {
      size: vectors * ENTRY,
      read: (offset, into) => {
        for (let i = 0; i < into.length; i++) into[i] = this.entries.getUint8(offset + i);
      },
      write: (offset, bytes) => this.writeTable(offset, bytes),
    };
    this.pending = {
      size: Math.ceil(vectors / 64) * 8,
      read: (offset, into) => {
        for (let i = 0; i < into.length; i++) into[i] = this.pendingByte(offset + i);
      },
      write() {},
    };
    this.reset();
  }

  get enabled(): boolean {
    return (this.control.value & ENABLE) !== 0;
  }

  /** Interrupts with a vector; one that does not exist interrupts nobody. */
  raise(vector: number): void {
    if (!this.enabled || vector >= this.vectors) return;
    if (this.masked(vector)) {
      this.waiting[vector] = 1;
      return;
    }
    this.deliver(vector);
  }

  reset(): void {
    this.control.reset?.();
    this.waiting.fill(0);
    for (let at = 0; at < this.entries.byteLength; at++) this.entries.setUint8(at, 0);
    // After a reset every vector is masked (§7.7.2.8).
    for (let vector = 0; vector < this.vectors; vector++) this.entries.setUint32(vector * ENTRY + 12, 1, true);
  }

  private writeTable(offset: number, bytes: Uint8Array): void {
    for (let i = 0; i < bytes.length; i++) {
      const at = offset + i;
      const byte = bytes[i] ?? 0;
      // Vector control has one bit; the low two bits of an address are zero.
      const kept = at % ENTRY === 12 ? byte & 1 : at % ENTRY > 12 ? 0 : at % ENTRY === 0 ? byte & 0xfc : byte;
      this.entries.setUint8(at, kept);
    }
    this.flush();
  }

  private masked(vector: number): boolean {
    return (this.control.value & MASK_ALL) !== 0 || (this.entries.getUint32(vector * ENTRY + 12, true) & 1) !== 0;
  }

  /** Sends what waited and is not masked any more. */
  private flush(): void {
    if (!this.enabled || (this.control.value & MASK_ALL) !== 0) return;
    for (let vector = 0; vector < this.vectors; vector++) {
      if (this.waiting[vector] === 1 && !this.masked(vector)) this.deliver(vector);
    }
  }

  private deliver(vector: number): void {
    this.waiting[vector] = 0;
    const at = vector * ENTRY;
    const address = this.entries.getUint32(at + 4, true) * 2 ** 32 + this.entries.getUint32(at, true);
    this.send(address, this.entries.getUint32(at + 8, true));
  }

  private pendingByte(offset: number): number {
    let byte = 0;
    for (let bit = 0; bit < 8; bit++) if (this.waiting[offset * 8 + bit] === 1) byte |= 1 << bit;
    return byte;
  }
}
