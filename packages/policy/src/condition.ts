/** The keys of a rule's `match`, each as one question to a device. */
import type { Device } from '@airlock/core/device.ts';
import { type IdentityTier, tierRank } from '@airlock/core/level.ts';
import { LINUX_ALWAYS_ACCEPTS } from '@airlock/core/virtio.ts';
import {
  AFTER_BIND,
  isVirtio,
  NEVER_KNOWN,
  NO,
  type Truth,
  truth,
  unknownId,
  unknownOfPci,
  unknownSerial,
  unknownVirtio,
  YES,
} from './facts.ts';
import { compileGlob, inClass, parseClass } from './pattern.ts';
import type { ClassPattern, Match, TypePattern } from './policy.ts';

export interface Condition {
  /** As in `DecisionInput`: `vendor`, `features.offered`. */
  readonly field: string;
  /** What the rule asks for, in the policy's own words. */
  readonly wanted: string;
  readonly test: (device: Device, tier: IdentityTier) => Truth;
  /** What stands there, for explanations; undefined when not known. */
  readonly value: (device: Device, tier: IdentityTier) => unknown;
  /** It says what kind of device it is; none becomes one of another kind. */
  readonly kind: boolean;
  /** What is said when it is not met, around the value: `vendor is ` 0x15b3 `, rule asks for 0x8086`. */
  readonly before: string;
  readonly after: string;
}

const KINDS: readonly string[] = ['type', 'bus', 'transport', 'class'];

/** In an order that settles most devices with the first question. */
export function conditionsOf(match: Match): readonly Condition[] {
  const list: Condition[] = [];
  const add = (field: string, wanted: string, test: Condition['test'], value: Condition['value']) =>
    list.push({
      field,
      wanted,
      test,
      value,
      kind: KINDS.includes(field),
      before: `${field} is `,
      after: `, rule asks for ${wanted}`,
    });

  if (match.type) {
    add('type', match.type.map((one) => one.name).join(' or '), anyType(match.type), (device) => device.type);
  }
  if (match.bus) {
    const has = oneOf(match.bus);
    const virtio = match.bus.includes('virtio');
    add(
      'bus',
      match.bus.join(' or '),
      (device) => (has(device.bus) ? YES : virtio ? unknownVirtio(device) : NO),
      (device) => device.bus,
    );
  }
  if (match.transport) {
    const has = oneOf(match.transport);
    const pci = match.transport.includes('pci');
    add(
      'transport',
      match.transport.join(' or '),
      (device) => {
        if (device.transport !== null) return truth(has(device.transport));
        return pci ? unknownVirtio(device) : NO;
      },
      (device) => device.transport,
    );
  }
  if (match.vendor) {
    const has = oneOf(match.vendor);
    add(
      'vendor',
      anyHex(match.vendor),
      (device) => (device.vendor === undefined ? unknownId(device) : truth(has(device.vendor))),
      (device) => hex(device.vendor),
    );
  }
  if (match.device) {
    const has = oneOf(match.device);
    add(
      'device',
      anyHex(match.device),
      (device) => (device.device === undefined ? unknownId(device) : truth(has(device.device))),
      (device) => hex(device.device),
    );
  }
  if (match.class) {
    const classes = match.class;
    add(
      'class',
      classes.map((one) => one.name).join(' or '),
      (device) => {
        // USB has class codes too, with other meanings.
        if (device.bus === 'usb') return NO;
        const code = device.class;
        if (code === undefined) return unknownOfPci(device);
        return truth(code !== null && classes.some((one) => inClass(one, code)));
      },
      (device) => hex(device.class, 6),
    );
  }
  if (match.hotplugged !== undefined) {
    const wanted = match.hotplugged;
    // Where no gate looked first, everything counts as hot-plugged.
    add(
      'hotplugged',
      String(wanted),
      (device) => truth((device.origin !== 'boot') === wanted),
      (device) => (device.origin === undefined ? 'not known, counts as true' : device.origin === 'hotplug'),
    );
  }
  for (const key of ['vendor', 'device'] as const) {
    const ids = match.subsystem?.[key];
    if (!ids) continue;
    const has = oneOf(ids);
    add(
      `subsystem.${key}`,
      anyHex(ids),
      (device) =>
        device.subsystem === undefined
          ? unknownOfPci(device)
          : truth(device.subsystem !== null && has(device.subsystem[key])),
      (device) => (device.subsystem === null ? null : hex(device.subsystem?.[key])),
    );
  }
  if (match.revision) {
    const ranges = match.revision;
    add(
      'revision',
      ranges.map((one) => one.text).join(' or '),
      (device) => {
        const revision = device.revision;
        if (revision === undefined) return unknownId(device);
        return truth(revision !== null && ranges.some((one) => revision >= one.min && revision <= one.max));
      },
      (device) => device.revision,
    );
  }
  if (match.location) {
    const globs = match.location.map(compileGlob);
    add(
      'location',
      match.location.join(' or '),
      (device) => truth(globs.some((matches) => matches(device.location))),
      (device) => device.location,
    );
  }
  if (match.function) {
    const has = oneOf(match.function);
    add(
      'function',
      match.function.join(' or '),
      (device) =>
        device.sriov === undefined ? unknownOfPci(device) : truth(device.sriov !== null && has(device.sriov.role)),
      (device) => (device.sriov === null ? null : device.sriov?.role),
    );
  }
  if (match.physicalFunction) {
    const globs = match.physicalFunction.map(compileGlob);
    add(
      'physical-function',
      match.physicalFunction.join(' or '),
      (device) => {
        const { sriov } = device;
        if (sriov === undefined) return unknownOfPci(device);
        if (sriov?.role !== 'virtual') return NO;
        // One whose physical function does not know it is nobody's, and stays so.
        const place = physicalPlace(device);
        return place === undefined ? NEVER_KNOWN : truth(globs.some((matches) => matches(place)));
      },
      (device) => (device.sriov === null ? null : physicalPlace(device)),
    );
  }
  if (match.identity) {
    const wanted = match.identity;
    add(
      'identity',
      wanted.map((one) => `${one.orAbove ? '>=' : ''}${one.tier}`).join(' or '),
      (_device, tier) =>
        truth(wanted.some((one) => tier === one.tier || (one.orAbove && tierRank(tier) > tierRank(one.tier)))),
      (_device, tier) => tier,
    );
  }
  if (match.features?.offered) {
    const names = match.features.offered;
    add(
      'features.offered',
      names.join(' or '),
      (device) => offers(device, names),
      (device) => device.features?.offered,
    );
  }
  if (match.features?.negotiated) {
    const names = match.features.negotiated;
    add(
      'features.negotiated',
      names.join(' or '),
      (device) => {
        const negotiated = device.features?.negotiated;
        if (negotiated === undefined) return isVirtio(device) ? AFTER_BIND : unknownVirtio(device);
        return truth(names.some((name) => negotiated.includes(name)));
      },
      (device) => device.features?.negotiated,
    );
  }
  if (match.serial) {
    const has = oneOf(match.serial);
    add(
      'serial',
      match.serial.join(' or '),
      (device) => {
        if (device.serial === undefined) return unknownSerial(device);
        return truth(device.serial !== null && has(device.serial));
      },
      (device) => device.serial,
    );
  }
  return list;
}

