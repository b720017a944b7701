/** `*.test.yaml`: devices, and what the policy is expected to decide about them. */
import type { Claim } from '@airlock/core/claim.ts';
import { REASON_CODES } from '@airlock/core/decision.ts';
import { BUSES, type Device, type KernelFacts, TRANSPORTS } from '@airlock/core/device.ts';
import { IDENTITY_TIERS, TRUST_LEVELS } from '@airlock/core/level.ts';
import { PCI_CLASSES, pciTypeName } from '@airlock/core/pci-class.ts';
import type { Position, Problem } from '@airlock/core/result.ts';
import { VIRTIO_TYPES } from '@airlock/core/virtio.ts';
import type { Node } from './document.ts';
import { feature } from './match-shape.ts';
import { parseClass, parseNumber } from './pattern.ts';
import { FUNCTIONS, type FunctionRole, SPDM_VERSIONS } from './policy.ts';
import { flag, listOf, mapped, needed, notation, optional, record, type Shape, text, word } from './shape.ts';
import type { Phase } from './verdict.ts';

export interface PolicyTest {
  readonly name: string;
  readonly at: Position;
  /** A device of the recorded inventory by id, or one that the test describes. */
  readonly device: string | Device;
  readonly claim?: Omit<Claim, 'device'>;
  readonly phase: Phase;
  readonly expect: Expectation;
}

export interface Expectation {
  readonly level?: string | undefined;
  /** `default` for no rule. */
  readonly rule?: string | undefined;
  readonly reason?: string | undefined;
  readonly pending?: readonly string[] | undefined;
}

export interface PolicyTests {
  readonly file: string;
  /** Beside the test file. */
  readonly policy?: string;
  readonly inventory?: string;
  readonly kernel: Partial<KernelFacts>;
  readonly cases: readonly PolicyTest[];
}

const number = (what: string, max: number) =>
  notation({
    what: `${what}, decimal or as 0x1af4`,
    schema: { anyOf: [{ type: 'integer', minimum: 0, maximum: max }, { type: 'string' }] },
    parse: (written) => parseNumber(written, max),
  });

const name = text({ what: 'text', max: 200 });

/** `null` says that the device has none; leaving the key out says that it is not known. */
function orNull<T>(shape: Shape<T>): Shape<T | null> {
  return {
    schema: { anyOf: [shape.schema, { type: 'null' }] },
    read: (node, report) =>
      node.kind === 'scalar' && node.value === null ? null : (shape.read(node, report) as T | null | undefined),
  };
}

const classCode = notation({
  what: 'a PCI class: a name or six hex digits after 0x',
  schema: { anyOf: [{ enum: Object.keys(PCI_CLASSES) }, { type: ['string', 'integer'] }] },
  parse: (written) => {
    const parsed = parseClass(written);
    return parsed && parsed.value * 2 ** (24 - parsed.bits);
  },
  near: () => Object.keys(PCI_CLASSES),
});

const features = listOf(feature, { what: 'features', max: 128, empty: true });

const deviceFields = record('a device', {
  id: optional(name, 'Made from bus and location when not given.'),
  bus: needed(word('a bus', BUSES), 'Bus.'),
  transport: optional(word('a transport', TRANSPORTS), 'pci for virtio devices when not given.'),
  type: optional(text({ what: 'a type', max: 64 }), 'VIRTIO type by name, or the word that the inventory uses.'),
  class: optional(orNull(classCode), 'PCI class.'),
  vendor: optional(number('a vendor id', 0xffffffff), '0x1af4 for virtio devices when not given.'),
  device: optional(number('a device id', 0xffff), '0x1040 + type for virtio devices when not given.'),
  subsystem: optional(
    orNull(
      record('subsystem', {
        vendor: needed(number('a subsystem vendor id', 0xffff), 'Subsystem vendor id.'),
        device: needed(number('a subsystem device id', 0xffff), 'Subsystem device id.'),
      }),
    ),
    'PCI subsystem ids.',
  ),
  revision: optional(orNull(number('a revision', 0xffff)), 'PCI revision.'),
  serial: optional(orNull(text({ what: 'a serial number', max: 128 })), 'Not known when not given; null for none.'),
  location: optional(name, 'Where it sits.'),
  hotplugged: optional(flag('hotplugged'), 'false when not given.'),
  function: optional(word('an SR-IOV role', FUNCTIONS), 'None when not given; virtual with physical-function.'),
  'physical-function': optional(name, 'Where the physical function of a virtual one sits.'),
  offered: optional(features, 'Offered features; not known when not given.'),
  negotiated: optional(features, 'Negotiated features; not known when not given.'),
});

