/** The `match` section of a rule. */
import { BUSES, TRANSPORTS } from '@airlock/core/device.ts';
import { IDENTITY_TIERS } from '@airlock/core/level.ts';
import { PCI_CLASSES } from '@airlock/core/pci-class.ts';
import { canonicalFeature, featureBit, featureNames, VIRTIO_TYPES, virtioTypeName } from '@airlock/core/virtio.ts';
import { parseClass, parseNumber, parseRange } from './pattern.ts';
import { FUNCTIONS, type Match, type TypePattern } from './policy.ts';
import {
  anyOf,
  flag,
  mapped,
  notation,
  optional,
  record,
  type Schema,
  type Shape,
  text,
  textAs,
  word,
} from './shape.ts';

/** Words that the inventory gives to what has neither a VIRTIO type nor a PCI class (core/device.ts, `type`). */
export const DEVICE_WORDS = [
  'serial',
  'i8042',
  'fw-cfg',
  'tpm',
  'hub',
  'hid',
  'audio',
  'image',
  'printer',
  'smart-card',
  'video',
] as const;

const NUMBER_TEXT = '^(0|[1-9][0-9]{0,9}|0x[0-9a-fA-F]{1,8})$';

function id(what: string, max: number): Shape<number> {
  return notation({
    what: `${what}, decimal or as 0x1af4`,
    schema: {
      anyOf: [
        { type: 'integer', minimum: 0, maximum: max },
        { type: 'string', pattern: NUMBER_TEXT },
      ],
    },
    parse: (written) => parseNumber(written, max),
    hint: (written) => (/^[0-9a-fA-F]{1,8}$/.test(written) ? `for a hexadecimal number write 0x${written}` : undefined),
  });
}

const typeNames: readonly string[] = [
  ...Object.keys(VIRTIO_TYPES),
  ...Object.keys(PCI_CLASSES),
  ...DEVICE_WORDS.filter((one) => !Object.hasOwn(PCI_CLASSES, one)),
];

function parseType(written: string): TypePattern | undefined {
  if (Object.hasOwn(VIRTIO_TYPES, written)) {
    return { name: written, virtio: VIRTIO_TYPES[written as keyof typeof VIRTIO_TYPES] };
  }
  const virtio = parseNumber(written.replace(/^virtio-(?=[1-9])/, ''), 0xffff);
  if (virtio !== undefined) return virtio === 0 ? undefined : { name: virtioTypeName(virtio), virtio };
  const byClass = Object.hasOwn(PCI_CLASSES, written) ? parseClass(written) : undefined;
  if (byClass !== undefined) return { name: written, class: byClass };
  return typeNames.includes(written) ? { name: written } : undefined;
}

const type = notation<TypePattern>({
  what: 'a VIRTIO type (name or id), a PCI class name or a word such as serial or tpm',
  schema: {
    anyOf: [
      { enum: typeNames },
      { type: 'integer', minimum: 1, maximum: 0xffff },
      { type: 'string', pattern: '^(virtio-)?([1-9][0-9]{0,4}|0x[0-9a-fA-F]{1,4})$' },
    ],
  },
  parse: parseType,
  near: () => typeNames,
});

const classPattern = notation({
  what: 'a PCI class: a name, or 0x with two, four or six hex digits',
  schema: {
    anyOf: [
      { enum: Object.keys(PCI_CLASSES) },
      { type: 'string', pattern: '^0x([0-9a-fA-F]{2}){1,3}$' },
      { type: 'integer', minimum: 0, maximum: 0xffffff },
    ],
  },
  parse: parseClass,
  near: () => Object.keys(PCI_CLASSES),
  hint: () => 'leading zeros count: 0x01 is all storage, 0x0108 NVMe',
});

const revision = notation({
  what: 'a revision: 2, ">=2", "<4" or 1..3',
  schema: {
    anyOf: [
      { type: 'integer', minimum: 0, maximum: 0xffff },
      { type: 'string', pattern: '^((>=|<=|>|<)? ?[0-9a-fA-Fx]+|[0-9a-fA-Fx]+\\.\\.[0-9a-fA-Fx]+)$' },
    ],
  },
  parse: (written) => parseRange(written, 0xffff),
});

const identity = notation<{ readonly tier: (typeof IDENTITY_TIERS)[number]; readonly orAbove: boolean }>({
  what: 'an identity tier, or ">=" and a tier',
  schema: { enum: IDENTITY_TIERS.flatMap((tier) => [tier, `>=${tier}`]) },
  parse: (written) => {
    const orAbove = written.startsWith('>=');
    const tier = IDENTITY_TIERS.find((one) => one === written.slice(orAbove ? 2 : 0).trim());
    return tier === undefined ? undefined : { tier, orAbove };
  },
  near: () => IDENTITY_TIERS,
});

