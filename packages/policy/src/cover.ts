/** Whether one match takes in every device that another takes in, and whether a match can take in any at all. */
import { IDENTITY_TIERS, tierRank } from '@airlock/core/level.ts';
import { VIRTIO_TYPES } from '@airlock/core/virtio.ts';
import { compileGlob } from './pattern.ts';
import type { ClassPattern, Match, NumberRange, Policy, TypePattern } from './policy.ts';

/** True only when it is sure: every device that `narrow` matches, `broad` matches as well. */
export function covers(broad: Match, narrow: Match): boolean {
  return (
    subset(broad.bus, narrow.bus, same) &&
    subset(broad.transport, narrow.transport, same) &&
    subset(broad.type, narrow.type, coversType) &&
    subset(broad.vendor, narrow.vendor, same) &&
    subset(broad.device, narrow.device, same) &&
    subset(broad.subsystem?.vendor, narrow.subsystem?.vendor, same) &&
    subset(broad.subsystem?.device, narrow.subsystem?.device, same) &&
    subset(broad.class, narrow.class, coversClass) &&
    subset(joined(broad.revision), narrow.revision, (a, b) => a.min <= b.min && a.max >= b.max) &&
    subset(broad.serial, narrow.serial, same) &&
    // `*` in the narrow one can only be met by a `*` in the broad one, so its own text may stand for what it matches.
    subset(broad.location, narrow.location, (a, b) => compileGlob(a)(b)) &&
    (broad.hotplugged === undefined || broad.hotplugged === narrow.hotplugged) &&
    // Only virtual functions have a physical one.
    subset(broad.function, narrow.function ?? (narrow.physicalFunction && ['virtual']), same) &&
    subset(broad.physicalFunction, narrow.physicalFunction, (a, b) => compileGlob(a)(b)) &&
    subset(broad.features?.offered, narrow.features?.offered, same) &&
    subset(broad.features?.negotiated, narrow.features?.negotiated, same) &&
    subset(tiers(broad), tiers(narrow), same)
  );
}

function subset<T>(
  broad: readonly T[] | undefined,
  narrow: readonly T[] | undefined,
  takesIn: (a: T, b: T) => boolean,
): boolean {
  if (broad === undefined) return true;
  return narrow?.every((one) => broad.some((other) => takesIn(other, one))) ?? false;
}

function same(a: unknown, b: unknown): boolean {
  return a === b;
}

function coversType(a: TypePattern, b: TypePattern): boolean {
  if (a.virtio !== undefined || b.virtio !== undefined) return a.virtio === b.virtio;
  if (a.class !== undefined && b.class !== undefined) return coversClass(a.class, b.class);
  return a.name === b.name;
}

function coversClass(a: ClassPattern, b: ClassPattern): boolean {
  return b.bits >= a.bits && b.value >>> (b.bits - a.bits) === a.value;
}

/** Ranges that touch are one: `1..3` and `4` take in `2..4`. */
function joined(ranges: readonly NumberRange[] | undefined): readonly NumberRange[] | undefined {
  if (ranges === undefined) return undefined;
  const list: { text: string; min: number; max: number }[] = [];
  for (const range of [...ranges].sort((a, b) => a.min - b.min)) {
    const last = list[list.length - 1];
    if (last !== undefined && range.min <= last.max + 1) last.max = Math.max(last.max, range.max);
    else list.push({ ...range });
  }
  return list;
}

function tiers(match: Match): readonly string[] | undefined {
  return match.identity?.flatMap((one) =>
    IDENTITY_TIERS.filter((tier) => tier === one.tier || (one.orAbove && tierRank(tier) > tierRank(one.tier))),
  );
}

const OF_PCI = [
  ['class', 'a class'],
  ['subsystem', 'a subsystem'],
  ['function', 'an SR-IOV role'],
  ['physicalFunction', 'an SR-IOV role'],
] as const;

/** Does the match take in SR-IOV virtual functions and nothing else? */
export function onlyVirtual(match: Match): boolean {
  return match.physicalFunction !== undefined || match.function?.every((one) => one === 'virtual') === true;
}

/** Why no device can ever meet this match under this policy, in words; undefined where one might. */
export function contradiction(match: Match, policy: Policy): string | undefined {
  const forbids = (name: string) => policy.platform.forbid.some((one) => one.name === name);
  const virtio = virtioOnly(match);
  if (match.hotplugged === true && forbids('hotplug')) return 'platform forbids hot-plugged devices';
  if (match.bus?.every((bus) => bus === 'usb') && forbids('usb')) return 'platform forbids USB';
  if (match.bus?.every((bus) => bus === 'vdpa') && forbids('vdpa')) return 'platform forbids vdpa';
  if (match.transport?.every((one) => one === 'mmio') && forbids('virtio-mmio')) return 'platform forbids virtio-mmio';
  if (match.transport?.every((one) => one === 'vdpa') && (forbids('vdpa') || forbids('virtio-vdpa'))) {
    return 'platform forbids virtio over vdpa';
  }
  if (onlyVirtual(match) && forbids('sriov-virtual')) return 'platform forbids SR-IOV virtual functions';
  if (match.physicalFunction !== undefined && match.function?.includes('virtual') === false) {
    return 'only virtual functions have a physical one';
  }
  if (virtio !== undefined && match.bus !== undefined && !match.bus.some((bus) => bus === 'virtio' || bus === 'vdpa')) {
    return `${virtio} is for virtio devices, which are on bus virtio whatever carries them`;
  }
  if (match.type?.every((type) => type.class !== undefined) && onlyVirtio(match)) {
    return `type ${match.type.map((type) => type.name).join(', ')} is a PCI class; for virtio devices write type: net, block, ... or class`;
  }
  const noPci = match.bus?.every((bus) => bus === 'usb' || bus === 'platform') === true;
  for (const [key, what] of OF_PCI) {
    if (match[key] !== undefined && (noPci || match.transport?.every((one) => one !== 'pci') === true)) {
      return `only PCI functions have ${what}`;
    }
  }
  if (match.bus?.every((bus) => bus === 'platform') && (match.vendor ?? match.device ?? match.revision)) {
    return 'platform devices have no ids';
  }
  const types = match.type;
  if (
    match.serial !== undefined &&
    types?.every((type) => type.virtio !== undefined && type.virtio !== VIRTIO_TYPES.block)
  ) {
    return 'of virtio devices only block shows a serial number';
  }
  if (types !== undefined && match.device !== undefined && match.transport?.every((one) => one === 'pci') !== false) {
    const modern = types.every((type) => type.virtio !== undefined)
      ? types.map((type) => 0x1040 + (type.virtio ?? 0))
      : undefined;
    const possible = match.device.some((id) => modern === undefined || modern.includes(id) || id < 0x1040);
    if (!possible) return `no ${types.map((type) => type.name).join(' or ')} has this device id (0x1040 + type)`;
  }
  return undefined;
}

/** The key that only virtio devices can meet, if the match has one. */
function virtioOnly(match: Match): string | undefined {
  if (match.type?.every((type) => type.virtio !== undefined)) {
    return `type ${match.type.map((type) => type.name).join(', ')}`;
  }
  if (match.features !== undefined) return 'features';
  return match.transport === undefined ? undefined : 'transport';
}

function onlyVirtio(match: Match): boolean {
  return match.transport !== undefined || match.bus?.every((bus) => bus === 'virtio' || bus === 'vdpa') === true;
}
