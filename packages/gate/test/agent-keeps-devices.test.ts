import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BALLOON, fakeMachine, NIC, NVME, ROOT_DISK } from './agent-fake-machine.ts';
import { levelOf, startAgent } from './agent-harness.ts';

test('at its start the agent binds what is allowed and holds what is not', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC, BALLOON, NVME]);
  const { agent, settle } = await startAgent(machine);
  t.after(() => agent.close('test'));
  assert.equal(machine.driverOf(ROOT_DISK.slot), 'virtio_blk');
  assert.equal(machine.driverOf(NIC.slot), 'virtio_net');
  assert.equal(machine.driverOf(BALLOON.slot), null);
  assert.equal(machine.driverOf(NVME.slot), null);
  const status = await settle();
  assert.equal(levelOf(status, 'pci:0000:00:08.0'), 'disconnected enforced');
  assert.equal(machine.files.tree.get('/sys/devices/pci0000:00/0000:00:08.0/driver_override'), 'none');
});

test('what was done between gate and agent is undone, and said', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC, BALLOON]);
  const first = await startAgent(machine);
  await first.agent.close('test');
  machine.bind(BALLOON.slot);
  machine.plug(NVME);
  machine.bind(NVME.slot);
  const { agent, of } = await startAgent(machine);
  t.after(() => agent.close('test'));
  assert.equal(machine.driverOf(BALLOON.slot), null);
  assert.equal(machine.driverOf(NVME.slot), null);
  const violations = of('violation').map(({ device, detail }) => `${device} ${detail}`);
  assert.equal(violations.length, 2);
  assert.match(violations[0] ?? '', /00:04\.0 between the last enforcement and the agent: .*virtio_balloon/);
  assert.match(violations[1] ?? '', /00:08\.0 came before the agent started: .*nvme/);
  assert.deepEqual(
    of('device-added').map(({ device }) => device),
    ['pci:0000:00:08.0'],
  );
});

test('a denied function that the kernel binds at hot-plug is unbound at once, held, and told', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC], { autobinds: true });
  const { agent, settle, of } = await startAgent(machine);
  t.after(() => agent.close('test'));
  machine.plug(NVME);
  assert.equal(machine.driverOf(NVME.slot), 'nvme', 'the kernel was first');
  const status = await settle();
  assert.equal(machine.driverOf(NVME.slot), null);
  assert.equal(levelOf(status, 'pci:0000:00:08.0'), 'disconnected enforced');
  assert.equal(of('violation').length, 1);
  assert.match(of('device-added')[0]?.what ?? '', /nvme.*1b36:0010/);
  const hole = status.machine.find(({ property }) => property.includes('hot-plugged'));
  assert.equal(hole?.status, 'not-enforceable');
});

test('an allowed device that is plugged in is bound; gone, it is no error', async (t) => {
  const machine = fakeMachine([ROOT_DISK]);
  const { agent, settle, of } = await startAgent(machine);
  t.after(() => agent.close('test'));
  machine.plug(NIC);
  await settle();
  assert.equal(machine.driverOf(NIC.slot), 'virtio_net');
  machine.unplug(NIC.slot);
  const status = await settle();
  assert.equal(levelOf(status, 'pci:0000:00:03.0'), 'absent');
  assert.deepEqual(
    of('device-removed').map(({ device }) => device),
    ['pci:0000:00:03.0'],
  );
  assert.deepEqual(status.problems, []);
});

test('a driver bound behind our back is unbound, an unbound one is bound again', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC, BALLOON]);
  const { agent, settle, of } = await startAgent(machine);
  t.after(() => agent.close('test'));
  machine.bind(BALLOON.slot);
  await settle();
  assert.equal(machine.driverOf(BALLOON.slot), null);
  assert.match(of('violation').at(-1)?.detail ?? '', /bound to virtio-pci, but it is denied/);
  const child = machine.files.tree.has('/sys/bus/virtio/devices/virtio1') ? 'virtio1' : 'virtio0';
  await machine.files.write('/sys/bus/virtio/drivers/virtio_net/unbind', child);
  assert.equal(machine.driverOf(NIC.slot), null);
  await settle();
  assert.equal(machine.driverOf(NIC.slot), 'virtio_net');
});

