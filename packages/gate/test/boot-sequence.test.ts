import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fail, ok } from '@airlock/core/result.ts';
import { type BootHands, boot } from '@airlock/gate/boot/sequence.ts';
import { packDocuments } from '@airlock/policy/document.ts';
import { parseSources } from '@airlock/policy/node-source.ts';
import { card, disk, type FakeMachine, type FakeMachineOptions, fakeMachine, MODULES, nvme } from './fake-machine.ts';

const POLICY = `version: 1
mode: enforce
default: disconnected
boot-critical: [root-disk]
rules:
  - id: root-disk
    match: { bus: virtio, type: block, serial: root }
    level: limited
  - id: nic
    match: { bus: virtio, type: net, hotplugged: false }
    level: limited
    features: { forbid: [RING_PACKED] }
`;

const DEVICES = [
  disk('0000:00:01.0', 'root'),
  card('0000:00:02.0'),
  nvme('0000:00:03.0'),
  disk('0000:00:04.0', 'other'),
];

interface Run {
  readonly machine: FakeMachine;
  readonly hands: BootHands;
  readonly printed: string[];
}

function prepare(options: Partial<FakeMachineOptions> = {}, policy: string | null = POLICY, mode?: string): Run {
  const machine = fakeMachine({ functions: DEVICES, modules: MODULES, ...options });
  const { tree } = machine.files;
  if (policy !== null) {
    tree.set('/airlock/policy.json', packDocuments(parseSources([{ file: 'test.yaml', text: policy }]).documents));
  }
  if (mode !== undefined) tree.set('/airlock/mode', mode);
  const printed: string[] = [];
  let clock = 0;
  const hands: BootHands = {
    files: machine.files,
    commands: machine.commands,
    readText: (path) => {
      const node = tree.get(path);
      return typeof node === 'string' ? ok(node) : fail('file-missing', `${path}: ENOENT`);
    },
    now: () => clock++,
    wait: async () => undefined,
    inodeOf: async ({ path }) => machine.inodes.get(path),
    print: (text) => void printed.push(text),
  };
  return { machine, hands, printed };
}

const drivers = (machine: FakeMachine) =>
  Object.fromEntries(
    ['0000:00:01.0', '0000:00:02.0', '0000:00:03.0', '0000:00:04.0'].map((at) => [
      at.slice(8, 10),
      machine.driverOf('pci', at),
    ]),
  );
const state = (machine: FakeMachine, name: string) =>
  JSON.parse(String(machine.files.tree.get(`/run/airlock/${name}`)));

test('exactly the allowed devices are bound, the disk with the wrong serial number is unbound again', async () => {
  const { machine, hands } = prepare();
  const done = await boot(hands);
  assert.ok(done.ok);
  assert.deepEqual(drivers(machine), { '01': 'virtio-pci', '02': 'virtio-pci', '03': null, '04': null });
  assert.equal(machine.files.tree.get('/sys/devices/pci0000:00/0000:00:03.0/driver_override'), 'none\n');
  assert.equal(machine.files.tree.get('/sys/devices/pci0000:00/0000:00:04.0/driver_override'), 'none\n');
  const enforcement = state(machine, 'enforcement.json') as {
    status: string;
    decision: { device: string; level: string };
  }[];
  assert.deepEqual(
    enforcement.map((one) => [one.decision.device, one.decision.level, one.status]),
    [
      ['pci:0000:00:01.0', 'limited', 'enforced'],
      ['pci:0000:00:02.0', 'limited', 'enforced'],
      ['pci:0000:00:03.0', 'disconnected', 'enforced'],
      ['pci:0000:00:04.0', 'disconnected', 'enforced'],
    ],
  );
  assert.deepEqual(state(machine, 'boot-devices.json').length, 4);
  assert.equal(state(machine, 'gate.json').mode, 'enforce');
});

test('no module is loaded for a device that no rule allows', async () => {
  const { machine, hands } = prepare();
  await boot(hands);
  const asked = machine.commands.calls.flatMap((call) => call.slice(2));
  assert.ok(asked.includes('virtio_blk'));
  assert.ok(!asked.some((name) => name.includes('nvme') || name.startsWith('pci:')), asked.join(' '));
});

