/**
 * A type of device as a declaration: its queues, what each answers, its configuration space. What all devices have in
 * common (taking chains, bounding them, copying them once, giving them back) is `ModelDevice`'s.
 */
import type { Result } from '@airlock/core/result.ts';
import type { DeviceType } from '@airlock/virtio/config/field.ts';
import type { Features } from '@airlock/virtio/features.ts';
import type { AddressSpace } from '@airlock/virtio/memory/space.ts';
import type { SharedWindow } from '../register/virtio-pci.ts';

/** What `answer` returns for a request that is answered later, with `ModelLink.finish`. */
export const LATER = -1;

/** What stands beside a request. One object, used for every request of a queue. */
export interface RequestFacts {
  /** What `ModelLink.finish` takes. */
  token: number;
  /** Device-readable bytes of the chain: more than the request has when that was cut at the queue's limit. */
  size: number;
  /** Device-writable bytes of the chain: more than the reply may have when they are above the queue's limit. */
  room: number;
  /** To be set by `answer`: bytes for the very end of the device-writable part, where some types have their status. */
  tail: Uint8Array | null;
}

/** A queue of which each chain is a request. */
export interface RequestQueue {
  readonly kind: 'requests';
  /** Elements; 64 when absent. */
  readonly size?: number;
  /** The queue is there, and takes a number, only when this bit was negotiated. */
  readonly feature?: number;
  /** The most bytes that are copied of a request. */
  readonly requestLimit: number;
  /** The most bytes of a reply. */
  readonly replyLimit: number;
  /** Requests that may wait for `finish` at a time; none when absent. One above that is given back empty. */
  readonly laterLimit?: number;
  /**
   * Answers `request`, a private copy: fills `reply`, which is zeros and as long as the driver left room for, and returns
   * how many bytes of it are to be written, or LATER. Both are valid only until it returns.
   */
  answer(request: Uint8Array, reply: Uint8Array, facts: RequestFacts): number;
}

/** A queue of empty buffers, into which the device puts what happens. */
export interface EventQueue {
  readonly kind: 'events';
  /** Elements; 64 when absent. */
  readonly size?: number;
  readonly feature?: number;
  /** The most events that wait for a buffer; what comes then is dropped. 256 when absent. */
  readonly waiting?: number;
}

export type ModelQueue = RequestQueue | EventQueue;

/** The driver, as a model sees it, from `begin` until `end`. Queues go by their place in the model's list. */
export interface ModelLink {
  readonly features: Features;
  /** Memory of the driver that requests name by address, where the transport reaches it. */
  readonly memory: AddressSpace | null;
  /** Puts an event into the next buffer; false when it was dropped. */
  send(queue: number, event: Uint8Array): boolean;
  /** Answers a request that was put off; false when it is not there any more. */
  finish(queue: number, token: number, reply: Uint8Array): boolean;
  configChanged(): void;
}

/** A word to the device from its own side; gives what is shown for it. Code: `device-control-invalid`. */
export type ModelCommand = (argument: string) => Result<unknown>;

export interface DeviceModel {
  readonly type: DeviceType;
  /** Bits of the type itself that are offered. */
  readonly bits?: readonly number[];
  readonly queues: readonly ModelQueue[];
  /** The most descriptors of a chain; 256 when absent. */
  readonly chainLimit?: number;
  /** The configuration space as it is now; the same length always. */
  config(): Uint8Array;
  /** The driver writes configuration bytes; absent: none of them is the driver's. */
  writeConfig?(offset: number, bytes: Uint8Array): boolean;
  /** Features are agreed on. */
  begin?(link: ModelLink): void;
  /** The device was reset: nothing of the driver's is left. */
  end?(): void;
  /** For good. */
  close?(): void;
  /** What can be asked of the device from its own side, by word. */
  readonly commands?: Readonly<Record<string, ModelCommand>>;
  /** What the device has seen, for people and tests: the control socket's `facts`. */
  facts?(): Readonly<Record<string, unknown>>;
  /** Stretches of memory that the driver maps (§2.10). */
  readonly sharedMemory?: readonly SharedWindow[];
}
