/**
 * What stands between a PCI function and whatever shows it to a guest. As with served devices, everything is synchronous
 * and on one thread.
 */
import type { Result } from '@airlock/core/result.ts';
import type { AddressSpace } from '@airlock/virtio/memory/space.ts';

/** The VMM, as a function sees it. Valid from `attach` until `detach`. */
export interface FunctionLink {
  /** The guest's memory as the VMM mapped it for this function, by I/O address. */
  readonly memory: AddressSpace;
  /** The VMM emulates MSI-X and takes triggers; otherwise the function sends its messages itself. */
  readonly ownsInterrupts: boolean;
  /** Signals the eventfd of an interrupt, if the VMM gave one. */
  trigger(kind: 'intx' | 'msi' | 'msix', vector: number): void;
  /** A message-signalled interrupt: a write of four bytes that goes the way of all DMA. */
  sendMessage(address: number, data: number): void;
  /** DMA by message, for what is not mapped. Codes: `vfio-user-dma-refused`, `vfio-user-gone`. */
  readDma(address: number, length: number, done: (bytes: Result<Uint8Array>) => void): void;
  writeDma(address: number, bytes: Uint8Array, done: (result: Result<void>) => void): void;
}

export interface ServedFunction {
  /** Bytes of VFIO's regions: BAR 0 to 5, expansion ROM, configuration space, VGA. 0 for one that is not there. */
  readonly regionSizes: readonly number[];
  readonly interrupts: { readonly intx: number; readonly msi: number; readonly msix: number };
  /** INTA# is asserted now: unmasking it interrupts again. */
  readonly lineAsserted: boolean;
  attach(link: FunctionLink): void;
  /** The VMM is gone. On return nothing of the function touches its memory any more. */
  detach(): void;
  /**
   * A stretch of memory is about to go. On return nothing of the function is in the middle of a transfer, and it begins
   * none before `memoryChanged`, which follows in any case.
   */
  quiesce(): void;
  /** Memory came or went. The function goes on with what there is now, and remembers nothing that is mapped no more. */
  memoryChanged(): void;
  /** Fills all of `into`; it lies within the region. */
  readRegion(index: number, offset: number, into: Uint8Array): void;
  writeRegion(index: number, offset: number, bytes: Uint8Array): void;
  reset(): void;
}