test('the virtio bus is quiet before a driver is on it: 6.1, where a module brings the bus', async () => {
  const { machine, hands } = prepare({ release: '6.1.0-50-amd64' });
  await boot(hands);
  const order = machine.commands.calls.map((call) => call.slice(2).join(' '));
  assert.equal(order[0], 'virtio');
  const off = machine.files.writes.findIndex((one) => one.path === '/sys/bus/virtio/drivers_autoprobe');
  const bind = machine.files.writes.findIndex((one) => one.path.endsWith('/virtio-pci/bind'));
  assert.ok(off !== -1 && off < bind, `${off} ${bind}`);
});

test('what is plugged into the place of another device was not there at boot, whatever it says of itself', async () => {
  const { machine, hands } = prepare();
  const { files } = machine;
  let looks = 0;
  const replaced: BootHands = {
    ...hands,
    files: {
      ...files,
      list: async (path) => {
        // After the gate's first look, and before it binds: the same ids in the same place.
        if (path === '/sys/bus' && looks++ === 2) {
          machine.unplug('0000:00:02.0');
          machine.plug(card('0000:00:02.0'));
        }
        return files.list(path);
      },
    },
  };
  const done = await boot(replaced);
  assert.ok(done.ok);
  assert.ok(looks > 2);
  assert.equal(machine.driverOf('pci', '0000:00:02.0'), null);
  assert.deepEqual(state(machine, 'boot-devices.json'), ['pci:0000:00:01.0', 'pci:0000:00:03.0', 'pci:0000:00:04.0']);
});

test('what built-in drivers took before the gate is unbound', async () => {
  const { machine, hands } = prepare({
    builtin: { pci: ['virtio-pci', 'nvme'], virtio: ['virtio_blk', 'virtio_net'] },
  });
  assert.equal(machine.driverOf('pci', '0000:00:03.0'), 'nvme');
  const done = await boot(hands);
  assert.ok(done.ok);
  assert.deepEqual(drivers(machine), { '01': 'virtio-pci', '02': 'virtio-pci', '03': null, '04': null });
});

test('a forbidden feature that is negotiated unbinds the device and is a violation', async () => {
  const { machine, hands } = prepare({ functions: [disk('0000:00:01.0', 'root'), card('0000:00:02.0', [32, 33, 34])] });
  const done = await boot(hands);
  assert.ok(done.ok);
  assert.equal(machine.driverOf('pci', '0000:00:02.0'), null);
  const events = String(machine.files.tree.get('/run/airlock/events.ndjson'));
  assert.match(events, /"kind":"violation","device":"pci:0000:00:02.0","rule":"nic"/);
  const enforcement = state(machine, 'enforcement.json') as { decision: { device: string; reason: string } }[];
  assert.equal(enforcement.find((one) => one.decision.device.endsWith('02.0'))?.decision.reason, 'feature-forbidden');
});

for (const [what, policy] of [
  ['missing', null],
  ['with an error', 'version: 1\nmode: enforce\nrulez: []\n'],
] as const) {
  test(`a policy that is ${what}: disks that were there at boot, nothing else, and a loud report`, async () => {
    const { machine, hands, printed } = prepare({}, policy, 'audit');
    const done = await boot(hands);
    assert.ok(done.ok);
    assert.equal(done.value.mode, 'enforce', 'a mode file does not count without a policy');
    assert.deepEqual(drivers(machine), { '01': 'virtio-pci', '02': null, '03': 'nvme', '04': 'virtio-pci' });
    assert.match(printed.join(''), /!! .*\[policy-(missing|unusable)\]/);
    assert.ok(done.value.problems.length > 0);
  });
}

test('a policy file that is cut short is no policy', async () => {
  const { machine, hands } = prepare();
  const whole = String(machine.files.tree.get('/airlock/policy.json'));
  machine.files.tree.set('/airlock/policy.json', whole.slice(0, whole.length / 2));
  const done = await boot(hands);
  assert.ok(done.ok);
  assert.equal(done.value.problems[0]?.code, 'policy-unusable');
  assert.equal(machine.driverOf('pci', '0000:00:02.0'), null);
});

