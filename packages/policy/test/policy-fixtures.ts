/** Short ways to write policies, devices and machines in tests, and arbitrary ones for properties. */
import assert from 'node:assert/strict';
import type { Device, Inventory, KernelFacts } from '@airlock/core/device.ts';
import { IDENTITY_TIERS, TRUST_LEVELS } from '@airlock/core/level.ts';
import { formatProblem, type Problem } from '@airlock/core/result.ts';
import fc from 'fast-check';
import { type CompiledPolicy, compilePolicy } from '../src/compile.ts';
import { decodePolicy } from '../src/decode.ts';
import type { Policy } from '../src/policy.ts';
import { PLATFORM_FORBIDS } from '../src/policy.ts';
import { readYaml } from '../src/yaml.ts';

/** Problems of one text, as a user sees them. */
export function problemsOf(text: string): readonly Problem[] {
  const { node, problems } = readYaml(text, 'policy.yaml');
  return node === undefined ? problems : decodePolicy([node]).problems;
}

export function parse(text: string, file = 'policy.yaml'): Policy {
  const { node, problems } = readYaml(text, file);
  assert.ok(node, problems.map(formatProblem).join('\n'));
  const decoded = decodePolicy([node]);
  assert.ok(decoded.policy, decoded.problems.map(formatProblem).join('\n'));
  return decoded.policy;
}

export function compile(text: string): CompiledPolicy {
  return compilePolicy(parse(text));
}

/** A policy of these rules, each in flow style, above the default `disconnected`. */
export function rules(...list: string[]): string {
  return `version: 1\nrules:${list.length === 0 ? ' []' : ''}\n${list.map((rule) => `  - ${rule}\n`).join('')}`;
}

export const KERNEL: KernelFacts = {
  release: '7.2.12+deb13-amd64',
  arch: 'x86_64',
  confidential: 'sev-snp',
  autoprobe: {},
  modulesDisabled: false,
  lockdown: 'integrity',
  swiotlb: 'force',
  cmdline: 'root=/dev/vda',
};

export function machine(devices: readonly Device[], kernel: Partial<KernelFacts> = {}): Inventory {
  return { version: 1, kernel: { ...KERNEL, ...kernel }, devices };
}

/** A virtio block device over PCI that was there at boot and is not bound, but for what is given. */
export function device(given: Partial<Device> = {}): Device {
  return {
    id: 'pci:0000:00:03.0',
    bus: 'virtio',
    transport: 'pci',
    location: '0000:00:03.0',
    path: '/sys/devices/pci0000:00/0000:00:03.0',
    nodes: [{ bus: 'pci', name: '0000:00:03.0', driver: null }],
    type: 'block',
    virtioId: 2,
    vendor: 0x1af4,
    device: 0x1042,
    subsystem: { vendor: 0x1af4, device: 0x1100 },
    class: 0x010000,
    revision: 1,
    origin: 'boot',
    sriov: null,
    interfaces: [],
    faults: [],
    ...given,
  };
}

/** A passed-through network function. */
export function nic(given: Partial<Device> = {}): Device {
  const { virtioId: _, ...plain } = device();
  return {
    ...plain,
    id: 'pci:0000:01:00.0',
    location: '0000:01:00.0',
    bus: 'pci',
    transport: null,
    type: 'network',
    vendor: 0x15b3,
    device: 0x101e,
    class: 0x020000,
    revision: 2,
    ...given,
  };
}

const features = fc.subarray(['VERSION_1', 'ACCESS_PLATFORM', 'RING_PACKED', 'INDIRECT_DESC', 'NET_F_MQ', 'bit-60']);

/** Devices of every kind, with every kind of hole in what is known, also ones that no kernel would show. */
export const anyDevice: fc.Arbitrary<Device> = fc
  .record(
    {
      id: fc.oneof(fc.string(), fc.constantFrom('__proto__', 'constructor', 'pci:0000:00:03.0')),
      bus: fc.constantFrom('pci', 'virtio', 'vdpa', 'usb', 'platform'),
      transport: fc.constantFrom(null, 'pci', 'mmio', 'vdpa', 'ccw'),
      location: fc.oneof(fc.string(), fc.constantFrom('0000:00:03.0', '')),
      path: fc.string(),
      nodes: fc.constant([]),
      type: fc.oneof(fc.constantFrom(null, 'block', 'net', 'nvme', 'network', 'serial', '9p'), fc.string()),
      virtioId: fc.oneof(fc.constantFrom(1, 2, 9), fc.nat()),
      vendor: fc.oneof(fc.constantFrom(0x1af4, 0x15b3), fc.nat()),
      device: fc.oneof(fc.constantFrom(0x1000, 0x1041, 0x1042), fc.nat()),
      subsystem: fc.oneof(fc.constant(null), fc.record({ vendor: fc.nat(), device: fc.nat() })),
      class: fc.oneof(fc.constantFrom(null, 0x010802, 0x020000, 0x060400), fc.nat(0xffffff)),
      revision: fc.oneof(fc.constantFrom(null, 0, 1, 2), fc.nat(300)),
      serial: fc.oneof(fc.constantFrom(null, 'root', ''), fc.string()),
      origin: fc.constantFrom('boot', 'hotplug'),
      sriov: fc.constantFrom(
        null,
        { role: 'physical' },
        { role: 'virtual' },
        { role: 'virtual', physical: 'pci:0000:00:03.0', index: 0 },
      ),
      features: fc.record({ offered: features, negotiated: features }, { requiredKeys: [] }),
      iommu: fc.constantFrom(null, { group: 1, type: 'DMA' }, { group: 2, type: null }),
      interfaces: fc.constant([]),
      faults: fc.constant([]),
    },
    { requiredKeys: ['id', 'bus', 'transport', 'location', 'path', 'nodes', 'type', 'interfaces', 'faults'] },
  )
  .map((one) => one as Device);

