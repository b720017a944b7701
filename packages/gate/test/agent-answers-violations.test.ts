import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ACTIONS, type Action, CARRIED_OUT, NOTICED, type Violation } from '@airlock/policy/policy.ts';
import type { Attestation } from '../src/agent/attester.ts';
import { conductAs } from '../src/agent/conduct.ts';
import { BALLOON, type FakeMachine, fakeMachine, NIC, NVME, ROOT_DISK } from './agent-fake-machine.ts';
import { type Harness, levelOf, POLICY, startAgent } from './agent-harness.ts';

const ID = 'pci:0000:00:03.0';
const FOLDER = '/sys/devices/pci0000:00/0000:00:03.0';

const withOn = (violation: Violation, actions: readonly Action[]) =>
  `${POLICY}on: { ${violation}: [${actions.join(', ')}] }\n`;
const virtioOf = (machine: FakeMachine) =>
  [...machine.files.tree.keys()].find((path) => path.startsWith(`${FOLDER}/virtio`) && path.endsWith('/status')) ?? '';
const writesTo = (machine: FakeMachine, end: string) => machine.files.writes.filter(({ path }) => path.endsWith(end));
const responses = ({ of }: Harness) =>
  of('response').map(({ device, violation, action, outcome }) => `${device} ${violation} ${action} ${outcome.status}`);

/** How each violation comes about on a network card that was let in. Resolves once it was noticed. */
const PROVOKE: Readonly<Partial<Record<Violation, (machine: FakeMachine, harness: Harness) => Promise<void>>>> = {
  async 'needs-reset'(machine, { settle }) {
    machine.files.tree.set(virtioOf(machine), '0x0000004f\n');
    await settle();
  },
  async 'feature-violation'(machine, { settle }) {
    const features = virtioOf(machine).replace('/status', '/features');
    const before = String(machine.files.tree.get(features));
    machine.files.tree.set(features, `${before.slice(0, 34)}1${before.slice(35)}`);
    await settle();
  },
  async 'driver-violation'(machine, { settle }) {
    const link = virtioOf(machine).replace('/status', '/driver');
    machine.files.tree.set(link, { link: '../../../../bus/virtio/drivers/virtio_balloon' });
    await settle();
  },
  async 'identity-change'(machine, { settle }) {
    machine.files.tree.set(`${FOLDER}/revision`, '0x07\n');
    await settle();
  },
  async 'device-timeout'(machine, { settle }) {
    const status = virtioOf(machine);
    const before = machine.files.tree.get(status) ?? '';
    machine.files.tree.set(status, { fails: 'file-timeout' });
    await settle();
    machine.setUptime(110);
    await settle();
    if (machine.files.tree.has(status)) machine.files.tree.set(status, before);
  },
  async 'attestation-failure'(_machine, { of, settle }) {
    while (!of('violation').some(({ violation }) => violation === 'attestation-failure')) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await settle();
  },
};
/** Fails when it is asked for the second time, and is honest again from then on. */
function failingOnce(): Attestation {
  let times = 0;
  return {
    attest: async ({ id }) => {
      const tier = ++times === 2 ? 'claimed' : 'attested';
      return { way: 'answered', claim: { device: id, tier, because: 'a test' } };
    },
    wants: ({ id }) => id === ID,
    givesLess: () => true,
    every: 50,
  };
}
/** The rule must name its driver, so that another one is a violation. */
const DRIVERS = POLICY.replace(
  'level: limited\n    features: { forbid: [RING_PACKED] }',
  'level: limited\n    features: { forbid: [RING_PACKED] }\n    drivers: [virtio_net]',
);
const PROOF = DRIVERS.replace(
  'level: limited\n    features',
  'level: limited\n    require: { identity: attested }\n    features',
);
const policyFor = (violation: Violation, actions: readonly Action[]) =>
  `${violation === 'attestation-failure' ? PROOF : DRIVERS}on: { ${violation}: [${actions.join(', ')}] }\n`;

test('every violation that is said to be noticed can be brought about here', () => {
  assert.deepEqual(Object.keys(PROVOKE).sort(), [...NOTICED].sort());
});