/** Names such as RING_PACKED, VIRTIO_F_RING_PACKED, NET_F_MQ or bit-57, in their short form. */
export const feature: Shape<string> = notation({
  what: 'a VIRTIO feature',
  schema: { type: 'string', pattern: '^(VIRTIO_)?[A-Z0-9_]+$|^bit-[0-9]{1,3}$' } satisfies Schema,
  parse: (written) => (featureBit(written) === undefined ? undefined : canonicalFeature(written)),
  near: featureNames,
});

const glob = textAs(
  {
    what: 'a place as `airlock list` shows it (0000:00:03.0), * for any part',
    max: 128,
    pattern: '^[\\x21-\\x7e]+$',
    hint: 'at most eight *',
  },
  (value) => (value.split('*').length > 9 ? undefined : value.replace(/\*+/g, '*')),
);

const serial = text({ what: 'a serial number (text)', max: 128, pattern: '^[\\x20-\\x7e]+$' });

const subsystem = record(
  'subsystem',
  {
    vendor: optional(anyOf(id('a subsystem vendor id', 0xffff), 'ids'), 'Subsystem vendor id.'),
    device: optional(anyOf(id('a subsystem device id', 0xffff), 'ids'), 'Subsystem device id.'),
  },
  { some: true },
);

const features = record(
  'features',
  {
    offered: optional(anyOf(feature, 'features'), 'The device offers any of these.'),
    negotiated: optional(anyOf(feature, 'features'), 'Driver and device agreed on any of these.'),
  },
  { some: true },
);

const fields = record('match', {
  bus: optional(anyOf(word('a bus', BUSES), 'buses'), 'A virtio device is on virtio whatever carries it.'),
  transport: optional(anyOf(word('a virtio transport', TRANSPORTS), 'transports'), 'What carries a virtio device.'),
  type: optional(
    anyOf(type, 'types'),
    'VIRTIO type by name or id; PCI class name; or serial, i8042, fw-cfg, tpm and the like.',
  ),
  class: optional(anyOf(classPattern, 'classes'), 'PCI class: name, or a prefix of its six hex digits.'),
  vendor: optional(anyOf(id('a vendor id', 0xffffffff), 'ids'), 'Vendor id. The host can forge it.'),
  device: optional(anyOf(id('a device id', 0xffff), 'ids'), 'Device id. The host can forge it.'),
  subsystem: optional(subsystem, 'PCI subsystem ids.'),
  revision: optional(anyOf(revision, 'revisions'), 'PCI revision: a number, a comparison or a range.'),
  serial: optional(anyOf(serial, 'serial numbers'), 'Serial number, exactly. Seen only after binding (block, NVMe).'),
  location: optional(anyOf(glob, 'places'), 'Where it sits, exactly or with *.'),
  hotplugged: optional(flag('hotplugged'), 'Was it absent when the gate looked first?'),
  function: optional(anyOf(word('an SR-IOV role', FUNCTIONS), 'roles'), 'SR-IOV role.'),
  'physical-function': optional(
    anyOf(glob, 'places'),
    'Virtual functions of the SR-IOV physical function that sits there, exactly or with *.',
  ),
  features: optional(features, 'VIRTIO features that tell devices apart; see also features of the rule.'),
  identity: optional(anyOf(identity, 'tiers'), 'How sure Airlock is of who the device is.'),
});

/** A match without keys matches everything; `match: {}` says so on purpose. */
export const match: Shape<Match> = mapped(fields, (read, at, report) => {
  const { 'physical-function': physicalFunction, ...others } = read;
  const found = withoutUndefined<Match>({
    ...others,
    physicalFunction,
    subsystem: read.subsystem && withoutUndefined<NonNullable<Match['subsystem']>>(read.subsystem),
    features: read.features && withoutUndefined<NonNullable<Match['features']>>(read.features),
  });
  if (
    found.transport !== undefined &&
    found.bus !== undefined &&
    !found.bus.some((bus) => bus === 'virtio' || bus === 'vdpa')
  ) {
    report({
      code: 'keys-conflict',
      message: 'only virtio devices have a transport, and bus says another one',
      at,
      hint: 'write bus: virtio or leave one of them out',
    });
    return undefined;
  }
  return found;
});

/** The same keys without those that hold undefined. */
export function withoutUndefined<T>(value: { readonly [K in keyof T]: T[K] | undefined }): T {
  return Object.fromEntries(Object.entries(value).filter(([, one]) => one !== undefined)) as T;
}
