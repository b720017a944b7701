/** vhost-user does not say what a device is; what it offers leaves some types and rules out others. */
import { DEVICE_FEATURES, VIRTIO_TYPES, type VirtioTypeName } from '@airlock/core/virtio.ts';
import { configSize, decodeConfig, queueNames } from '@airlock/virtio/config/space.ts';
import { DEVICE_TYPES } from '@airlock/virtio/device-types.ts';
import { type Features, featureBits, unmetRequirement } from '@airlock/virtio/features.ts';

/** Bits that belong to no device type. */
const SHARED_FIRST = 24;
const SHARED_LAST = 49;

/**
 * The types that fit: every offered bit is one of theirs, what they require is there, their configuration decodes from
 * `config` (null where it cannot be read), and there are as many queues. `config` is as long as the back-end gives.
 */
export function fittingTypes(features: Features, config: Uint8Array | null, queues: number | null): VirtioTypeName[] {
  const bits = featureBits(features).filter((bit) => bit < SHARED_FIRST || bit > SHARED_LAST);
  return (Object.keys(VIRTIO_TYPES) as VirtioTypeName[]).filter((name) => {
    const known = DEVICE_FEATURES[name] ?? {};
    if (bits.some((bit) => known[bit] === undefined) || unmetRequirement(name, features) !== null) return false;
    const type = DEVICE_TYPES[name];
    if (config === null) return true;
    // An entropy device has no configuration; whoever gives bytes that are not zero is none.
    if (configSize(type) === 0) return config.every((byte) => byte === 0);
    const values = decodeConfig(type, features, config);
    if (!values.ok) return false;
    const names = queueNames(type, features, values.value);
    return names.ok && (queues === null || names.value.length <= queues);
  });
}

/** The one that fits; null where several do, or none. */
export function guessType(features: Features, config: Uint8Array | null, queues: number | null): VirtioTypeName | null {
  const fitting = fittingTypes(features, config, queues);
  const bits = featureBits(features).filter((bit) => bit < SHARED_FIRST || bit > SHARED_LAST);
  // Nothing that is a device's own was seen: every type would fit as well.
  if (bits.length === 0 && (config === null || config.every((byte) => byte === 0))) return null;
  return fitting.length === 1 ? (fitting[0] ?? null) : null;
}