export const anyInventory: fc.Arbitrary<Inventory> = fc
  .record({
    devices: fc.array(anyDevice, { maxLength: 6 }),
    confidential: fc.constantFrom(null, 'sev', 'sev-snp', 'tdx'),
    swiotlb: fc.constantFrom('off', 'auto', 'force'),
    lockdown: fc.constantFrom(null, 'none', 'integrity', 'confidentiality'),
    cmdline: fc.oneof(fc.string(), fc.constant('iommu.strict=1 module.sig_enforce')),
  })
  .map(({ devices, ...kernel }) => machine(devices, kernel as Partial<KernelFacts>));

const level = fc.constantFrom(...TRUST_LEVELS);
const tier = fc.constantFrom(...IDENTITY_TIERS);
const oneOrMore = (values: readonly string[]) =>
  fc.subarray([...values], { minLength: 1 }).map((list) => (list.length === 1 ? list[0] : `[${list.join(', ')}]`));

const matchPart: fc.Arbitrary<string> = fc.oneof(
  oneOrMore(['pci', 'virtio', 'usb', 'platform']).map((text) => `bus: ${text}`),
  oneOrMore(['block', 'net', '9p', 'nvme', 'network', 'serial']).map((text) => `type: ${text}`),
  oneOrMore(['0x1af4', '0x15b3', '7']).map((text) => `vendor: ${text}`),
  oneOrMore(['0x1041', '0x1042']).map((text) => `device: ${text}`),
  oneOrMore(['network', 'nvme', '0x06', '0x0604']).map((text) => `class: ${text}`),
  oneOrMore(['1', '">=2"', '0..1']).map((text) => `revision: ${text}`),
  oneOrMore(['root', '"a b"']).map((text) => `serial: ${text}`),
  oneOrMore(['"0000:00:*"', '"*"', '"0000:00:03.0"']).map((text) => `location: ${text}`),
  fc.boolean().map((yes) => `hotplugged: ${yes}`),
  oneOrMore(['physical', 'virtual']).map((text) => `function: ${text}`),
  oneOrMore(['"0000:00:*"', '"0000:00:03.0"', '"*"']).map((text) => `physical-function: ${text}`),
  oneOrMore(['RING_PACKED', 'NET_F_MQ']).map((text) => `features: { offered: ${text} }`),
  oneOrMore(['RING_PACKED', 'NET_F_MQ']).map((text) => `features: { negotiated: ${text} }`),
  tier.map((one) => `identity: ">=${one}"`),
);

/** The body of a rule without its id. */
export const anyRule: fc.Arbitrary<string> = fc
  .record({
    parts: fc.uniqueArray(matchPart, { maxLength: 3, selector: (part) => part.split(':')[0] }),
    level,
    require: fc.option(fc.tuple(tier, fc.option(level)), { nil: undefined, freq: 3 }),
    features: fc.option(
      fc.constantFrom(
        'require: [VERSION_1]',
        'forbid: [RING_PACKED]',
        'require: [VERSION_1], forbid: [RING_PACKED, NET_F_MQ]',
      ),
      { nil: undefined, freq: 3 },
    ),
    grant: fc.option(level, { nil: undefined, freq: 4 }),
  })
  .map((rule) => {
    const parts = [`match: { ${rule.parts.join(', ')} }`];
    parts.push(`level: ${rule.level}`);
    if (rule.require) {
      parts.push(`require: { identity: ${rule.require[0]} }`);
      if (rule.require[1]) parts.push(`otherwise: { level: ${rule.require[1]} }`);
    }
    if (rule.features) parts.push(`features: { ${rule.features} }`);
    if (rule.grant) parts.push(`grant: ${rule.grant}`);
    return parts.join(', ');
  });

export const anyRules: fc.Arbitrary<readonly string[]> = fc
  .array(anyRule, { maxLength: 6 })
  .map((bodies) => bodies.map((body, index) => `{ id: r${index}, ${body} }`));

export const anyHead: fc.Arbitrary<string> = fc
  .record({
    level,
    grant: level,
    forbid: fc.subarray([...PLATFORM_FORBIDS], { maxLength: 2 }),
    require: fc.subarray(['memory-encryption', 'swiotlb', 'iommu-strict', 'module-signatures'], { maxLength: 2 }),
  })
  .map(({ level: standard, grant, forbid, require }) =>
    [
      'version: 1',
      `default: ${standard}`,
      `default-grant: ${grant}`,
      ...(forbid.length + require.length === 0
        ? []
        : [
            `platform: { ${[
              ...(forbid.length > 0 ? [`forbid: [${forbid.join(', ')}]`] : []),
              ...(require.length > 0 ? [`require: [${require.join(', ')}]`] : []),
            ].join(', ')} }`,
          ]),
    ].join('\n'),
  );

export function policyText(head: string, list: readonly string[]): string {
  return `${head}\nrules:${list.length === 0 ? ' []' : ''}\n${list.map((rule) => `  - ${rule}\n`).join('')}`;
}

export const anyClaims = (inventory: Inventory) =>
  fc
    .array(fc.option(tier, { nil: undefined }), {
      minLength: inventory.devices.length,
      maxLength: inventory.devices.length,
    })
    .map((tiers) => {
      const claims = Object.create(null) as Record<
        string,
        { device: string; tier: (typeof IDENTITY_TIERS)[number]; because: string }
      >;
      for (const [index, one] of inventory.devices.entries()) {
        const given = tiers[index];
        if (given !== undefined) claims[one.id] = { device: one.id, tier: given, because: 'test' };
      }
      return claims;
    });
