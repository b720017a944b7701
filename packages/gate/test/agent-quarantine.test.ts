import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { addHold, type Hold, readHolds, writeHolds } from '../src/agent/holds.ts';
import { type FakeMachine, fakeMachine, NIC, ROOT_DISK } from './agent-fake-machine.ts';
import { levelOf, POLICY, startAgent } from './agent-harness.ts';

const ID = 'pci:0000:00:03.0';
const FOLDER = '/sys/devices/pci0000:00/0000:00:03.0';
const FILE = '/run/airlock/quarantine.json';
const on = (action: string) => `${POLICY}on: { needs-reset: [${action}] }\n`;
const QUARANTINE = on('quarantine');

async function misbehaving(machine: FakeMachine, policy = QUARANTINE) {
  const harness = await startAgent(machine, { policy });
  const status = [...machine.files.tree.keys()].find((path) => path.startsWith(FOLDER) && path.endsWith('/status'));
  assert.ok(status);
  machine.files.tree.set(status, '0x0000004f\n');
  await harness.settle();
  assert.equal(machine.driverOf(NIC.slot), null);
  return harness;
}

test('it survives the agent, is shown, and ends with the boot', async () => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  await (await misbehaving(machine)).agent.close('test');
  const second = await startAgent(machine, { policy: QUARANTINE });
  const status = await second.settle();
  assert.equal(levelOf(status, ID), 'disconnected enforced');
  assert.equal(status.holds[0]?.violation, 'needs-reset');
  assert.match(status.holds[0]?.detail ?? '', /0x4f: NEEDS_RESET/);
  await second.agent.close('test');
  machine.reboot();
  machine.files.tree.delete('/run/airlock/enforcement.json');
  const third = await startAgent(machine, { policy: QUARANTINE });
  assert.equal(machine.driverOf(NIC.slot), 'virtio_net');
  await third.agent.close('test');
});

test('allow does not lift it and says so; revoke does', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  const { agent, act } = await misbehaving(machine);
  t.after(() => agent.close('test'));
  for (const term of [{ kind: 'once' }, { kind: 'permanent' }] as const) {
    const answer = await act({ verb: 'allow', device: ID, term });
    assert.equal(answer.ok ? 'allowed' : answer.error.code, 'device-quarantined');
    assert.match(answer.ok ? '' : (answer.error.hint ?? ''), /--revoke/);
  }
  assert.equal(machine.driverOf(NIC.slot), null);
  const revoked = await act({ verb: 'revoke', device: ID });
  assert.ok(revoked.ok);
  assert.equal(revoked.value.result, 'revoked');
  assert.match(revoked.value.notes.join(), /the quarantine for needs-reset is lifted/);
  assert.equal(machine.driverOf(NIC.slot), 'virtio_net');
  assert.deepEqual(JSON.parse(String(machine.files.tree.get(FILE))).holds, []);
});

test('a block under a quarantine stays when the quarantine is lifted', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  const { agent, act } = await misbehaving(machine);
  t.after(() => agent.close('test'));
  await act({ verb: 'block', device: ID, permanent: false });
  const revoked = await act({ verb: 'revoke', device: ID });
  assert.match(revoked.ok ? revoked.value.notes.join() : '', /the block stays/);
  assert.equal(machine.driverOf(NIC.slot), null);
  await act({ verb: 'revoke', device: ID });
  assert.equal(machine.driverOf(NIC.slot), 'virtio_net');
});

test('what was only unbound an operator may allow, and is told why it was', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  const { agent, act } = await misbehaving(machine, on('unbind'));
  t.after(() => agent.close('test'));
  const answer = await act({ verb: 'allow', device: ID, term: { kind: 'once' } });
  assert.ok(answer.ok);
  assert.equal(answer.value.result, 'already-allowed');
  assert.match(answer.value.notes.join(), /kept unbound for needs-reset/);
  assert.equal(machine.driverOf(NIC.slot), 'virtio_net');
});

test('it ends when the device goes away, agent or not; what was taken off its bus stays out', async () => {
  for (const [action, level] of [
    ['quarantine', /^limited/],
    ['remove', /^disconnected enforced$/],
  ] as const) {
    for (const away of [false, true]) {
      const machine = fakeMachine([ROOT_DISK, NIC]);
      let harness = await misbehaving(machine, on(action));
      if (away) await harness.agent.close('test');
      if (action === 'quarantine') machine.unplug(NIC.slot);
      if (!away) await harness.settle();
      machine.plug(NIC);
      if (away) harness = await startAgent(machine, { policy: on(action) });
      assert.match(levelOf(await harness.settle(), ID), level, `${action} ${away}`);
      await harness.agent.close('test');
    }
  }
});

test('an event of a device that left before does not free the one that came', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  const { agent, settle } = await misbehaving(machine);
  t.after(() => agent.close('test'));
  machine.uevents.sendUevent('remove', '/devices/pci0000:00/0000:00:03.0', 'pci');
  const status = await settle();
  assert.equal(status.holds.length, 1);
  assert.equal(machine.driverOf(NIC.slot), null);
});

test('root that binds it is undone', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  const { agent, settle } = await misbehaving(machine);
  t.after(() => agent.close('test'));
  machine.bind(NIC.slot);
  const status = await settle();
  assert.equal(levelOf(status, ID), 'disconnected enforced');
  assert.equal(machine.driverOf(NIC.slot), null);
});

test('a broken file frees nothing that the last enforcement withheld, and is said', async () => {
  for (const text of ['', '{', '{"version":1,"boot":null,"holds":[{}]}', 'x'.repeat(2_000_000)]) {
    const machine = fakeMachine([ROOT_DISK, NIC]);
    await (await misbehaving(machine)).agent.close('test');
    machine.files.tree.set(FILE, text);
    const { agent, settle } = await startAgent(machine, { policy: QUARANTINE });
    const status = await settle();
    assert.equal(levelOf(status, ID), 'disconnected enforced');
    assert.match(JSON.stringify(status.problems), /quarantine/);
    await agent.close('test');
  }
});

test('what cannot be written down holds all the same, and is said', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  const { save } = machine.files;
  Object.assign(machine.files, {
    save: (path: string, data: string) =>
      path === FILE ? Promise.resolve({ ok: false, error: { code: 'file-io', message: 'ENOSPC' } }) : save(path, data),
  });
  const { agent, settle } = await misbehaving(machine);
  t.after(() => agent.close('test'));
  assert.match(JSON.stringify((await settle()).problems), /will not survive a restart: ENOSPC/);
});

test('what holds a device is not loosened by a later violation', () => {
  const hold = (action: Hold['action']): Hold => ({
    device: ID,
    action,
    violation: 'needs-reset',
    detail: '',
    since: 1,
  });
  assert.equal(addHold([hold('quarantine')], hold('unbind'))[0]?.action, 'quarantine');
  assert.equal(addHold([hold('unbind')], hold('remove'))[0]?.action, 'remove');
});

test('arbitrary text is never half a list, and what is written is read', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
      const read = readHolds(text, 'b');
      assert.ok(read.ok ? read.value.length >= 0 : read.error.code === 'hold-malformed');
    }),
  );
  const hold: Hold = { device: ID, action: 'halt', violation: 'iommu-fault', detail: 'x', since: 5, incarnation: '7' };
  const same = readHolds(writeHolds([hold], 'b'), 'b');
  assert.deepEqual(same.ok && same.value, [hold]);
  const other = readHolds(writeHolds([hold], 'b'), 'c');
  assert.deepEqual(other.ok && other.value, []);
});
