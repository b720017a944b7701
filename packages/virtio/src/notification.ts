/** NOTIFICATION_DATA: what a driver's notification says besides which queue it is for. VIRTIO 1.3 §2.9, §4.1.5.2. */

/** The 32 bits that a driver writes: queue index (or config data) low, `DriverQueue.notificationOffset` high. */
export function encodeNotification(queue: number, offset: number): number {
  return (((offset & 0xffff) << 16) | (queue & 0xffff)) >>> 0;
}

export interface Notification {
  readonly queue: number;
  /** Place (packed) or 15 bits of index (split) at which the next buffer will be made available. */
  readonly nextOffset: number;
  /** Wrap counter (packed) or top bit of the index (split). */
  readonly nextWrap: boolean;
}

/** The other way. It comes from the driver: a hint where to look, never a reason to skip a check. */
export function decodeNotification(data: number): Notification {
  return { queue: data & 0xffff, nextOffset: (data >>> 16) & 0x7fff, nextWrap: data >>> 31 === 1 };
}