test('a device that shows a forbidden feature once bound is let go, and not bound again to look again', async (t) => {
  const packed = { ...NIC, virtio: { id: 1, driver: 'virtio_net', bits: [32, 33, 34] } };
  const machine = fakeMachine([ROOT_DISK, packed]);
  const { agent, settle, of } = await startAgent(machine);
  t.after(() => agent.close('test'));
  assert.equal(machine.driverOf(NIC.slot), null);
  const binds = () => machine.files.writes.filter(({ path }) => path.endsWith('/virtio_net/bind')).length;
  const before = binds();
  assert.equal(before, 1);
  await settle();
  machine.uevents.sendUevent('change', '/devices/pci0000:00/0000:00:03.0', 'pci');
  const status = await settle();
  assert.equal(binds(), before);
  assert.equal(levelOf(status, 'pci:0000:00:03.0'), 'disconnected enforced');
  assert.match(of('violation')[0]?.detail ?? '', /RING_PACKED/);
});

test('a swapped device is judged anew: what its predecessor was refused for does not count against it', async (t) => {
  const packed = { ...NIC, revision: 3, virtio: { id: 1, driver: 'virtio_net', bits: [32, 33, 34] } };
  const machine = fakeMachine([ROOT_DISK, packed]);
  const { agent, settle } = await startAgent(machine);
  t.after(() => agent.close('test'));
  assert.equal(machine.driverOf(NIC.slot), null);
  machine.unplug(NIC.slot);
  machine.plug(NIC);
  await settle();
  assert.equal(machine.driverOf(NIC.slot), 'virtio_net');
});

test('without --enforce nothing is written but the state', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC, BALLOON, NVME]);
  machine.bind(BALLOON.slot);
  const writes = machine.files.writes.length;
  const { agent, settle, of, act, commands } = await startAgent(machine, { enforcing: false });
  t.after(() => agent.close('test'));
  machine.plug({ ...NVME, slot: '0000:00:09.0' });
  const status = await settle();
  assert.deepEqual(machine.files.writes.slice(writes), []);
  assert.deepEqual(commands.calls, []);
  assert.equal(levelOf(status, 'pci:0000:00:04.0'), 'disconnected failed');
  assert.equal(of('violation').length, 1, 'it says what is wrong');
  for (const verb of ['block', 'reject', 'revoke'] as const) {
    const answer = await act({ verb, device: 'pci:0000:00:04.0', permanent: false });
    assert.equal(answer.ok ? 'done' : answer.error.code, 'agent-only-watches', verb);
  }
  assert.deepEqual(machine.files.writes.slice(writes), []);
});

test('an inventory that cannot be read is told once and does not end the agent', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  const { agent, settle, of } = await startAgent(machine);
  t.after(() => agent.close('test'));
  machine.files.tree.set('/sys/bus/pci/devices', { fails: 'file-io' });
  const broken = await settle();
  assert.equal(broken.problems.length, 1);
  assert.equal(of('policy-problem').length, 1);
  machine.files.tree.delete('/sys/bus/pci/devices');
  machine.bind(NIC.slot);
  const whole = await settle();
  assert.deepEqual(whole.problems, []);
});

