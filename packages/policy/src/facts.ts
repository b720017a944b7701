/**
 * What is known of one device, with three values (docs/policy.md, "Unknown is not absent"). A fact that is not known is
 * either shown by binding a driver, or by nothing that Airlock can do.
 */
import type { Claim } from '@airlock/core/claim.ts';
import type { Device } from '@airlock/core/device.ts';
import { IDENTITY_TIERS, type IdentityTier } from '@airlock/core/level.ts';

/** The answer of a condition. Numbers, because a decision asks dozens of them in a microsecond. */
export const NO = 0;
export const YES = 1;
/** Not known yet; binding a driver shows it. A bit: a whole match may have both kinds of unknown. */
export const AFTER_BIND = 2;
/** Not known, and nothing will show it: counts against the device. */
export const NEVER_KNOWN = 4;
export type Truth = typeof NO | typeof YES | typeof AFTER_BIND | typeof NEVER_KNOWN;

export function truth(holds: boolean): Truth {
  return holds ? YES : NO;
}

const VIRTIO_VENDOR = 0x1af4;

export function isVirtio(device: Device): boolean {
  return device.bus === 'virtio' || device.bus === 'vdpa' || device.transport !== null || device.virtioId !== undefined;
}

/**
 * A PCI function whose ids are not all readable: it may be a virtio device, with any type and any features. Only a
 * device on the virtio bus below it would show that, and whoever denies virtio devices cannot wait for it.
 */
export function mayBeVirtio(device: Device): boolean {
  return (
    device.bus === 'pci' &&
    (device.vendor === undefined || (device.vendor === VIRTIO_VENDOR && device.device === undefined)) &&
    !isVirtio(device)
  );
}

function isPci(device: Device): boolean {
  return device.bus === 'pci' || device.transport === 'pci';
}

/** The answer of a condition that only virtio devices can meet, for what is not known to be one. */
export function unknownVirtio(device: Device): Truth {
  return mayBeVirtio(device) ? NEVER_KNOWN : NO;
}

/** `undefined` of a fact that only PCI functions have. */
export function unknownOfPci(device: Device): Truth {
  return isPci(device) ? NEVER_KNOWN : NO;
}

/** `undefined` of vendor, device and revision: platform devices have none. */
export function unknownId(device: Device): Truth {
  return device.bus === 'platform' && device.transport === null ? NO : NEVER_KNOWN;
}

/**
 * `undefined` of a serial number: virtio block devices and NVMe drives show theirs once bound; USB devices show it in
 * their descriptor, other kinds have none that Linux shows.
 */
export function unknownSerial(device: Device): Truth {
  if (isVirtio(device)) {
    if (device.virtioId === undefined && device.type === null) return NEVER_KNOWN;
    return device.virtioId === 2 || device.type === 'block' ? AFTER_BIND : NO;
  }
  if (device.bus === 'pci') {
    if (device.class === undefined && device.type === null) return NEVER_KNOWN;
    const nvme = typeof device.class === 'number' && device.class >>> 8 === 0x0108;
    return nvme || device.type === 'nvme' ? AFTER_BIND : unknownVirtio(device);
  }
  return device.bus === 'usb' ? NEVER_KNOWN : NO;
}

/** A device without a claim of its own has what its ids give it; a claim of a tier that does not exist has none. */
export function tierOf(device: Device, claim: Claim | undefined): IdentityTier {
  if (claim !== undefined && claim.device === device.id) {
    return IDENTITY_TIERS.includes(claim.tier) ? claim.tier : 'location';
  }
  return device.vendor !== undefined && device.device !== undefined ? 'claimed' : 'location';
}

/** Devices whose ids are those of the legacy interface or of both: VIRTIO 1.4 §4.1.2.1. One that hides its id is one. */
export function isLegacyVirtio(device: Device): boolean {
  if (device.transport !== 'pci' && !mayBeVirtio(device)) return false;
  return device.device === undefined || (device.device >= 0x1000 && device.device < 0x1040);
}