/** Where the physical function of a virtual one sits; undefined for others, and where that cannot be told. */
function physicalPlace({ sriov }: Device): string | undefined {
  const id = sriov?.role === 'virtual' ? sriov.physical : undefined;
  return id?.slice(id.indexOf(':') + 1);
}

/**
 * Without a probe, what a device offers is seen only from what it negotiates: a bit that is negotiated was offered, and
 * of the bits that Linux always accepts, one that is not negotiated was not offered.
 */
function offers(device: Device, names: readonly string[]): Truth {
  if (!isVirtio(device)) return unknownVirtio(device);
  const offered = device.features?.offered;
  if (offered !== undefined) return truth(names.some((name) => offered.includes(name)));
  const negotiated = device.features?.negotiated;
  if (negotiated?.some((name) => names.includes(name))) return YES;
  const shown = names.every((name) => LINUX_ALWAYS_ACCEPTS.includes(name));
  if (!shown) return NEVER_KNOWN;
  return negotiated === undefined ? AFTER_BIND : NO;
}

function anyType(patterns: readonly TypePattern[]): Condition['test'] {
  const tests = patterns.map(oneType);
  const [only] = tests;
  if (only !== undefined && tests.length === 1) return only;
  return (device, tier) => {
    let answer: Truth = NO;
    for (const test of tests) {
      const one = test(device, tier);
      if (one === YES) return YES;
      if (one !== NO) answer = one;
    }
    return answer;
  };
}

/**
 * A virtio device over MMIO, or one whose ids could not be read, shows its type only once its transport's driver is
 * bound. A class that cannot be read is never shown.
 */
function oneType({ name, virtio, class: inside }: TypePattern): Condition['test'] {
  if (virtio !== undefined) {
    return (device) => {
      if (device.virtioId !== undefined) return device.virtioId === virtio ? YES : NO;
      if (!isVirtio(device)) return unknownVirtio(device);
      return device.type === null ? AFTER_BIND : truth(device.type === name);
    };
  }
  if (inside !== undefined) {
    return (device) => {
      if (isVirtio(device)) return NO;
      if (device.bus !== 'pci') return isWord(device, name);
      if (typeof device.class === 'number') return truth(inClass(inside, device.class));
      if (device.type === name) return YES;
      return device.class === undefined && mayBeInClass(device.type, inside) ? NEVER_KNOWN : NO;
    };
  }
  return (device) => (isVirtio(device) ? NO : isWord(device, name));
}

/** Platform devices and USB devices go by words; those of PCI functions are classes. */
function isWord(device: Device, name: string): Truth {
  if (device.type === name) return YES;
  if (device.type !== null || device.bus === 'pci') return NO;
  // A USB device of several interfaces has no type of its own: that is no more than a class that was read.
  return device.bus === 'platform' || device.class === undefined ? NEVER_KNOWN : NO;
}

/** Of a function without a readable class: its type, where something else told it, is the name of a class. */
function mayBeInClass(type: string | null, pattern: ClassPattern): boolean {
  const known = type === null ? undefined : parseClass(type);
  if (known === undefined) return type === null;
  const bits = Math.min(known.bits, pattern.bits);
  return known.value >>> (known.bits - bits) === pattern.value >>> (pattern.bits - bits);
}

function oneOf<T>(values: readonly T[]): (value: T) => boolean {
  const [only] = values;
  if (values.length === 1) return (value) => value === only;
  return (value) => values.includes(value);
}

/** Texts of numbers that were met, by their digits: a machine shows a few dozen. */
const texts = { 4: new Map<number, string>(), 6: new Map<number, string>() } as const;
const TEXT_LIMIT = 4096;

function hex(value: number | null | undefined, digits: 4 | 6 = 4): string | null | undefined {
  if (typeof value !== 'number') return value;
  const known = texts[digits].get(value);
  if (known !== undefined) return known;
  const text = `0x${value.toString(16).padStart(digits, '0')}`;
  if (texts[digits].size < TEXT_LIMIT) texts[digits].set(value, text);
  return text;
}

function anyHex(values: readonly number[]): string {
  return values.map((value) => hex(value)).join(' or ');
}