for (const violation of NOTICED) {
  for (const action of ACTIONS) {
    test(`${violation} is answered with ${action}`, async (t) => {
      const machine = fakeMachine([ROOT_DISK, NIC]);
      const proven = violation === 'attestation-failure' ? { attestation: failingOnce() } : {};
      const harness = await startAgent(machine, { policy: policyFor(violation, [action]), ...proven });
      t.after(() => harness.agent.close('test'));
      await harness.agent.asked();
      await harness.settle();
      assert.equal(machine.driverOf(NIC.slot), 'virtio_net');
      await PROVOKE[violation]?.(machine, harness);
      const { of, settle, commands } = harness;
      const told = of('violation').filter((one) => one.device === ID && one.violation === violation);
      assert.ok(told.length >= 1, 'it is told');
      assert.deepEqual(told[0]?.answer, [action]);
      const status = await settle();
      const said = responses(harness);
      const lacking = harness.of('response').some(({ outcome }) => outcome.status === 'not-enforceable');
      assert.equal(lacking, !CARRIED_OUT.includes(action), 'what policies are told is carried out is');
      const one = (outcome: string) => [`${ID} ${violation} ${action} ${outcome}`];
      switch (action) {
        case 'log':
          assert.deepEqual(said, []);
          break;
        case 'reset':
          assert.deepEqual(said, one('enforced'));
          assert.equal(writesTo(machine, `${NIC.slot}/reset`).length, 1);
          assert.equal(machine.driverOf(NIC.slot), 'virtio_net', 'decided again');
          assert.deepEqual(status.holds, []);
          break;
        case 'unbind':
        case 'quarantine':
          assert.deepEqual(said, one('enforced'));
          assert.equal(levelOf(status, ID), 'disconnected enforced');
          assert.equal(machine.driverOf(NIC.slot), null);
          assert.equal(status.devices.find(({ device }) => device === ID)?.reason, 'withheld');
          assert.deepEqual(
            status.holds.map((hold) => `${hold.device} ${hold.action} ${hold.violation}`),
            [`${ID} ${action} ${violation}`],
          );
          break;
        case 'remove':
          assert.deepEqual(said, one('enforced'));
          assert.equal(levelOf(status, ID), 'absent');
          machine.plug(NIC);
          assert.equal(levelOf(await settle(), ID), 'disconnected enforced', 'what comes back there stays out');
          break;
        case 'halt':
          assert.deepEqual(commands.calls.at(-1), ['poweroff', '-f', '-f']);
          assert.equal(commands.calls.filter(([name]) => name === 'poweroff').length, 1);
          assert.deepEqual(said, one('failed'), 'whoever can read it knows that it did not work');
          assert.equal(levelOf(status, ID), 'disconnected enforced');
          break;
        case 'revoke-keys':
          assert.deepEqual(said, one('not-enforceable'));
          break;
      }
      assert.equal(machine.driverOf(ROOT_DISK.slot), 'virtio_blk', 'nobody else is touched');
      if (action !== 'halt') assert.ok(!commands.calls.some(([name]) => name === 'poweroff'));
    });
  }
}

test('an agent that only watches tells the violation, says that it answers nothing, and writes nothing', async (t) => {
  for (const action of ['reset', 'unbind', 'quarantine', 'remove', 'halt'] as const) {
    const machine = fakeMachine([ROOT_DISK, NIC]);
    machine.bind(NIC.slot);
    const writes = machine.files.writes.length;
    const harness = await startAgent(machine, { policy: withOn('needs-reset', [action]), enforcing: false });
    t.after(() => harness.agent.close('test'));
    await PROVOKE['needs-reset']?.(machine, harness);
    assert.deepEqual(responses(harness), [`${ID} needs-reset ${action} not-enforceable`]);
    assert.deepEqual(machine.files.writes.slice(writes), []);
    assert.deepEqual(harness.commands.calls, []);
    assert.deepEqual((await harness.settle()).holds, []);
  }
});

test('several actions are done in their order: reset, then kept out', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  const harness = await startAgent(machine, {
    policy: withOn('needs-reset', ['log', 'revoke-keys', 'reset', 'quarantine']),
  });
  t.after(() => harness.agent.close('test'));
  await PROVOKE['needs-reset']?.(machine, harness);
  assert.deepEqual(responses(harness), [
    `${ID} needs-reset revoke-keys not-enforceable`,
    `${ID} needs-reset reset enforced`,
    `${ID} needs-reset quarantine enforced`,
  ]);
  assert.equal(machine.driverOf(NIC.slot), null);
});

test('a function without a reset is unbound and bound again, and the missing reset is said', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  machine.files.tree.delete(`${FOLDER}/reset`);
  const harness = await startAgent(machine, { policy: withOn('needs-reset', ['reset']) });
  t.after(() => harness.agent.close('test'));
  await PROVOKE['needs-reset']?.(machine, harness);
  assert.deepEqual(responses(harness), [`${ID} needs-reset reset not-enforceable`]);
  assert.equal(machine.driverOf(NIC.slot), 'virtio_net');
  assert.equal(machine.files.tree.get(virtioOf(machine)), '0x0000000f\n');
});