test('a function that was plugged in is held before the machine is looked at, and bound again where it is allowed', async (t) => {
  const machine = fakeMachine([ROOT_DISK], { autobinds: true });
  const { agent, settle, of } = await startAgent(machine, { gap: 50 });
  t.after(() => agent.close('test'));
  // Nobody can look at anything, for as long as this holds.
  const { list } = machine.files;
  let open = (): void => undefined;
  const closed = new Promise<void>((resolve) => {
    open = resolve;
  });
  Object.assign(machine.files, {
    list: async (path: string) => {
      await closed;
      return list(path);
    },
  });
  machine.plug(NVME);
  machine.plug(NIC);
  for (let i = 0; i < 50 && machine.driverOf(NVME.slot) !== null; i++) await new Promise((go) => setTimeout(go, 1));
  assert.equal(machine.driverOf(NVME.slot), null);
  assert.equal(machine.files.tree.get('/sys/devices/pci0000:00/0000:00:08.0/driver_override'), 'none');
  open();
  await settle();
  assert.equal(machine.driverOf(NIC.slot), 'virtio_net');
  assert.equal(machine.driverOf(NVME.slot), null);
  assert.match(
    of('violation')
      .map(({ detail }) => detail)
      .join(),
    /the kernel bound it to nvme before anybody decided/,
  );
});

test('a synthetic add event of a device that is known takes nothing from it', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  const { agent, settle } = await startAgent(machine);
  t.after(() => agent.close('test'));
  const writes = machine.files.writes.length;
  for (const one of [ROOT_DISK, NIC]) machine.uevents.sendUevent('add', `/devices/pci0000:00/${one.slot}`, 'pci');
  machine.uevents.sendUevent('add', '/devices/pci0000:00/0000:00:1f.9', 'pci');
  machine.uevents.sendUevent('add', '/devices/pci0000:00/..', 'pci');
  await settle();
  assert.deepEqual(machine.files.writes.slice(writes), []);
});

test('a bus that was made to bind by itself again is stopped, and that is told', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  const { agent, settle, of } = await startAgent(machine);
  t.after(() => agent.close('test'));
  machine.files.tree.set('/sys/bus/virtio/drivers_autoprobe', '1\n');
  await settle();
  assert.match(String(machine.files.tree.get('/sys/bus/virtio/drivers_autoprobe')), /^0/);
  assert.deepEqual(
    of('violation').map(({ device }) => device),
    ['bus:virtio'],
  );
});

test('a feature that turns up on a bound device is a violation, and the device is let go', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  const { agent, settle, of } = await startAgent(machine);
  t.after(() => agent.close('test'));
  const features = '/sys/devices/pci0000:00/0000:00:03.0/virtio1/features';
  const before = String(machine.files.tree.get(features));
  machine.files.tree.set(features, `${before.slice(0, 34)}1${before.slice(35)}`);
  const status = await settle();
  assert.equal(levelOf(status, 'pci:0000:00:03.0'), 'disconnected enforced');
  assert.match(of('device-changed')[0]?.what ?? '', /negotiated RING_PACKED/);
  assert.equal(machine.driverOf(NIC.slot), null);
});

test('a device that asks for a reset, or failed, is told', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  const { agent, settle, of } = await startAgent(machine);
  t.after(() => agent.close('test'));
  await settle();
  machine.files.tree.set('/sys/devices/pci0000:00/0000:00:03.0/virtio1/status', '0x000000cf\n');
  await settle();
  assert.match(
    of('device-changed')
      .map(({ what }) => what)
      .join(),
    /status 0xcf: NEEDS_RESET, FAILED/,
  );
});

test('a denied device that somebody binds is let go before the machine is looked at; one that was just granted is not', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NVME, BALLOON]);
  const { agent, settle, of, act } = await startAgent(machine, { gap: 10_000 });
  t.after(() => agent.close('test'));
  machine.bind(NVME.slot);
  for (let i = 0; i < 100 && machine.driverOf(NVME.slot) !== null; i++) await new Promise((go) => setTimeout(go, 1));
  assert.equal(machine.driverOf(NVME.slot), null);
  assert.equal(machine.files.tree.get('/sys/devices/pci0000:00/0000:00:08.0/driver_override'), 'none');
  assert.equal(of('violation').length, 1);
  const answer = await act({ verb: 'allow', device: 'pci:0000:00:04.0', term: { kind: 'once' } });
  assert.equal(answer.ok ? answer.value.result : answer.error.code, 'allowed');
  await settle();
  assert.equal(machine.driverOf(BALLOON.slot), 'virtio_balloon');
});
