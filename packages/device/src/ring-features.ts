/**
 * Ring features that a device of ours works with, all that virtio’s queues can do: INDIRECT_DESC, EVENT_IDX,
 * RING_PACKED, IN_ORDER.
 */
export const OFFERED_RING_FEATURES: readonly number[] = [28, 29, 34, 35];