test('a function that does not come back from its reset is kept unbound', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  machine.files.onWrite(/\/reset$/, () => {
    machine.files.tree.set(`${FOLDER}/config`, new Uint8Array(256).fill(0xff));
    return undefined;
  });
  const harness = await startAgent(machine, { policy: withOn('needs-reset', ['reset']) });
  t.after(() => harness.agent.close('test'));
  await PROVOKE['needs-reset']?.(machine, harness);
  assert.deepEqual(responses(harness), [`${ID} needs-reset reset failed`]);
  assert.equal(machine.driverOf(NIC.slot), null);
  assert.match((await harness.settle()).holds[0]?.detail ?? '', /NEEDS_RESET/);
});

test('a device that needs a reset again and again is reset three times, then kept out', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  const harness = await startAgent(machine, { policy: withOn('needs-reset', ['reset']) });
  t.after(() => harness.agent.close('test'));
  for (let i = 0; i < 8; i++) {
    if (virtioOf(machine) !== '') await PROVOKE['needs-reset']?.(machine, harness);
  }
  assert.equal(writesTo(machine, `${NIC.slot}/reset`).length, 3);
  assert.equal(machine.driverOf(NIC.slot), null);
  assert.match(harness.of('response').at(-1)?.outcome.because ?? '', /reset 3 times in 10 minutes/);
  assert.equal((await harness.settle()).holds[0]?.action, 'reset');
});

test('an offence that goes on is told and answered once, however often it is looked at', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  const harness = await startAgent(machine, { policy: withOn('needs-reset', ['log', 'revoke-keys']) });
  t.after(() => harness.agent.close('test'));
  for (let i = 0; i < 20; i++) await PROVOKE['needs-reset']?.(machine, harness);
  assert.equal(harness.of('violation').length, 1);
  assert.equal(harness.of('response').length, 1);
  machine.files.tree.set(virtioOf(machine), '0x0000000f\n');
  await harness.settle();
});

test('the status is polled without any event; what it shows is answered', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  const harness = await startAgent(machine, { policy: withOn('needs-reset', ['quarantine']), poll: 1 });
  t.after(() => harness.agent.close('test'));
  machine.files.tree.set(virtioOf(machine), '0x0000008f\n');
  for (let i = 0; i < 500 && machine.driverOf(NIC.slot) !== null; i++) await new Promise((go) => setTimeout(go, 1));
  assert.equal(machine.driverOf(NIC.slot), null);
  assert.match(harness.of('violation')[0]?.detail ?? '', /FAILED/);
});

test('ids in configuration space that differ from a moment before are noticed by the poll; silence there is not', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC, NVME]);
  const harness = await startAgent(machine, { policy: withOn('identity-change', ['quarantine']), poll: 1 });
  t.after(() => harness.agent.close('test'));
  const polls = () => new Promise((go) => setTimeout(go, 30));
  await polls();
  machine.files.tree.set(`${FOLDER}/config`, new Uint8Array(256).fill(0xff));
  machine.files.tree.set('/sys/devices/pci0000:00/0000:00:02.0/config', { fails: 'file-denied' });
  await polls();
  assert.deepEqual(harness.of('violation'), []);
  const other = new Uint8Array(256);
  other.set([0xf4, 0x1a, 0x41, 0x10, 0, 0, 0, 0, 9, 0, 0, 2]);
  machine.files.tree.set(`${FOLDER}/config`, other);
  for (let i = 0; i < 500 && machine.driverOf(NIC.slot) !== null; i++) await new Promise((go) => setTimeout(go, 1));
  assert.equal(machine.driverOf(NIC.slot), null);
  assert.match(harness.of('violation')[0]?.detail ?? '', /revision 01.*revision 09/);
});

test('a read that is late once, or late while the clock does not answer, is held against nobody', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  const harness = await startAgent(machine, { policy: withOn('device-timeout', ['quarantine']) });
  t.after(() => harness.agent.close('test'));
  const status = virtioOf(machine);
  const well = machine.files.tree.get(status) ?? '';
  const late = { fails: 'file-timeout' };
  for (let i = 1; i < 5; i++) {
    machine.files.tree.set(status, late);
    await harness.settle();
    machine.files.tree.set(status, well);
    machine.setUptime(100 + 10 * i);
    await harness.settle();
  }
  machine.files.tree.set(status, late);
  machine.files.tree.set('/proc/uptime', late);
  await harness.settle();
  await harness.settle();
  assert.deepEqual(harness.of('violation'), []);
  assert.equal(machine.driverOf(NIC.slot), 'virtio_net');
});

