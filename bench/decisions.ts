/**
 * Decisions a second with twenty rules, beside OPA (compiled Rego in opa-wasm) and Cedar (cedar-wasm) on the same rules
 * and the same devices. The peers get what they like best: their input made ready in advance, policies parsed once,
 * only the attributes that the rules ask for. What they answer is compared with ours before anything is timed.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Device, Inventory } from '@airlock/core/device.ts';
import { type CompiledPolicy, compilePolicy } from '@airlock/policy/compile.ts';
import { decide } from '@airlock/policy/decide.ts';
import { decodePolicy } from '@airlock/policy/decode.ts';
import { readBundle } from '@airlock/policy/external/bundle.ts';
import { gunzipBounded } from '@airlock/policy/external/node-gunzip.ts';
import { loadPolicy as readPolicy } from '@airlock/policy/node-source.ts';
import { verdictFor } from '@airlock/policy/verdict.ts';
import {
  preparsePolicySet,
  type StatefulAuthorizationCall,
  statefulIsAuthorized,
} from '@cedar-policy/cedar-wasm/nodejs';
import { loadPolicy } from '@open-policy-agent/opa-wasm';
import type { Bench, Side } from './side-by-side.ts';

const fixtures = join(import.meta.dirname, 'fixtures');

/** What one engine says of one device; `rules` are those that led to it. */
interface Answer {
  readonly level: string;
  readonly rules: readonly string[];
}

interface Engine extends Side {
  answer(index: number): Answer;
}

const VIRTIO = { vendor: 0x1af4, revision: 1, class: 0xff0000 };
const DISK = { ...VIRTIO, type: 'block', virtioId: 2, device: 0x1042, class: 0x010000 };
const NIC = { type: 'network', class: 0x020000 };

/** One device for each rule, and four that no rule knows. */
const DEVICES: readonly Device[] = [
  pci({ ...NIC, vendor: 0x10ec, device: 0x8139 }),
  pci({ ...NIC, vendor: 0x15b3, device: 0x1017, revision: 1 }),
  pci({ type: 'display', class: 0x030000, vendor: 0x10de, device: 0x2330 }),
  pci({ type: 'serial-bus', class: 0x0c0330, vendor: 0x1b36, device: 0x000d }),
  virtio({ ...VIRTIO, type: 'balloon', virtioId: 5, device: 0x1045 }),
  virtio({ ...VIRTIO, type: 'gpu', virtioId: 16, device: 0x1050 }),
  virtio({ ...VIRTIO, type: 'input', virtioId: 18, device: 0x1052 }),
  virtio({ ...DISK, origin: 'hotplug', location: '0000:00:01.0' }),
  virtio({ ...DISK, transport: 'mmio', location: 'LNRO0005:00' }),
  virtio({ ...VIRTIO, type: 'net', virtioId: 1, device: 0x1041, location: '0000:1f:00.0' }),
  virtio({ ...DISK, location: '0000:00:01.0' }),
  virtio({ ...DISK, location: '0000:00:02.3' }),
  virtio({ ...VIRTIO, type: 'net', virtioId: 1, device: 0x1041 }),
  virtio({ ...VIRTIO, type: 'console', virtioId: 3, device: 0x1043 }),
  virtio({ ...VIRTIO, type: 'entropy', virtioId: 4, device: 0x1044 }),
  virtio({ ...VIRTIO, type: '9p', virtioId: 9, device: 0x1049 }),
  virtio({ ...VIRTIO, type: 'vsock', virtioId: 19, device: 0x1053 }),
  pci({ type: 'nvme', class: 0x010802, vendor: 0x144d, device: 0xa808 }),
  pci({ ...NIC, vendor: 0x15b3, device: 0x101e, revision: 2 }),
  pci({ ...NIC, vendor: 0x8086, device: 0x1572, revision: 3 }),
  pci({ ...NIC, vendor: 0x8086, device: 0x1572, revision: 4 }),
  pci({ type: 'nvme', class: 0x010802, vendor: 0x15b7, device: 0x5001 }),
  virtio({ ...VIRTIO, type: 'fs', virtioId: 26, device: 0x105a }),
  virtio({ ...DISK, location: '0000:00:09.0' }),
].map((device, i) => ({ ...device, id: `pci:${i}` }));

function pci(facts: Partial<Device>): Device {
  return base({ bus: 'pci', transport: null, ...facts });
}

function virtio(facts: Partial<Device>): Device {
  return base({ bus: 'virtio', transport: 'pci', ...facts });
}

function base(facts: Partial<Device> & Pick<Device, 'bus' | 'transport'>): Device {
  return {
    id: '',
    location: '0000:00:05.0',
    path: '/sys/devices/pci0000:00/0000:00:05.0',
    nodes: [{ bus: 'pci', name: '0000:00:05.0', driver: null }],
    type: null,
    origin: 'boot',
    revision: 1,
    sriov: null,
    subsystem: null,
    interfaces: [],
    faults: [],
    ...facts,
  };
}

/** What the rules ask for; the peers get no more. */
const ASKED = DEVICES.map(({ bus, transport, type, location, vendor, device, class: code, revision, origin }) => ({
  ...{ bus, type: type ?? '', transport: transport ?? '', location, origin: origin ?? '' },
  ...{ vendor: vendor ?? -1, device: device ?? -1, class: code ?? -1, revision: revision ?? -1 },
}));