const described: Shape<Device> = mapped(deviceFields, (read, at, report): Device | undefined => {
  const virtio = read.bus === 'virtio' || read.transport !== undefined;
  const virtioId =
    virtio && read.type !== undefined && Object.hasOwn(VIRTIO_TYPES, read.type)
      ? VIRTIO_TYPES[read.type as keyof typeof VIRTIO_TYPES]
      : undefined;
  if (virtio && read.type !== undefined && virtioId === undefined) {
    report({
      code: 'unknown-name',
      message: `${JSON.stringify(read.type)} is no VIRTIO type`,
      at,
    });
    return undefined;
  }
  if (read['physical-function'] !== undefined && read.function === 'physical') {
    report({ code: 'keys-conflict', message: 'only virtual functions have a physical one', at });
    return undefined;
  }
  const transport = read.transport ?? (virtio ? 'pci' : null);
  const pci = read.bus === 'pci' || transport === 'pci';
  const location = read.location ?? (pci ? '0000:00:1f.7' : 'test');
  const byClass = typeof read.class === 'number' ? pciTypeName(read.class) : null;
  const vendor = read.vendor ?? (virtio ? 0x1af4 : undefined);
  const device = read.device ?? (virtioId === undefined || transport !== 'pci' ? undefined : 0x1040 + virtioId);
  return {
    id: read.id ?? `${pci ? 'pci' : read.bus === 'virtio' ? 'platform' : read.bus}:${location}`,
    bus: read.bus,
    transport,
    location,
    path: '',
    nodes: [],
    type: read.type ?? byClass,
    ...(virtioId === undefined ? {} : { virtioId }),
    ...(vendor === undefined ? {} : { vendor }),
    ...(device === undefined ? {} : { device }),
    ...(read.subsystem === undefined ? {} : { subsystem: read.subsystem }),
    ...(read.class === undefined ? {} : { class: read.class }),
    ...(read.revision === undefined ? {} : { revision: read.revision }),
    ...(read.serial === undefined ? {} : { serial: read.serial }),
    origin: read.hotplugged === true ? 'hotplug' : 'boot',
    sriov: sriovOf(read.function, read['physical-function']),
    ...(read.offered === undefined && read.negotiated === undefined
      ? {}
      : {
          features: {
            ...(read.offered === undefined ? {} : { offered: read.offered }),
            ...(read.negotiated === undefined ? {} : { negotiated: read.negotiated }),
          },
        }),
    interfaces: [],
    faults: [],
  };
});

function sriovOf(role: FunctionRole | undefined, place: string | undefined): NonNullable<Device['sriov']> | null {
  if (place === undefined) return role === undefined ? null : { role };
  return { role: 'virtual', physical: `pci:${place}` };
}

const device: Shape<string | Device> = {
  schema: { anyOf: [{ type: 'string' }, described.schema] },
  read: (node, report) => (node.kind === 'map' ? described.read(node, report) : name.read(node, report)),
};

const spdmVersion = notation({
  what: `a version of SPDM, ${SPDM_VERSIONS.join(', ')}`,
  schema: { anyOf: [{ enum: SPDM_VERSIONS }, { enum: SPDM_VERSIONS.map(Number) }] },
  parse: (written) => SPDM_VERSIONS.find((version) => version === written),
});