test('a link to a driver that could not be read is no driver: told, and nobody is punished', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC, NVME]);
  const harness = await startAgent(machine, { policy: withOn('driver-violation', ['remove']) });
  t.after(() => harness.agent.close('test'));
  machine.files.tree.set('/sys/devices/pci0000:00/0000:00:08.0/driver', { fails: 'file-timeout' });
  await harness.settle();
  assert.deepEqual(responses(harness), []);
  assert.ok(machine.files.tree.has('/sys/devices/pci0000:00/0000:00:08.0/vendor'));
});

test('what was bound before any gate or agent decided is put right and not answered; behind the agent it is', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC, NVME]);
  machine.bind(NVME.slot);
  const harness = await startAgent(machine, { policy: withOn('driver-violation', ['halt']) });
  t.after(() => harness.agent.close('test'));
  assert.equal(machine.driverOf(NVME.slot), null);
  assert.ok(!harness.commands.calls.some(([name]) => name === 'poweroff'));
  assert.deepEqual((await harness.settle()).found, []);
  machine.bind(NVME.slot);
  await harness.settle();
  assert.ok(harness.commands.calls.some(([name]) => name === 'poweroff'));
});

test('a grant that ends and a block are nobody\u2019s violation', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC, BALLOON]);
  const harness = await startAgent(machine, { policy: withOn('driver-violation', ['halt']) });
  t.after(() => harness.agent.close('test'));
  const device = 'pci:0000:00:04.0';
  await harness.act({ verb: 'allow', device, term: { kind: 'timed', lasts: 60_000 } });
  assert.equal(machine.driverOf(BALLOON.slot), 'virtio_balloon');
  machine.setUptime(500);
  await harness.settle();
  assert.equal(machine.driverOf(BALLOON.slot), null);
  await harness.act({ verb: 'block', device: ID, permanent: false });
  await harness.settle();
  assert.equal(machine.driverOf(NIC.slot), null);
  assert.deepEqual(harness.of('violation'), []);
  assert.deepEqual(responses(harness), []);
});

test('what the policy asks for and nobody notices or does is shown as a hole', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  const policy = `${POLICY}on: { ring-violation: [quarantine], needs-reset: [revoke-keys], device-timeout: [log] }\n`;
  const harness = await startAgent(machine, { policy });
  t.after(() => harness.agent.close('test'));
  const holes = (await harness.settle()).machine.filter(({ property }) => property.includes('answered with'));
  assert.deepEqual(
    holes.map(({ property, status }) => `${property}: ${status}`),
    [
      'ring-violation answered with quarantine: not-enforceable',
      'needs-reset answered with revoke-keys: not-enforceable',
    ],
  );
});

test('a storm of devices that come, misbehave and go stays bounded, and the next device is served', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC], { autobinds: true });
  const harness = await startAgent(machine, { policy: withOn('driver-violation', ['quarantine']) });
  t.after(() => harness.agent.close('test'));
  for (let round = 0; round < 10; round++) {
    for (let i = 0; i < 16; i++) machine.plug({ ...NVME, slot: `0000:00:1${i.toString(16)}.0` });
    await harness.settle();
    for (let i = 0; i < 16; i++) machine.unplug(`0000:00:1${i.toString(16)}.0`);
    await harness.settle();
  }
  const status = await harness.settle();
  assert.deepEqual(status.holds, [], 'quarantine ends with the device');
  assert.ok(harness.of('violation').length <= 10 * 16 * 2);
  machine.plug({ ...NVME, slot: '0000:00:1f.0' });
  const last = await harness.settle();
  assert.equal(levelOf(last, 'pci:0000:00:1f.0'), 'disconnected enforced');
  assert.equal(last.holds.length, 1);
});

test('what goes on when learning ends is answered then; what was merely bound meanwhile is put right', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC, NVME]);
  machine.bind(ROOT_DISK.slot);
  machine.bind(NIC.slot);
  machine.bind(NVME.slot);
  const conduct = conductAs({ mode: 'learn', learnFor: 200, enforce: true }, 100_000);
  const policy = `${POLICY}on: { needs-reset: [quarantine], driver-violation: [halt] }\n`;
  const harness = await startAgent(machine, { policy, conduct });
  t.after(() => harness.agent.close('test'));
  await PROVOKE['needs-reset']?.(machine, harness);
  assert.deepEqual(responses(harness), [`${ID} needs-reset quarantine not-enforceable`]);
  machine.setUptime(201);
  const status = await harness.settle();
  assert.equal(responses(harness).at(-1), `${ID} needs-reset quarantine enforced`);
  assert.equal(status.holds.length, 1);
  assert.equal(machine.driverOf(NVME.slot), null);
  assert.ok(!harness.commands.calls.some(([name]) => name === 'poweroff'));
});
