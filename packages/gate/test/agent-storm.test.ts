import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ok } from '@airlock/core/result.ts';
import { fakeCommands } from '@airlock/linux/fake-commands.ts';
import type { Uevent } from '@airlock/transport/uevent.ts';
import { startSeizing } from '../src/agent/seize.ts';
import { type Occasion, REASONS, REMOVED_LIMIT, startTurns } from '../src/agent/turns.ts';
import { fakeMachine, NIC, NVME, ROOT_DISK } from './agent-fake-machine.ts';
import { levelOf, startAgent } from './agent-harness.ts';

const uevent = (action: Uevent['action'], devpath: string, subsystem = 'pci'): Uevent => ({
  action,
  devpath,
  subsystem,
  values: new Map(),
});

test('10,000 events become a few turns, and what is left in the end is as decided', async (t) => {
  const machine = fakeMachine([ROOT_DISK], { autobinds: true });
  const { agent, settle, events } = await startAgent(machine, { gap: 20 });
  t.after(() => agent.close('test'));
  const before = agent.turns;
  for (let i = 0; i < 2500; i++) {
    machine.plug(NVME);
    machine.unplug(NVME.slot);
    if (i % 250 === 0) await sleep(1);
  }
  machine.plug(NVME);
  machine.plug(NIC);
  assert.ok(agent.waiting <= 3, `${agent.waiting} wait`);
  const status = await settle();
  assert.ok(agent.turns - before < 100, `${agent.turns - before} turns`);
  assert.ok(events.length < 2000, `${events.length} events`);
  assert.equal(machine.driverOf(NVME.slot), null);
  assert.equal(machine.driverOf(NIC.slot), 'virtio_net');
  assert.equal(levelOf(status, 'pci:0000:00:08.0'), 'disconnected enforced');
});

test('a hundred functions plugged in at once are all held before anybody looks at them', async () => {
  const machine = fakeMachine([], { autobinds: true });
  const slots = Array.from({ length: 100 }, (_, i) => `00${(i + 16).toString(16)}:00:00.0`);
  const seizing = startSeizing({
    hands: { files: machine.files, commands: fakeCommands({}), modprobe: null },
    known: () => false,
    depart: () => undefined,
    denied: () => true,
    blame: () => assert.fail(),
    note: () => undefined,
  });
  machine.uevents.start((notice) => {
    if (notice.kind === 'uevent') seizing.hear(notice.uevent);
  });
  for (const slot of slots) machine.plug({ ...NVME, slot });
  assert.equal(machine.driverOf(slots[99] ?? ''), 'nvme', 'as Linux before 7.0 does');
  // One that left again is nobody's any more.
  machine.unplug(slots[98] ?? '');
  await seizing.rest();
  assert.deepEqual(
    slots.filter((slot) => machine.driverOf(slot) !== null),
    [],
  );
});

test('what is remembered of a storm is bounded', async () => {
  const occasions: Occasion[] = [];
  const turns = startTurns(
    async (occasion) => void occasions.push(occasion),
    1,
    () => assert.fail(),
  );
  for (let i = 0; i < 10_000; i++) turns.note(uevent('remove', `/devices/pci0000:00/${i}`));
  for (let i = 0; i < 10_000; i++) turns.note(uevent('add', `/devices/virtual/tty/${i}`, 'tty'));
  await sleep(20);
  await turns.close();
  assert.equal(occasions.length, 1);
  assert.equal(occasions[0]?.count, 10_000, 'a tty is no I/O device');
  assert.ok((occasions[0]?.removed.size ?? 0) <= REMOVED_LIMIT);
  assert.ok((occasions[0]?.reasons.length ?? 0) <= REASONS);
});

test('a bus that comes with a module binds by itself until somebody looks: its coming is a reason to look', async () => {
  const occasions: Occasion[] = [];
  const turns = startTurns(
    async (occasion) => void occasions.push(occasion),
    1,
    () => assert.fail(),
  );
  turns.note(uevent('add', '/bus/virtio', 'bus'));
  await sleep(20);
  await turns.close();
  assert.equal(occasions.length, 1);
});

test('turns and requests never overlap, and too many requests are refused', async () => {
  let inside = 0;
  const alone = async () => {
    assert.equal(++inside, 1);
    await sleep(1);
    inside--;
  };
  const turns = startTurns(alone, 0, () => assert.fail());
  turns.lookAgain('test');
  const answers = await Promise.all(
    Array.from({ length: 100 }, () =>
      turns.between(async () => {
        await alone();
        return ok(1);
      }),
    ),
  );
  const refused = answers.filter((answer) => !answer.ok);
  assert.ok(refused.length >= 36 && refused.length < 100, String(refused.length));
  assert.ok(refused.every((answer) => !answer.ok && answer.error.code === 'agent-busy'));
  await turns.close();
  const late = await turns.between(async () => ok(1));
  assert.equal(late.ok ? 'taken' : late.error.code, 'agent-stopping');
});

test('work that throws is told and does not hold up the next', async () => {
  const failures: unknown[] = [];
  const turns = startTurns(
    async () => {
      throw new Error('turn');
    },
    0,
    (failure) => failures.push(failure),
  );
  turns.lookAgain('test');
  await sleep(5);
  const broken = await turns.between(async () => {
    throw new Error('request');
  });
  assert.equal(broken.ok ? 'done' : broken.error.code, 'agent-failed');
  const next = await turns.between(async () => ok('next'));
  assert.deepEqual(next, { ok: true, value: 'next' });
  assert.equal(failures.length, 2);
  await turns.close();
});