test('decisions that cannot be kept are not made: a full /run connects boot-critical devices only', async () => {
  const { machine, hands, printed } = prepare();
  const full: BootHands = {
    ...hands,
    files: { ...machine.files, save: async (path) => fail('file-io', `${path}: ENOSPC`) },
  };
  const done = await boot(full);
  assert.ok(done.ok);
  assert.deepEqual(drivers(machine), { '01': 'virtio-pci', '02': null, '03': null, '04': null });
  assert.match(printed.join(''), /ENOSPC.*\[state-unwritable\]/);
});

test('without modprobe only drivers that are there can be bound, and the rest is reported as failed', async () => {
  const { machine, hands, printed } = prepare({
    modprobe: false,
    builtin: { pci: ['virtio-pci'], virtio: ['virtio_blk'] },
  });
  const done = await boot(hands);
  assert.ok(done.ok);
  assert.equal(machine.driverOf('pci', '0000:00:01.0'), 'virtio-pci');
  assert.equal(machine.driverOf('virtio', 'virtio0'), 'virtio_blk');
  assert.match(printed.join(''), /\[modprobe-missing\]/);
});

test('without /sys nothing is handed over', async () => {
  const { hands } = prepare();
  const done = await boot({ ...hands, files: { ...hands.files, list: async (path) => fail('file-missing', path) } });
  assert.ok(!done.ok);
  assert.equal(done.error.code, 'sysfs-missing');
});

for (const mode of ['audit', 'learn'] as const) {
  test(`${mode}: decisions are written down and nothing is changed`, async () => {
    const { machine, hands } = prepare(
      { builtin: { pci: ['virtio-pci', 'nvme'], virtio: ['virtio_blk'] } },
      POLICY,
      `${mode}\n`,
    );
    const before = drivers(machine);
    const done = await boot(hands);
    assert.ok(done.ok);
    assert.deepEqual(drivers(machine), before);
    assert.deepEqual(machine.files.writes, []);
    assert.deepEqual(machine.commands.calls, []);
    assert.equal(state(machine, 'gate.json').mode, mode);
    assert.equal(state(machine, 'enforcement.json').length, 4);
  });
}

test('a mode that is no mode is no policy', async () => {
  const { hands } = prepare({}, POLICY, 'off');
  const done = await boot(hands);
  assert.ok(done.ok);
  assert.equal(done.value.problems[0]?.code, 'policy-unusable');
});

test('modules_disabled is last, read back, and reported', async () => {
  const { machine, hands } = prepare({}, `${POLICY}modules: { disable-loading: after-gate }\n`);
  const done = await boot(hands);
  assert.ok(done.ok);
  const last = machine.files.writes.at(-1);
  assert.deepEqual(last, { path: '/proc/sys/kernel/modules_disabled', data: '1' });
  assert.equal(done.value.machine.find((one) => one.property.includes('modules'))?.status, 'enforced');
});

test('a kernel that binds hot-plugged functions whatever autoprobe says is reported as one that cannot hold it', async () => {
  for (const [release, status] of [
    ['6.1.0-50-amd64', 'not-enforceable'],
    ['6.12.107+deb13-amd64', 'not-enforceable'],
    ['7.2.12+deb13-amd64', 'enforced'],
    ['who knows', 'not-enforceable'],
  ] as const) {
    const { hands } = prepare({ release });
    const done = await boot(hands);
    assert.ok(done.ok);
    const outcome = done.value.machine.find((one) => one.property.includes('hot-plugged'));
    assert.equal(outcome?.status, status, release);
    assert.equal(outcome?.because === undefined, status === 'enforced');
  }
});

test('an external engine cannot run in the gate: until the agent asked it, only boot-critical devices are connected', async () => {
  const { machine, hands } = prepare({}, `${POLICY}external: { opa: bundle.tar.gz, entrypoint: airlock/decision }\n`);
  const done = await boot(hands);
  assert.ok(done.ok, JSON.stringify(done));
  assert.deepEqual(done.value.problems, []);
  assert.deepEqual(drivers(machine), { '01': 'virtio-pci', '02': null, '03': null, '04': null });
});

test('words from devices reach the console as plain ASCII', async () => {
  const { hands, printed } = prepare({ functions: [disk('0000:00:01.0', '\x1b]0;owned\x07')] });
  await boot(hands);
  assert.doesNotMatch(printed.join(''), /[^\n\x20-\x7e]/);
});