const INVENTORY: Inventory = {
  version: 1,
  kernel: {
    release: '7.2.12',
    arch: 'x86_64',
    confidential: 'sev-snp',
    autoprobe: {},
    modulesDisabled: false,
    lockdown: null,
    swiotlb: 'force',
    cmdline: '',
  },
  devices: DEVICES,
};

/** Kept, so that no compiler can find out that nobody reads the answers. */
let kept: unknown;

function ourVerdict(policy: CompiledPolicy): Engine {
  return {
    name: 'airlock verdictFor',
    run(times) {
      for (let i = 0; i < times; i++) for (const device of DEVICES) kept = verdictFor(policy, device);
    },
    answer(index) {
      const verdict = verdictFor(policy, at(DEVICES, index));
      return { level: verdict.level, rules: verdict.rule === null ? [] : [verdict.rule.rule.id] };
    },
  };
}

function ourDecisions(policy: CompiledPolicy): Engine {
  return {
    name: 'airlock decide',
    run(times) {
      for (let i = 0; i < times; i++) kept = decide(policy, INVENTORY, {});
    },
    answer(index) {
      const decision = at(decide(policy, INVENTORY, {}), index);
      return { level: decision.level, rules: decision.rule === null ? [] : [decision.rule.id] };
    },
  };
}

async function openOpa(): Promise<Engine> {
  const bundle = await readBundle(new Uint8Array(readFileSync(join(fixtures, 'decisions.tar.gz'))), gunzipBounded);
  if (!bundle.ok) throw new Error(bundle.error.message);
  const policy = await loadPolicy(new Uint8Array(bundle.value.wasm));
  policy.setData({});
  const inputs = ASKED.map((device) => new TextEncoder().encode(JSON.stringify(device)).buffer);
  return {
    name: 'opa-wasm',
    run(times) {
      for (let i = 0; i < times; i++) for (const input of inputs) kept = policy.evaluate(input, 0);
    },
    answer(index) {
      const [only]: { result: { rule: string | null; level: string } }[] = policy.evaluate(at(inputs, index), 0);
      return { level: only?.result.level ?? '', rules: only?.result.rule ? [only.result.rule] : [] };
    },
  };
}

function openCedar(): Engine {
  const staticPolicies = JSON.parse(readFileSync(join(fixtures, 'decisions.cedar.json'), 'utf8'));
  const parsed = preparsePolicySet('bench', { staticPolicies });
  if (parsed.type === 'failure') throw new Error(parsed.errors.map(({ message }) => message).join('; '));
  const calls = ASKED.map((attrs, i): StatefulAuthorizationCall => {
    const principal = { type: 'Device', id: String(i) };
    return {
      principal,
      action: { type: 'Action', id: 'use' },
      resource: { type: 'Machine', id: 'guest' },
      context: {},
      preparsedPolicySetId: 'bench',
      entities: [{ uid: principal, attrs, parents: [] }],
    };
  });
  return {
    name: 'cedar-wasm',
    run(times) {
      for (let i = 0; i < times; i++) for (const call of calls) kept = statefulIsAuthorized(call);
    },
    answer(index) {
      const answer = statefulIsAuthorized(at(calls, index));
      if (answer.type === 'failure') throw new Error(answer.errors.map(({ message }) => message).join('; '));
      const { decision, diagnostics } = answer.response;
      if (diagnostics.errors.length > 0) throw new Error(JSON.stringify(diagnostics.errors));
      return { level: decision === 'allow' ? 'limited' : 'disconnected', rules: diagnostics.reason };
    },
  };
}

function at<T>(list: readonly T[], index: number): T {
  const item = list[index];
  if (item === undefined) throw new Error(`there is no device ${index}`);
  return item;
}

/** The first device on which two engines differ, in words. */
function difference(engines: readonly Engine[]): string | null {
  const [first, ...others] = engines;
  const met = new Set<string>();
  for (let i = 0; i < DEVICES.length; i++) {
    const mine = first?.answer(i);
    for (const rule of mine?.rules ?? []) met.add(rule);
    for (const engine of others) {
      const theirs = engine.answer(i);
      // Cedar names every rule that forbids, the others the first that matches.
      const agree =
        mine?.level === theirs.level &&
        mine.rules.length === Math.min(theirs.rules.length, 1) &&
        mine.rules.every((rule) => theirs.rules.includes(rule));
      if (!agree) {
        return `device ${i}: ${first?.name} says ${JSON.stringify(mine)}, ${engine.name} ${JSON.stringify(theirs)}`;
      }
    }
  }
  return met.size === 20 ? null : `only ${met.size} of 20 rules decide a device`;
}

export const bench: Bench = {
  name: 'decisions',
  title: `20 rules, ${DEVICES.length} devices, one core`,
  unit: 'decisions',
  show: 'rate',
  async prepare() {
    const loaded = await readPolicy(join(fixtures, 'decisions.yaml'));
    const decoded = decodePolicy(loaded.documents);
    const problem = [...loaded.problems, ...decoded.problems][0];
    if (decoded.policy === undefined || problem !== undefined) throw new Error(problem?.message ?? 'no policy');
    const policy = compilePolicy(decoded.policy);
    const ours = [ourVerdict(policy), ourDecisions(policy)];
    const peers = [await openOpa(), openCedar()];
    const differs = difference([...ours, ...peers]);
    if (differs !== null) throw new Error(`the engines do not agree: ${differs}`);
    return { ours, peers, operations: DEVICES.length, close: async () => void kept };
  },
};