const claim = mapped(
  record('claim', {
    tier: needed(word('an identity tier', IDENTITY_TIERS), 'How sure Airlock is.'),
    roots: optional(listOf(name, { what: 'files', max: 16 }), 'Trust anchors that the evidence chained to.'),
    measurements: optional(listOf(name, { what: 'files', max: 16 }), 'Reference values that were matched.'),
    spdm: optional(spdmVersion, 'The version of SPDM in which it was proven.'),
  }),
  (read): Omit<Claim, 'device'> => ({
    tier: read.tier,
    because: 'stated by the test',
    ...(read.roots === undefined ? {} : { roots: read.roots }),
    ...(read.measurements === undefined ? {} : { measurements: read.measurements }),
    ...(read.spdm === undefined ? {} : { spdm: read.spdm }),
  }),
);

const expectation = record(
  'expect',
  {
    level: optional(word('a trust level', TRUST_LEVELS), 'The level.'),
    rule: optional(name, 'Id of the rule that decides, or default.'),
    reason: optional(word('a reason code', REASON_CODES), 'The reason code.'),
    pending: optional(listOf(name, { what: 'facts', max: 16, empty: true }), 'Facts that are waited for.'),
  },
  { some: true },
);

const testCase: Shape<PolicyTest> = mapped(
  record('a case', {
    name: needed(name, 'What the case shows.'),
    device: needed(device, 'Described here, or the id of one in the inventory.'),
    claim: optional(claim, 'What an appraisal says of the device.'),
    phase: optional(
      word('a phase', ['before-bind', 'after-bind']),
      'after-bind: what is still unknown counts against the device.',
    ),
    expect: needed(expectation, 'What must come out; what is not named may be anything.'),
  }),
  (read, at): PolicyTest => ({
    name: read.name,
    at,
    device: read.device,
    ...(read.claim === undefined ? {} : { claim: read.claim }),
    phase: read.phase ?? 'before-bind',
    expect: read.expect,
  }),
);

const kernel = record('kernel', {
  confidential: optional(
    orNull(word('a kind', ['sev', 'sev-es', 'sev-snp', 'tdx', 'cca', 'secure-execution'])),
    'Kind of confidential VM; null for none.',
  ),
  swiotlb: optional(word('a mode', ['off', 'auto', 'force']), 'Bounce buffers.'),
  lockdown: optional(word('a mode', ['none', 'integrity', 'confidentiality']), 'Kernel lockdown.'),
  cmdline: optional(text({ what: 'a command line', max: 4096 }), 'Kernel command line.'),
});

export const testFile = record('the test file', {
  version: needed(
    notation<1>({
      what: 'version: 1',
      schema: { const: 1 },
      parse: (written) => (written === '1' ? 1 : undefined),
    }),
    'Version of the format: 1.',
  ),
  policy: optional(name, 'The policy, beside this file; the file of the same name when not given.'),
  inventory: optional(name, 'A recorded inventory, beside this file, whose devices cases can name.'),
  kernel: optional(kernel, 'The kernel in which cases without an inventory play.'),
  cases: needed(listOf(testCase, { what: 'cases', max: 4096 }), 'The cases.'),
});

/** Strict as the policy's own decoder, with the same codes. */
export function decodeTests(node: Node): { readonly tests?: PolicyTests; readonly problems: Problem[] } {
  const problems: Problem[] = [];
  const read = testFile.read(node, (problem) => problems.push(problem));
  if (read === undefined) return { problems };
  const facts = Object.fromEntries(Object.entries(read.kernel ?? {}).filter(([, value]) => value !== undefined));
  return {
    problems,
    tests: {
      file: node.at.file,
      ...(read.policy === undefined ? {} : { policy: read.policy }),
      ...(read.inventory === undefined ? {} : { inventory: read.inventory }),
      kernel: facts as Partial<KernelFacts>,
      cases: read.cases,
    },
  };
}
