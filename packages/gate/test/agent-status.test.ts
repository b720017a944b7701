import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BALLOON, type FakeMachine, fakeMachine, NIC, NVME, ROOT_DISK } from './agent-fake-machine.ts';
import { POLICY, startAgent } from './agent-harness.ts';

/** Counts looks at the whole machine. */
function countLooks(machine: FakeMachine): () => number {
  const { list } = machine.files;
  let looks = 0;
  Object.assign(machine.files, {
    list: (path: string) => {
      if (path === '/sys/bus') looks++;
      return list(path);
    },
  });
  return () => looks;
}

test('where all is as decided, status takes one look', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  const { agent, settle } = await startAgent(machine);
  t.after(() => agent.close('test'));
  await settle();
  const looks = countLooks(machine);
  await agent.status();
  assert.equal(looks(), 1);
});

test('what could not be done is not tried again for each who asks; what somebody undid is put right for him', async (t) => {
  // The driver does not take it.
  const machine = fakeMachine([ROOT_DISK, { ...NVME, driver: 'other' }, BALLOON]);
  const policy = POLICY.replace('class: nvme }\n    level: disconnected', 'class: nvme }\n    level: limited');
  assert.notEqual(policy, POLICY);
  const { agent, settle } = await startAgent(machine, { policy });
  t.after(() => agent.close('test'));
  assert.match(JSON.stringify((await settle()).devices), /failed/);
  const looks = countLooks(machine);
  await agent.status();
  assert.equal(looks(), 1);
  for (let i = 0; i < 3; i++) {
    machine.bind(BALLOON.slot);
    const status = await agent.status();
    assert.ok(status.ok);
    assert.equal(machine.driverOf(BALLOON.slot), null, `time ${i}`);
  }
});

test('what stood open between gate and agent is in the status, with what became of it', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC, BALLOON]);
  const first = await startAgent(machine);
  assert.deepEqual((await first.settle()).found, []);
  // A bus that nobody gates binds by itself, as it should.
  machine.files.tree.set('/sys/bus/platform/drivers_autoprobe', '1\n');
  await first.agent.close('test');
  machine.bind(BALLOON.slot);
  machine.plug(NVME);
  machine.bind(NVME.slot);
  machine.files.tree.set('/sys/bus/virtio/drivers_autoprobe', '1\n');
  const second = await startAgent(machine);
  t.after(() => second.agent.close('test'));
  assert.deepEqual(
    (await second.settle()).found.map(({ device, corrected }) => `${device} ${corrected}`),
    ['bus:virtio true', 'pci:0000:00:04.0 true', 'pci:0000:00:08.0 true'],
  );
});

test('what stood open and cannot be put right is not called so', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC, NVME]);
  const first = await startAgent(machine, { policy: POLICY });
  await first.agent.close('test');
  // A driver that cannot be taken off.
  machine.files.tree.set('/sys/devices/pci0000:00/0000:00:08.0/driver', { link: '../../../bus/pci/drivers/clings' });
  const second = await startAgent(machine);
  t.after(() => second.agent.close('test'));
  assert.deepEqual(
    (await second.settle()).found.map(({ device, corrected }) => `${device} ${corrected}`),
    ['pci:0000:00:08.0 false'],
  );
});
