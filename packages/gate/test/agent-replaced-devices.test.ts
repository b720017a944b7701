/** A host that takes a device out and plugs another one into its place. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { packDocuments } from '@airlock/policy/document.ts';
import { parseSources } from '@airlock/policy/node-source.ts';
import type { Agent } from '../src/agent/agent.ts';
import { loadBootDevices } from '../src/agent/boot-devices.ts';
import { readStanding } from '../src/agent/standing.ts';
import { type FakeMachine, fakeMachine, NIC, NVME, ROOT_DISK } from './agent-fake-machine.ts';
import { levelOf, POLICY, startAgent } from './agent-harness.ts';

const AT_BOOT_ONLY = POLICY.replace('rules:', 'platform: { forbid: [hotplug] }\nrules:');

const packed = (text: string) => packDocuments(parseSources([{ file: 'policy.yaml', text }]).documents);

/** What the gate leaves of a machine as it stands. */
function afterGate(machine: FakeMachine, options: { inodes?: boolean } = {}): void {
  const slots = [...machine.incarnations.keys()].map((path) => path.slice(path.lastIndexOf('/') + 1));
  const inodes = [...machine.incarnations].map(([path, inode]) => [
    `pci:${path.slice(path.lastIndexOf('/') + 1)}`,
    String(inode),
  ]);
  machine.files.tree.set('/run/airlock/boot-devices.json', JSON.stringify(slots.map((slot) => `pci:${slot}`)));
  if (options.inodes !== false) {
    machine.files.tree.set('/run/airlock/boot-inodes.json', JSON.stringify(Object.fromEntries(inodes)));
  }
}

/** The turn after which none begins before the gap is over. */
async function lastTurn(machine: FakeMachine, agent: Agent): Promise<void> {
  const before = agent.turns;
  machine.uevents.sendUevent('change', `/devices/pci0000:00/${ROOT_DISK.slot}`, 'pci');
  while (agent.turns === before) await sleep(1);
}

test('what is plugged into the place of an allowed device is held before anybody looked at it', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC], { autobinds: true });
  // No turn comes in time: what happens here happens before a look.
  const { agent } = await startAgent(machine, { gap: 60_000 });
  t.after(() => agent.close('test'));
  assert.equal(machine.driverOf(NIC.slot), 'virtio_net');
  await lastTurn(machine, agent);
  machine.unplug(NIC.slot);
  machine.plug({ ...NVME, slot: NIC.slot });
  assert.equal(machine.driverOf(NIC.slot), 'nvme');
  await sleep(20);
  assert.equal(machine.driverOf(NIC.slot), null);
  assert.equal(machine.files.tree.get(`/sys/devices/pci0000:00/${NIC.slot}/driver_override`), 'none');
});

test('the same device plugged in again is let in again', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC], { autobinds: true });
  const { agent, settle } = await startAgent(machine);
  t.after(() => agent.close('test'));
  machine.unplug(NIC.slot);
  machine.plug(NIC);
  const status = await settle();
  assert.equal(machine.driverOf(NIC.slot), 'virtio_net');
  assert.equal(levelOf(status, `pci:${NIC.slot}`), 'limited enforced');
});

test('an event that a program made takes nothing from a device that stands', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  const { agent } = await startAgent(machine, { gap: 60_000 });
  t.after(() => agent.close('test'));
  await lastTurn(machine, agent);
  const path = `/devices/pci0000:00/${ROOT_DISK.slot}`;
  // udevadm trigger --action=remove, then add
  for (const action of ['remove', 'add', 'bind'] as const) {
    machine.uevents.sendUevent(action, path, 'pci', { SYNTH_UUID: '0' });
  }
  await sleep(20);
  assert.equal(machine.driverOf(ROOT_DISK.slot), 'virtio_blk');
});

for (const inodes of [true, false]) {
  test(`forbid: [hotplug] holds for a place that was filled at boot (inode numbers of the gate: ${inodes})`, async (t) => {
    const machine = fakeMachine([ROOT_DISK, NIC]);
    afterGate(machine, { inodes });
    const { agent, settle } = await startAgent(machine, { policy: AT_BOOT_ONLY });
    t.after(() => agent.close('test'));
    assert.equal(levelOf(await settle(), `pci:${NIC.slot}`), 'limited enforced');
    machine.unplug(NIC.slot);
    machine.plug(NIC);
    assert.equal(levelOf(await settle(), `pci:${NIC.slot}`), 'disconnected enforced');
    assert.equal(machine.driverOf(NIC.slot), null);
    assert.equal(machine.driverOf(ROOT_DISK.slot), 'virtio_blk');
    const left = await loadBootDevices(machine.files);
    assert.deepEqual([...(left?.keys() ?? [])], [`pci:${ROOT_DISK.slot}`]);
  });
}

test('what was exchanged between gate and agent was not there at boot', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  afterGate(machine);
  machine.unplug(NIC.slot);
  machine.plug(NIC);
  const { agent, settle } = await startAgent(machine, { policy: AT_BOOT_ONLY });
  t.after(() => agent.close('test'));
  assert.equal(levelOf(await settle(), `pci:${NIC.slot}`), 'disconnected enforced');
  assert.equal(machine.driverOf(NIC.slot), null);
});

test('without an agent, what stands in the place of an allowed device is not called held', async () => {
  const machine = fakeMachine([ROOT_DISK, NIC], { autobinds: true });
  machine.files.tree.set('/run/airlock/policy.json', packed(POLICY));
  const { agent } = await startAgent(machine);
  await agent.close('test');
  const statusOf = async () => {
    const standing = await readStanding(machine.files);
    assert.ok(standing.ok);
    return levelOf(standing.value, `pci:${NIC.slot}`);
  };
  assert.equal(await statusOf(), 'limited enforced');
  machine.unplug(NIC.slot);
  machine.plug({ ...NVME, slot: NIC.slot });
  assert.equal(machine.driverOf(NIC.slot), 'nvme');
  assert.equal(await statusOf(), 'disconnected failed');
});

test('inode numbers of another form are not known; ids of another form say that no gate ran', async () => {
  const machine = fakeMachine([]);
  const { tree } = machine.files;
  tree.set('/run/airlock/boot-devices.json', '["pci:a","pci:b"]');
  tree.set('/run/airlock/boot-inodes.json', '{"pci:a":"12","pci:b":12,"__proto__":"1"}');
  assert.deepEqual(
    [...((await loadBootDevices(machine.files)) ?? [])],
    [
      ['pci:a', '12'],
      ['pci:b', null],
    ],
  );
  for (const text of ['{}', '[1]', '', '["a"']) {
    tree.set('/run/airlock/boot-devices.json', text);
    assert.equal(await loadBootDevices(machine.files), undefined, text);
  }
});
