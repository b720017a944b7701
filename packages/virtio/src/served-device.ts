/**
 * What stands between a device and whatever serves it to a driver (vhost-user, vfio-user, VDUSE, a test): the device
 * knows queues and its configuration space, the transport knows sockets, memory and interrupts, and neither knows the
 * other. Everything is synchronous and happens on one thread: no call of one side is entered while another is open.
 */
import type { Problem } from '@airlock/core/result.ts';
import type { DeviceType } from './config/field.ts';
import type { Features } from './features.ts';
import type { AddressSpace } from './memory/space.ts';
import type { DeviceQueue } from './ring/queue.ts';

/** The transport, as its device sees it. Valid from `start` until `stop`. */
export interface DeviceLink {
  /** What was negotiated. */
  readonly features: Features;
  /**
   * Where the driver's addresses lead, for devices whose requests name memory themselves (a GPU's backing); absent or null
   * where the transport does not say.
   */
  readonly memory?: AddressSpace | null;
  /** Sends a used buffer notification if the driver wants one; call it after `DeviceQueue.publish`. */
  notify(index: number): void;
  /** The configuration space changed: raises the generation and sends a configuration change notification (§2.5.1). */
  configChanged(): void;
  /** Sets DEVICE_NEEDS_RESET (§2.1.2). The device does nothing more until it is stopped. */
  needsReset(why: Problem): void;
}

export interface ServedDevice {
  readonly type: DeviceType;
  /** Offered device-specific features, and those ring features that it can work with (the transport adds its own). */
  readonly features: Features;
  /** One entry for each queue: the most elements it may have. */
  readonly queueSizes: readonly number[];
  /** The most descriptors of a chain, indirect ones counted. */
  readonly chainLimit: number;
  /** The configuration space as it is now; the same length always. The caller does not keep or change it. */
  readConfig(): Uint8Array;
  /**
   * The driver writes configuration bytes (§2.5.2). False where one of them is not the driver's to write; nothing of the
   * write is taken then.
   */
  writeConfig(offset: number, bytes: Uint8Array): boolean;

  /** Features are agreed on. Queues follow, one by one, in any order. */
  start(link: DeviceLink): void;
  /** Queue `index` is to be worked on from now on. It may have chains in it already: `serve` follows. */
  startQueue(index: number, queue: DeviceQueue): void;
  /**
   * There may be something to do in queue `index`: the driver's notification came, or the transport polls. Takes chains
   * until there are none or a limit of the device's own is reached, and returns how many it took (0: idle). It never
   * waits. A queue that is UNTRANSLATED is left as it is; the transport asks and calls again.
   */
  serve(index: number): number;
  /**
   * Queue `index` ends. On return every chain that was taken has been given back and published, or will never be
   * written to: nothing of this device touches guest memory for this queue any more. May wait for a disk, with a limit.
   */
  stopQueue(index: number): void;
  /** After all queues ended: forgets what was negotiated. `start` may follow. */
  stop(): void;
  /** For good: closes what the device opened. */
  close(): void;
}
