import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fail, ok } from '@airlock/core/result.ts';
import { boot } from '@airlock/gate/boot/sequence.ts';
import { packDocuments } from '@airlock/policy/document.ts';
import { parseSources } from '@airlock/policy/node-source.ts';
import { type Conduct, conductAs } from '../src/agent/conduct.ts';
import { BALLOON, fakeMachine, NVME, ROOT_DISK } from './agent-fake-machine.ts';
import { levelOf, POLICY, startAgent } from './agent-harness.ts';
import { disk, MODULES, nvme, fakeMachine as virginMachine } from './fake-machine.ts';

const LEARN = { mode: 'learn', learnFor: 1800, enforce: true } as const;
const NVME_ID = 'pci:0000:00:08.0';
/** What somebody wants done to a device that is driven against the policy. */
const ANSWERED = `${POLICY}on:\n  driver-violation: [quarantine, halt]\n`;

/** The machine of a kernel that bound everything by itself, as a gate that only learns leaves it. */
function learntMachine() {
  const machine = fakeMachine([ROOT_DISK, BALLOON, NVME]);
  for (const { slot } of [ROOT_DISK, BALLOON, NVME]) machine.bind(slot);
  return machine;
}

test('learning touches nothing; when its time is over the policy is enforced in the next turn, and that is said', async (t) => {
  const machine = learntMachine();
  const conduct = conductAs(LEARN, 100_000);
  const { agent, settle, of, act, commands } = await startAgent(machine, { conduct, policy: ANSWERED });
  t.after(() => agent.close('test'));
  const writes = machine.files.writes.length;
  machine.setUptime(1799.99);
  const learning = await settle();
  assert.deepEqual([learning.mode, learning.enforcing], ['learn', false]);
  assert.deepEqual(machine.files.writes.slice(writes), []);
  assert.equal(machine.driverOf(NVME.slot), 'nvme');
  const refused = await act({ verb: 'block', device: NVME_ID, permanent: false });
  assert.equal(
    refused.ok ? 'blocked' : refused.error.message,
    "the policy's mode is learn until 30m after boot: the agent only watches",
  );
  assert.deepEqual(of('mode-changed'), []);
  const told = of('violation').length;

  machine.setUptime(1800);
  const enforced = await settle();
  assert.deepEqual([enforced.mode, enforced.enforcing], ['enforce', true]);
  assert.equal(machine.driverOf(NVME.slot), null);
  assert.equal(machine.driverOf(BALLOON.slot), null);
  assert.equal(machine.driverOf(ROOT_DISK.slot), 'virtio_blk');
  assert.equal(levelOf(enforced, NVME_ID), 'disconnected enforced');
  assert.deepEqual(
    of('mode-changed').map(({ mode, enforcing, because }) => [mode, enforcing, because]),
    [['enforce', true, 'its time is over']],
  );
  assert.equal(of('violation').length, told, "the end of learning is nobody's violation");
  assert.ok(commands.calls.every(([program]) => program !== 'poweroff'));
  const blocked = await act({ verb: 'block', device: NVME_ID, permanent: false });
  assert.equal(blocked.ok && blocked.value.result, 'blocked');
});

test('learning ends by the clock, without an event that would make the agent look', async (t) => {
  const machine = learntMachine();
  machine.setUptime(1799.95);
  const { agent, of } = await startAgent(machine, { conduct: conductAs(LEARN, 1_799_950) });
  t.after(() => agent.close('test'));
  assert.equal(machine.driverOf(NVME.slot), 'nvme');
  machine.setUptime(1800);
  while (of('mode-changed').length === 0 || agent.turns < 2) await new Promise((go) => setTimeout(go, 5));
  await agent.status();
  assert.equal(machine.driverOf(NVME.slot), null);
});

test('an agent that may not enforce says that learning is over and still touches nothing', async (t) => {
  const machine = learntMachine();
  const { agent, settle, of } = await startAgent(machine, { conduct: conductAs({ ...LEARN, enforce: false }, 0) });
  t.after(() => agent.close('test'));
  const writes = machine.files.writes.length;
  machine.setUptime(1800);
  const status = await settle();
  assert.deepEqual([status.mode, status.enforcing], ['enforce', false]);
  assert.deepEqual(machine.files.writes.slice(writes), []);
  assert.deepEqual(
    of('mode-changed').map(({ enforcing }) => enforcing),
    [false],
  );
});

test('without a clock learning is over, and what is over does not begin again', () => {
  const until = (conduct: Conduct) => [conduct.mode, conduct.enforcing, conduct.changesAt];
  assert.deepEqual(until(conductAs(LEARN, null)), ['enforce', true, undefined]);
  const conduct = conductAs(LEARN, 0);
  assert.deepEqual(until(conduct), ['learn', false, 1_800_000]);
  assert.equal(conduct.advance(1_799_999), false);
  assert.equal(conduct.advance(null), true);
  assert.equal(conduct.advance(0), false);
  assert.deepEqual(until(conduct), ['enforce', true, undefined]);
  assert.deepEqual(until(conductAs({ mode: 'learn', enforce: true }, 0)), ['learn', false, 1_800_000]);
  for (const mode of ['audit', 'enforce'] as const) {
    const fixed = conductAs({ mode, enforce: true }, 0);
    assert.equal(fixed.advance(1e12), false);
    assert.deepEqual(until(fixed), [mode, mode === 'enforce', undefined]);
  }
});

for (const [milliseconds, mode, driver] of [
  [3000, 'learn', 'nvme'],
  [1_800_000, 'enforce', null],
] as const) {
  test(`the gate, ${milliseconds} ms after boot, with a policy that learns for 30 minutes: ${mode}`, async () => {
    const machine = virginMachine({
      functions: [disk('0000:00:01.0', 'root'), nvme('0000:00:03.0')],
      modules: MODULES,
      builtin: { pci: ['nvme'] },
    });
    const text = POLICY.replace('mode: enforce', 'mode: learn\nlearn: { for: 30m }');
    const packed = packDocuments(parseSources([{ file: 'test.yaml', text }]).documents);
    const done = await boot({
      files: machine.files,
      commands: machine.commands,
      readText: (path) => (path === '/airlock/policy.json' ? ok(packed) : fail('file-missing', path)),
      now: () => milliseconds,
      inodeOf: async () => undefined,
      wait: async () => undefined,
      print: () => undefined,
    });
    assert.ok(done.ok);
    assert.equal(done.value.mode, mode);
    assert.equal(machine.driverOf('pci', '0000:00:03.0'), driver);
  });
}
