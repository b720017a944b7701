import type { ErrorCatalogue } from '@airlock/core/result.ts';

/** Rules of memory: where an address may lead. */
export const MEMORY_ERRORS = {
  'region-invalid': 'A region does not lie within the buffer that it names, or is empty.',
  'mapping-invalid':
    'A mapping is empty, not whole numbers, wraps around the address space, ends above 2^53, or leaves its region.',
  'mapping-overlaps': 'A mapping overlaps another one of the same address space.',
  'mapping-limit': 'The address space has as many mappings as it may hold.',
  'memory-table-invalid':
    'A vhost-user memory table has no region, too many regions, or an entry that cannot be mapped.',
  'iotlb-update-invalid':
    'An IOTLB update has a permission that is none, or points outside the front-end’s memory table.',
  'address-outside-memory': 'A descriptor points at memory that the device was not given (VIRTIO 1.3 §2.7.5).',
  'access-denied': 'A descriptor asks for an access that its mapping does not permit (VIRTIO 1.3 §6, ACCESS_PLATFORM).',
  'translation-missing': 'The IOTLB has no entry for the address yet; the transport is to ask the front-end.',
  'bounce-pool-invalid': 'A bounce pool’s slices do not fit its region, or a size class is empty.',
  'bounce-slice-invalid': 'A slice was given back that is not taken.',
} as const satisfies ErrorCatalogue;

/** Rules of virtqueues, with the clause of VIRTIO 1.3 that each comes from. 1.4 keeps the numbers. */
export const RING_ERRORS = {
  'big-endian-host': 'Rings are little-endian memory that is read in place; this machine is big-endian.',
  'queue-size-invalid':
    'A queue size is not between 1 and 32768, or, for a split ring, not a power of two (§2.7, §2.8.10.1).',
  'queue-part-misaligned': 'A part of a virtqueue does not start at a multiple of its alignment (§2.7.1, §2.8.11).',
  'queue-part-outside-memory':
    'A part of a virtqueue does not lie whole within one region that permits its use (§2.7).',
  'queue-state-invalid': 'A saved queue position does not fit the queue.',
  'indirect-area-invalid': 'The driver’s memory for indirect tables is smaller than queue size × table length × 16.',
  'chain-limit-invalid': 'A chain limit is not between 1 and 65536.',

  // what a driver sees of a hostile device
  'used-index-jump': 'The used index moved further than there are buffers in flight (§2.7.8, §2.7.14).',
  'used-id-out-of-range': 'A used element names a descriptor or buffer id beyond the queue size (§2.7.8, §2.8.22).',
  'used-id-not-in-flight':
    'A used element names something that is not the head of a chain in flight: idle, completed before, or not yet published (§2.7.8, §2.8.22).',
  'used-out-of-order':
    'IN_ORDER was negotiated and a used element skips beyond what the device has used (§2.7.9, §2.8.8).',
  'used-length-exceeds-buffer':
    'The used length is more than the device-writable bytes of the chain (§2.7.8.2, §2.8.4).',

  // what a caller of the driver side may not do
  'request-empty': 'A request has no element (§2.7.13.1, §2.8).',
  'request-element-invalid': 'An element is empty, longer than 2^32-1 bytes, or not at a whole address below 2^53.',
  'request-order': 'A device-readable element follows a device-writable one (§2.7.4.2, §2.8.17).',
  'request-too-long':
    'A request has more elements than the queue size, or more than 2^32 bytes (§2.7.5.2, §2.7.5.3.1, §2.8.17).',

  // what a device sees of a hostile driver: the ring itself
  'avail-index-jump': 'The available index moved further than the queue has room (§2.7.6, §2.7.13).',
  'avail-head-out-of-range': 'The available ring names a descriptor beyond the queue size (§2.7.6).',
  'avail-head-in-flight': 'A head was made available again before it was used (§2.7.6).',
  'avail-overrun': 'A packed ring has more descriptors available than it has places (§2.8.17).',
  'buffer-id-out-of-range': 'A buffer id is not below the queue size (§2.8.13, §2.8.22).',
  'buffer-id-in-flight': 'A buffer id was made available again before it was used (§2.8.13).',
  'list-partly-available':
    'A later descriptor of a list does not carry the available marks of its head (§2.8.6, §2.8.17).',
  'list-longer-than-ring': 'A list of a packed ring goes on beyond the places that the driver owns (§2.8.17).',

  // and one chain of it
  'chain-loops': 'A chain has more descriptors than the queue size, so it is too long or loops (§2.7.5.2).',
  'chain-too-long':
    'A chain, its indirect table counted, has more descriptors than the device accepts (§2.7.4.1, §2.7.5.3.1).',
  'chain-too-fragmented': 'A chain’s buffers lie in more pieces of memory than the device accepts.',
  'chain-too-large': 'A chain has more than 2^32 bytes, or more than the device accepts (§2.7.5.2).',
  'next-out-of-range': 'A descriptor’s next leads out of its table (§2.7.5).',
  'readable-after-writable': 'A device-readable descriptor follows a device-writable one (§2.7.4.2, §2.8.17).',
  'indirect-not-negotiated':
    'A descriptor is indirect although INDIRECT_DESC was not negotiated (§2.7.5.3.1, §2.8.19).',
  'indirect-nested': 'A descriptor within an indirect table is indirect itself (§2.7.5.3.1).',
  'indirect-with-next': 'A descriptor is indirect and has a next, or stands in a packed list (§2.7.5.3.1, §2.8.19).',
  'indirect-length-invalid': 'An indirect table’s length is zero or not a multiple of 16 (§2.7.5.3, §2.8.7).',
} as const satisfies ErrorCatalogue;

/** Rules of feature negotiation and of the device configuration space. */
export const DEVICE_ERRORS = {
  'feature-required': 'The device does not offer a feature that is required (§2.2.1).',
  'feature-downgraded': 'The device offered a feature before and does not offer it now (§2.2, §3.1.1).',
  'feature-not-offered': 'The driver accepted a feature that the device does not offer (§2.2.2).',
  'feature-dependency': 'A feature is chosen without one that it requires (§2.2.1).',
  'features-refused': 'The device did not keep FEATURES_OK (§3.1.1).',
  'device-type-unknown': 'The device type is none of those that VIRTIO 1.4 or Linux defines (§5).',
  'config-too-short': 'The configuration space ends before a field that its features promise (§2.5).',
  'config-unstable': 'The configuration generation changed at every attempt to read (§2.5.1).',
  'config-value-invalid': 'A configuration field has a value that its device type forbids (§5).',
  'config-field-unknown': 'The device type has no such configuration field.',
  'config-field-absent': 'The configuration field depends on a feature that was not negotiated (§2.5.1).',
  'config-read-only': 'The configuration field is not the driver’s to write (§5).',
  'request-truncated': 'A request or reply ends before its header does.',
  'request-malformed': 'A request’s header contradicts itself or the buffers that it comes with.',
} as const satisfies ErrorCatalogue;

export type RingErrorCode = keyof typeof RING_ERRORS | keyof typeof MEMORY_ERRORS;
export type DeviceErrorCode = keyof typeof DEVICE_ERRORS;
