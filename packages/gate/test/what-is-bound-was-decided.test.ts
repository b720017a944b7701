/** Between a decision and what is bound by it: types that nobody knew, looks that fail, slots that are filled anew. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Inventory } from '@airlock/core/device.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { type EnforceInput, enforce } from '@airlock/gate/enforce.ts';
import { readInventory } from '@airlock/linux/inventory.ts';
import { compilePolicy } from '@airlock/policy/compile.ts';
import { decide } from '@airlock/policy/decide.ts';
import { decodePolicy } from '@airlock/policy/decode.ts';
import { parseSources } from '@airlock/policy/node-source.ts';
import { card, disk, type FakeMachine, fakeMachine, MODULES } from './fake-machine.ts';

function decider(rules: string): EnforceInput['decide'] {
  const { policy, problems } = decodePolicy(
    parseSources([{ file: 'policy.yaml', text: `version: 1\nrules:\n${rules}` }]).documents,
  );
  assert.deepEqual(problems, []);
  assert.ok(policy);
  const compiled = compilePolicy(policy);
  return (inventory, phase) => decide(compiled, inventory, {}, { phase });
}

const look = (machine: FakeMachine): Promise<Result<Inventory>> =>
  readInventory(machine.files, { bootDevices: [], detail: 'decision' });

function run(machine: FakeMachine, decide: EnforceInput['decide'], more: Partial<EnforceInput> = {}) {
  return enforce({
    hands: { files: machine.files, commands: machine.commands, modprobe: ['/sbin/modprobe'] },
    look: () => look(machine),
    decide,
    act: true,
    wait: async () => undefined,
    ...more,
  });
}

/** A transitional function (VIRTIO 1.3 §4.1.2.1) that does not say of which type it is: the child below it does. */
function untyped(machine: FakeMachine, address: string): void {
  const { tree } = machine.files;
  const path = `/sys/devices/pci0000:00/${address}`;
  tree.set(
    `${path}/modalias`,
    String(tree.get(`${path}/modalias`))
      .replace(/d0000[0-9A-F]{4}/, 'd00001000')
      .replace('sv00001AF4sd00001100', 'sv00000000sd00000000'),
  );
}

const boundTo = (machine: FakeMachine, driver: string) =>
  machine.files.writes.filter(
    ({ path }) => path === `/sys/bus/virtio/drivers/${driver}/bind` || path === '/sys/bus/virtio/drivers_probe',
  );

test('a device that hides its type gets no driver of a type that no rule allows, not even to be looked at', async () => {
  const machine = fakeMachine({
    functions: [card('0000:00:02.0')],
    modules: MODULES,
    builtin: { virtio: ['virtio_net', 'virtio_blk'] },
  });
  untyped(machine, '0000:00:02.0');
  const done = await run(machine, decider('  - { id: disks, match: { bus: virtio, type: block }, level: limited }\n'));
  assert.ok(done.ok);
  assert.deepEqual(boundTo(machine, 'virtio_net'), []);
  assert.equal(machine.driverOf('pci', '0000:00:02.0'), null);
  assert.equal(done.value.enforcements[0]?.decision.level, 'disconnected');
  assert.equal(done.value.enforcements[0]?.status, 'enforced');
  // Nor is it asked again in the next run, with its transport bound each time.
  assert.deepEqual([...done.value.refused.keys()], ['pci:0000:00:02.0']);
});

for (const features of ['', ', features: { forbid: [RING_PACKED] }']) {
  test(`a device that hides its type is bound once that shows and a rule allows it${features}`, async () => {
    const machine = fakeMachine({ functions: [disk('0000:00:02.0', 'root')], modules: MODULES });
    untyped(machine, '0000:00:02.0');
    const rule = `  - { id: disks, match: { bus: virtio, type: block }, level: limited${features} }\n`;
    const done = await run(machine, decider(rule));
    assert.ok(done.ok);
    assert.equal(machine.driverOf('virtio', 'virtio0'), 'virtio_blk');
    assert.equal(done.value.enforcements[0]?.status, 'enforced', JSON.stringify(done.value.enforcements[0]));
  });
}

test('a rule that asks for no type binds a device that hides its own, with features as it says', async () => {
  const bits = { good: [32, 33], bad: [32, 33, 34] };
  for (const [name, features] of Object.entries(bits)) {
    const machine = fakeMachine({ functions: [card('0000:00:02.0', features)], modules: MODULES });
    untyped(machine, '0000:00:02.0');
    const rule = '  - { id: any, match: { bus: virtio }, level: limited, features: { forbid: [RING_PACKED] } }\n';
    const done = await run(machine, decider(rule));
    assert.ok(done.ok);
    assert.equal(machine.driverOf('virtio', 'virtio0'), name === 'good' ? 'virtio_net' : null, name);
  }
});

test('a device that was bound to be looked at is let go when nobody can look', async () => {
  const machine = fakeMachine({ functions: [disk('0000:00:02.0', 'wrong')], modules: MODULES });
  let looks = 0;
  const rule = '  - { id: root, match: { bus: virtio, type: block, serial: root }, level: limited }\n';
  const done = await run(machine, decider(rule), {
    look: async () => (looks++ === 0 ? look(machine) : fail('inventory-too-large', '/sys/bus/pci/devices: 20001')),
  });
  assert.ok(done.ok);
  assert.equal(machine.driverOf('pci', '0000:00:02.0'), null);
  assert.equal(machine.files.tree.get('/sys/devices/pci0000:00/0000:00:02.0/driver_override'), 'none\n');
  assert.equal(done.value.enforcements[0]?.decision.level, 'disconnected');
  assert.ok(done.value.problems.some(({ code }) => code === 'inventory-too-large'));
});

test('one look that fails costs nobody anything', async () => {
  const machine = fakeMachine({ functions: [disk('0000:00:02.0', 'root')], modules: MODULES });
  let looks = 0;
  const rule = '  - { id: root, match: { bus: virtio, type: block, serial: root }, level: limited }\n';
  const done = await run(machine, decider(rule), {
    look: async () => (looks++ === 1 ? fail('bus-unreadable', '/sys/bus/pci/devices: EIO') : look(machine)),
  });
  assert.ok(done.ok);
  assert.equal(machine.driverOf('virtio', 'virtio0'), 'virtio_blk');
  assert.deepEqual(done.value.problems, []);
  assert.deepEqual(ok(done.value.enforcements[0]?.status), ok('enforced'));
});
