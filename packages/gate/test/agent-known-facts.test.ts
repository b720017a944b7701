import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fakeMachine, NIC, ROOT_DISK } from './agent-fake-machine.ts';
import { levelOf, POLICY, startAgent } from './agent-harness.ts';

const ID = 'pci:0000:00:02.0';
const SERIAL = '/sys/devices/pci0000:00/0000:00:02.0/virtio0/block/vda/serial';
const late = { fails: 'file-timeout', message: 'no answer in 1000 ms' };

test('a disk that is slow to repeat its serial number is not taken from under the machine', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  const { agent, settle } = await startAgent(machine);
  t.after(() => agent.close('test'));
  machine.files.tree.set(SERIAL, late);
  const status = await settle();
  assert.equal(machine.driverOf(ROOT_DISK.slot), 'virtio_blk');
  assert.match(levelOf(status, ID), /^limited/);
});

test('nor when the agent starts after the gate and cannot read it', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  const first = await startAgent(machine);
  await first.agent.close('test');
  machine.files.tree.set(SERIAL, late);
  const { agent, settle } = await startAgent(machine);
  t.after(() => agent.close('test'));
  const status = await settle();
  assert.equal(machine.driverOf(ROOT_DISK.slot), 'virtio_blk');
  assert.match(status.devices.find(({ device }) => device === ID)?.detail ?? '', /held: what it rests on/);
  // Read once and found to be another: nothing is held any more.
  machine.files.tree.set(SERIAL, 'evil');
  assert.equal(levelOf(await settle(), ID), 'disconnected enforced');
});

test('a policy that never lets the device in holds at once, whatever can be read', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  const first = await startAgent(machine);
  await first.agent.close('test');
  machine.files.tree.set(SERIAL, late);
  const policy = POLICY.replace(
    'type: block, serial: root }\n    level: limited',
    'type: block }\n    level: disconnected',
  );
  assert.notEqual(policy, POLICY);
  const { agent, settle } = await startAgent(machine, { policy });
  t.after(() => agent.close('test'));
  assert.equal(levelOf(await settle(), ID), 'disconnected enforced');
});

test('what was known ends with the binding: bound again, it must show it again', async (t) => {
  const machine = fakeMachine([ROOT_DISK]);
  const { agent, settle } = await startAgent(machine);
  t.after(() => agent.close('test'));
  machine.unplug(ROOT_DISK.slot);
  // However often it is bound from now on.
  machine.plug({ ...ROOT_DISK, serial: late });
  machine.bind(ROOT_DISK.slot);
  assert.equal(levelOf(await settle(), ID), 'disconnected enforced');
});

test('a serial number that changes while bound is another device', async (t) => {
  const machine = fakeMachine([ROOT_DISK]);
  const { agent, settle } = await startAgent(machine);
  t.after(() => agent.close('test'));
  machine.files.tree.set(SERIAL, 'other');
  assert.equal(levelOf(await settle(), ID), 'disconnected enforced');
});
