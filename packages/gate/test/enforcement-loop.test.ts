import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Decision } from '@airlock/core/decision.ts';
import type { Inventory } from '@airlock/core/device.ts';
import type { EventBody } from '@airlock/core/event.ts';
import { fail } from '@airlock/core/result.ts';
import { type EnforceInput, enforce } from '@airlock/gate/enforce.ts';
import { readInventory } from '@airlock/linux/inventory.ts';
import { card, disk, type FakeMachine, fakeMachine, MODULES, nvme } from './fake-machine.ts';

const decision = (device: string, level: Decision['level'], more: Partial<Decision> = {}): Decision => ({
  device,
  level,
  rule: { id: 'r', file: 'p.yaml', line: 1 },
  reason: 'rule-matched',
  detail: '',
  tier: 'claimed',
  inputs: [],
  changes: [],
  pending: [],
  grantable: 'disconnected',
  ...more,
});

function input(machine: FakeMachine, decide: EnforceInput['decide'], more: Partial<EnforceInput> = {}): EnforceInput {
  return {
    hands: { files: machine.files, commands: machine.commands, modprobe: ['/sbin/modprobe'] },
    look: () => readInventory(machine.files, { bootDevices: [], detail: 'decision' }),
    decide,
    act: true,
    wait: async () => undefined,
    ...more,
  };
}

const all =
  (level: Decision['level']): EnforceInput['decide'] =>
  (inventory: Inventory) =>
    inventory.devices.map((device) => decision(device.id, level));

test('a device that vanishes between the decision and the step is no error', async () => {
  const machine = fakeMachine({ functions: [disk('0000:00:01.0', 'a'), card('0000:00:02.0')], modules: MODULES });
  let looks = 0;
  const done = await enforce(
    input(machine, all('limited'), {
      look: async () => {
        const seen = await readInventory(machine.files, { bootDevices: [], detail: 'decision' });
        if (looks++ === 0) machine.unplug('0000:00:02.0');
        return seen;
      },
    }),
  );
  assert.ok(done.ok);
  const gone = done.value.enforcements.find((one) => one.decision.device === 'pci:0000:00:02.0');
  assert.equal(gone?.status, 'enforced');
  assert.match(gone?.outcomes[0]?.property ?? '', /gone/);
  assert.equal(machine.driverOf('pci', '0000:00:01.0'), 'virtio-pci');
});

test('a device that appears meanwhile is decided before it is bound, and cut off if denied', async () => {
  const machine = fakeMachine({
    release: '6.12.107',
    functions: [disk('0000:00:01.0', 'a')],
    modules: MODULES,
    builtin: { pci: ['virtio-pci', 'nvme'] },
  });
  let looks = 0;
  const done = await enforce(
    input(
      machine,
      (inventory) =>
        inventory.devices.map((one) => decision(one.id, one.type === 'block' ? 'limited' : 'disconnected')),
      {
        look: async () => {
          const seen = await readInventory(machine.files, { bootDevices: [], detail: 'decision' });
          if (looks++ === 0) machine.plug(nvme('0000:00:09.0'));
          return seen;
        },
      },
    ),
  );
  assert.ok(done.ok);
  assert.equal(machine.driverOf('pci', '0000:00:09.0'), null);
  assert.equal(done.value.enforcements.find((one) => one.decision.device === 'pci:0000:00:09.0')?.status, 'enforced');
});

test('decisions that never settle end in a disconnected device and a problem, not in a loop', async () => {
  const machine = fakeMachine({ functions: [disk('0000:00:01.0', 'a')], modules: MODULES });
  let calls = 0;
  const flapping: EnforceInput['decide'] = (inventory) =>
    inventory.devices.map((one) =>
      decision(one.id, 'limited', { drivers: [calls++ % 2 === 0 ? 'virtio_blk' : `other${calls}`] }),
    );
  const done = await enforce(input(machine, flapping));
  assert.ok(done.ok);
  assert.ok(calls < 50, String(calls));
  assert.equal(done.value.problems[0]?.code, 'enforcement-unsettled');
  assert.equal(done.value.enforcements[0]?.decision.level, 'disconnected');
  assert.equal(machine.driverOf('pci', '0000:00:01.0'), null);
});

test('what was refused after a look is not bound again to be looked at', async () => {
  const machine = fakeMachine({ functions: [disk('0000:00:01.0', 'wrong')], modules: MODULES });
  const notes: EventBody[] = [];
  const decide: EnforceInput['decide'] = (inventory, phase) =>
    inventory.devices.map((one) =>
      phase === 'before-bind' && one.serial === undefined
        ? decision(one.id, 'limited', { pending: ['serial'] })
        : decision(one.id, 'disconnected', { reason: 'default' }),
    );
  const first = await enforce(input(machine, decide, { note: (event) => notes.push(event) }));
  assert.ok(first.ok);
  assert.deepEqual([...first.value.refused.keys()], ['pci:0000:00:01.0']);
  assert.equal(machine.driverOf('pci', '0000:00:01.0'), null);
  machine.files.writes.length = 0;
  const second = await enforce(input(machine, decide, { refused: first.value.refused }));
  assert.ok(second.ok);
  assert.ok(!machine.files.writes.some((one) => one.path.endsWith('/bind')));
  assert.equal(second.value.enforcements[0]?.decision.reason, 'default');
});

test('a fact that a driver shows late is waited for, and not for ever', async () => {
  const machine = fakeMachine({ functions: [disk('0000:00:01.0', 'root')], modules: MODULES });
  let waits = 0;
  const late: EnforceInput['decide'] = (inventory, phase) =>
    inventory.devices.map((one) =>
      waits >= 3
        ? decision(one.id, 'limited')
        : phase === 'before-bind'
          ? decision(one.id, 'limited', { pending: ['serial'] })
          : decision(one.id, 'disconnected'),
    );
  const done = await enforce(input(machine, late, { wait: async () => void waits++ }));
  assert.ok(done.ok);
  assert.equal(done.value.enforcements[0]?.status, 'enforced');
  assert.equal(machine.driverOf('virtio', 'virtio0'), 'virtio_blk');

  const never = fakeMachine({ functions: [disk('0000:00:01.0', 'root')], modules: MODULES });
  let slept = 0;
  const always: EnforceInput['decide'] = (inventory, phase) =>
    inventory.devices.map((one) =>
      phase === 'before-bind' ? decision(one.id, 'limited', { pending: ['x'] }) : decision(one.id, 'disconnected'),
    );
  const ended = await enforce(
    input(never, always, {
      wait: async (time) => {
        slept += time;
      },
    }),
  );
  assert.ok(ended.ok);
  assert.ok(slept <= 2500, String(slept));
  assert.equal(never.driverOf('pci', '0000:00:01.0'), null);
});

test('an inventory that fails later is a problem, and what is reported is what was seen last', async () => {
  const machine = fakeMachine({ functions: [disk('0000:00:01.0', 'a')], modules: MODULES });
  let looks = 0;
  const done = await enforce(
    input(machine, all('disconnected'), {
      look: async () =>
        looks++ === 0
          ? readInventory(machine.files, { bootDevices: [], detail: 'decision' })
          : fail('bus-unreadable', '/sys/bus/pci/devices: EIO'),
    }),
  );
  assert.ok(done.ok);
  assert.ok(done.value.problems.some((one) => one.code === 'bus-unreadable'));
});

test('limited without bouncing is not enforceable, with the kernel fact', async () => {
  const statusOf = async (cmdline: string, features: readonly number[]) => {
    const machine = fakeMachine({ cmdline, functions: [card('0000:00:02.0', features)], modules: MODULES });
    const done = await enforce(input(machine, all('limited')));
    assert.ok(done.ok);
    const outcome = done.value.enforcements[0]?.outcomes.find((one) => one.property.startsWith('DMA'));
    return `${outcome?.status}: ${outcome?.because ?? ''}`;
  };
  assert.match(await statusOf('swiotlb=force', [32, 33]), /^enforced/);
  assert.match(await statusOf('quiet', [32, 33]), /^not-enforceable: .*swiotlb=force/);
  assert.match(await statusOf('swiotlb=force', [32]), /^not-enforceable: .*ACCESS_PLATFORM/);
});

test('without acting nothing is written, whatever was decided', async () => {
  const machine = fakeMachine({
    functions: [disk('0000:00:01.0', 'a')],
    builtin: { pci: ['virtio-pci'] },
    modules: MODULES,
  });
  const done = await enforce(input(machine, all('disconnected'), { act: false, disableModules: true }));
  assert.ok(done.ok);
  assert.deepEqual(machine.files.writes, []);
  assert.equal(done.value.enforcements[0]?.status, 'failed');
});
