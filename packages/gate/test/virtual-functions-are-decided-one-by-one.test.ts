/** SR-IOV: virtual functions that user space makes get no driver before each was decided on, whatever the kernel. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Decision } from '@airlock/core/decision.ts';
import type { Device, Inventory } from '@airlock/core/device.ts';
import type { Step } from '@airlock/core/plan.ts';
import { applyPlan } from '@airlock/gate/apply.ts';
import { type Enforced, enforce } from '@airlock/gate/enforce.ts';
import { planFor } from '@airlock/gate/plan.ts';
import { virtualFunctionOutcomes } from '@airlock/gate/virtual-functions.ts';
import { fakeFiles } from '@airlock/linux/fake-files.ts';
import { readInventory } from '@airlock/linux/inventory.ts';
import { card, type FakeMachine, fakeMachine, MODULES } from './fake-machine.ts';

const PHYSICAL = '0000:00:01.0';
const FIRST = '0000:00:01.1';
const SECOND = '0000:00:01.2';
const SWITCH = `/sys/devices/pci0000:00/${PHYSICAL}/sriov_drivers_autoprobe`;
const COUNT = `/sys/devices/pci0000:00/${PHYSICAL}/sriov_numvfs`;

type Levels = Readonly<Record<string, Decision['level']>>;

const decision = (device: string, level: Decision['level']): Decision => ({
  ...{ device, level, rule: null, reason: 'default', detail: '', tier: 'claimed' },
  ...{ inputs: [], changes: [], pending: [], grantable: 'disconnected' },
});

const decideBy =
  (levels: Levels) =>
  ({ devices }: Inventory): Decision[] =>
    devices.map(({ id, location }) => decision(id, levels[location] ?? 'disconnected'));

async function enforced(machine: FakeMachine, levels: Levels, act = true): Promise<Enforced> {
  const done = await enforce({
    hands: { files: machine.files, commands: machine.commands, modprobe: ['/sbin/modprobe'] },
    look: () => readInventory(machine.files, { bootDevices: [], detail: 'decision' }),
    decide: decideBy(levels),
    act,
    wait: async () => undefined,
  });
  assert.ok(done.ok, JSON.stringify(done));
  return done.value;
}

const switchOf = ({ machine }: Enforced) =>
  machine.find(({ property }) => property.startsWith('nothing binds by itself to virtual functions'))?.status;
const overrideOf = (machine: FakeMachine, address: string) =>
  String(machine.files.tree.get(`/sys/devices/pci0000:00/${address}/driver_override`)).trim();

for (const release of ['6.1.0', '6.12.107', '7.2.12']) {
  test(`Linux ${release}: one virtual function is let in, its neighbour is not, and neither was bound before`, async () => {
    const machine = fakeMachine({
      release,
      functions: [{ ...card(PHYSICAL), virtuals: 2 }],
      modules: MODULES,
      builtin: { pci: ['virtio-pci'], virtio: ['virtio_net'] },
    });
    const before = await enforced(machine, { [PHYSICAL]: 'limited' });
    assert.equal(switchOf(before), 'enforced');
    await machine.files.write(COUNT, '2');
    assert.deepEqual(
      [FIRST, SECOND].map((address) => machine.driverOf('pci', address)),
      [null, null],
    );
    const after = await enforced(machine, { [PHYSICAL]: 'limited', [FIRST]: 'limited' });
    assert.deepEqual(
      [FIRST, SECOND].map((address) => machine.driverOf('pci', address)),
      ['virtio-pci', null],
    );
    assert.deepEqual([overrideOf(machine, FIRST), overrideOf(machine, SECOND)], ['virtio-pci', 'none']);
    assert.deepEqual(
      after.enforcements.map(({ decision: { device }, status }) => `${device} ${status}`),
      [`pci:${PHYSICAL} enforced`, `pci:${FIRST} enforced`, `pci:${SECOND} enforced`],
    );
    assert.equal(after.inventory.devices[1]?.nodes[1]?.driver, 'virtio_net');
    const gone = await enforced(machine, { [PHYSICAL]: 'limited' });
    assert.equal(machine.driverOf('pci', FIRST), null, 'and it is taken off again when it is denied');
    assert.equal(gone.problems.length, 0);
  });
}

test('without the switch Linux before 7.2 binds them as they are made', async () => {
  const machine = fakeMachine({
    release: '6.12.107',
    functions: [{ ...card(PHYSICAL), virtuals: 1 }],
    builtin: { pci: ['virtio-pci'] },
  });
  await machine.files.write('/sys/bus/pci/drivers_autoprobe', '0');
  await machine.files.write(COUNT, '1');
  assert.equal(machine.driverOf('pci', FIRST), 'virtio-pci');
});

test('where only the kernel knows the driver, the switch is on for no longer than that', async () => {
  const machine = fakeMachine({
    release: '6.12.107',
    functions: [{ ...card(PHYSICAL), vendor: 0x8086, device: 0x10ca, driver: 'igbvf', virtuals: 2 }].map(
      ({ virtio: _, ...plain }) => plain,
    ),
    builtin: { pci: ['igbvf'] },
  });
  await enforced(machine, { [PHYSICAL]: 'limited' });
  await machine.files.write(COUNT, '2');
  machine.files.writes.length = 0;
  const after = await enforced(machine, { [PHYSICAL]: 'limited', [SECOND]: 'limited' });
  assert.deepEqual(
    [FIRST, SECOND].map((address) => machine.driverOf('pci', address)),
    [null, 'igbvf'],
  );
  assert.deepEqual(
    machine.files.writes.filter(({ path }) => path === SWITCH).map(({ data }) => data),
    ['1', '0'],
  );
  assert.equal(switchOf(after), 'enforced');
});

test('while the switch is on, virtual functions that nobody has decided on yet are held', async () => {
  const machine = fakeMachine({
    release: '6.12.107',
    functions: [{ ...card(PHYSICAL), vendor: 0x8086, device: 0x10ca, driver: 'igbvf', virtuals: 3 }].map(
      ({ virtio: _, ...plain }) => plain,
    ),
    builtin: { pci: ['igbvf'] },
  });
  await machine.files.write('/sys/bus/pci/drivers_autoprobe', '0');
  await machine.files.write(SWITCH, '0');
  await machine.files.write(COUNT, '3');
  const bind = async (node: string) => {
    const hands = { files: machine.files, commands: machine.commands, modprobe: null };
    const step: Step = { kind: 'bind', device: `pci:${node}`, bus: 'pci', node, driver: '*' };
    const [applied] = await applyPlan({ version: 1, steps: [step] }, hands);
    return applied?.outcome.status;
  };
  assert.equal(await bind(SECOND), 'enforced');
  assert.deepEqual(
    [FIRST, SECOND, '0000:00:01.3'].map((address) => [machine.driverOf('pci', address), overrideOf(machine, address)]),
    [
      [null, 'none'],
      ['igbvf', '(null)'],
      [null, 'none'],
    ],
  );
  assert.equal(await bind(FIRST), 'enforced', 'one that is held is let in when its turn comes');
  assert.equal(overrideOf(machine, '0000:00:01.3'), 'none');
  machine.files.tree.set(COUNT, { fails: 'file-timeout' });
  assert.equal(await bind('0000:00:01.3'), 'failed', 'not while the kernel is making some');
  assert.equal(String(machine.files.tree.get(SWITCH)).trim(), '0');
});

test('a switch that somebody turned on again is told, and turned off', async () => {
  const machine = fakeMachine({ functions: [{ ...card(PHYSICAL), virtuals: 1 }], modules: MODULES });
  await enforced(machine, { [PHYSICAL]: 'limited' });
  await machine.files.write(SWITCH, '1');
  assert.equal(switchOf(await enforced(machine, { [PHYSICAL]: 'limited' }, false)), 'failed', 'who only looks says so');
  assert.equal(machine.files.tree.get(SWITCH), '1\n');
  assert.equal(switchOf(await enforced(machine, { [PHYSICAL]: 'limited' })), 'enforced');
});

const pci = (address: string, sriov: Device['sriov'], more: Partial<Device> = {}): Device => ({
  ...{ id: `pci:${address}`, bus: 'pci', transport: null, location: address, type: 'network', class: 0x020000 },
  ...{ path: `/sys/devices/pci0000:00/${address}`, interfaces: [], faults: [], modalias: 'pci:v0' },
  ...{ sriov: sriov ?? null, nodes: [{ bus: 'pci', name: address, driver: null }] },
  ...more,
});
const virtual = (address: string, more: Partial<Device> = {}) =>
  pci(address, { role: 'virtual', physical: `pci:${PHYSICAL}`, index: 0 }, more);
const inventory = (...devices: Device[]): Inventory => ({
  version: 1,
  kernel: {
    ...{ release: '7.2.0', arch: 'x86_64', confidential: null, autoprobe: { pci: false, virtio: false } },
    ...{ modulesDisabled: false, lockdown: null, swiotlb: 'auto', cmdline: '' },
  },
  devices,
});
const show = (step: Step) =>
  `${step.kind}${'node' in step ? ` ${step.node}` : ''}${'driver' in step ? ` ${step.driver}` : ''}`;

test('plan: the switch is first and of every physical function, also one that is denied; it is left alone where it is off', () => {
  const seen = inventory(
    pci(PHYSICAL, { role: 'physical', enabled: 0, total: 4, autoprobe: true }),
    pci('0000:00:02.0', { role: 'physical', enabled: 0, total: 4 }),
    pci('0000:00:03.0', { role: 'physical', enabled: 0, total: 4, autoprobe: false }),
    pci('0000:00:04.0', null),
  );
  const steps = planFor([], seen).steps.map(show);
  assert.deepEqual(
    steps.filter((step) => step.startsWith('virtual')),
    [`virtual-autoprobe-off ${PHYSICAL}`, 'virtual-autoprobe-off 0000:00:02.0'],
  );
  const first = steps.findIndex((step) => !step.startsWith('autoprobe') && !step.startsWith('virtual'));
  assert.ok(first > steps.findLastIndex((step) => step.startsWith('virtual')));
});

test('plan: a virtual function is pinned to its driver before it is bound; an ordinary one is not', () => {
  const nvme = { class: 0x010802, type: 'nvme' };
  const steps = (device: Device) => planFor([decision(device.id, 'limited')], inventory(device)).steps.map(show);
  const of = (device: Device, kind: string) => steps(device).filter((step) => step.startsWith(kind));
  assert.deepEqual(of(virtual(FIRST, nvme), 'pin'), [`pin ${FIRST} nvme`]);
  assert.deepEqual(of(pci(FIRST, null, nvme), 'pin'), []);
  assert.deepEqual(of(virtual(FIRST), 'pin'), [], 'which driver it is only the kernel knows');
  assert.deepEqual(of(virtual(FIRST), 'bind'), [`bind ${FIRST} *`]);
  const virtio = { bus: 'virtio', transport: 'pci', virtioId: 1, type: 'net' } as const;
  assert.deepEqual(of(virtual(FIRST, virtio), 'pin'), [`pin ${FIRST} virtio-pci`]);
  const nobodys = { ...virtual(FIRST, nvme), sriov: { role: 'virtual' } as const };
  assert.deepEqual(of(nobodys, 'pin'), [`pin ${FIRST} nvme`]);
});

test('one that is let in further than its physical function is told, with what that means', () => {
  const seen = inventory(pci(PHYSICAL, { role: 'physical', enabled: 1, total: 1 }), virtual(FIRST));
  const outcomes = (physical: Decision['level'] | null, own: Decision['level']) =>
    virtualFunctionOutcomes(seen, [
      ...(physical === null ? [] : [decision(`pci:${PHYSICAL}`, physical)]),
      decision(`pci:${FIRST}`, own),
    ]);
  for (const [physical, own] of [
    ['limited', 'limited'],
    ['tcb', 'limited'],
    ['disconnected', 'disconnected'],
    [null, 'disconnected'],
  ] as const) {
    assert.deepEqual(outcomes(physical, own), [], `${physical} ${own}`);
  }
  for (const [physical, own] of [
    ['disconnected', 'limited'],
    ['limited', 'tcb'],
    [null, 'limited'],
  ] as const) {
    const [one] = outcomes(physical, own);
    assert.equal(one?.status, 'not-enforceable');
    assert.match(one?.because ?? '', new RegExp(`${own} by its own rule.*pci:${PHYSICAL}.*can reset it`));
  }
  const nobodys = inventory({ ...virtual(FIRST), sriov: { role: 'virtual' } });
  assert.match(
    virtualFunctionOutcomes(nobodys, [decision(`pci:${FIRST}`, 'limited')])[0]?.because ?? '',
    /one that cannot be told, which nobody has decided on/,
  );
});

test('steps: what the kernel does not take is not said to hold; a function that has gone needs no switch', async () => {
  const at = `/sys/bus/pci/devices/${PHYSICAL}`;
  const outcome = async (tree: Parameters<typeof fakeFiles>[0], step: Step) => {
    const files = fakeFiles(tree);
    files.onWrite(/autoprobe$/, () => ({ ok: true, value: undefined }));
    const hands = { files, commands: { run: () => Promise.reject(new Error('none')) }, modprobe: null };
    const [applied] = await applyPlan({ version: 1, steps: [step] }, hands);
    return applied?.outcome.status;
  };
  const off = (node: string): Step => ({ kind: 'virtual-autoprobe-off', device: `pci:${node}`, node });
  assert.equal(await outcome({ [`${at}/sriov_drivers_autoprobe`]: '1\n' }, off(PHYSICAL)), 'failed');
  assert.equal(await outcome({ [`${at}/vendor`]: '0x8086\n' }, off(PHYSICAL)), 'not-enforceable');
  assert.equal(await outcome({}, off(PHYSICAL)), 'enforced');
  assert.equal(await outcome({}, off('../../../etc')), 'failed');
});

test('a reset of a virtual function is read back by its class: its ids are all ones in its own space', async () => {
  const at = `/sys/bus/pci/devices/${FIRST}`;
  const after = async (config: readonly number[]) => {
    const files = fakeFiles({
      [`${at}/vendor`]: '0x1af4\n',
      [`${at}/class`]: '0x020000\n',
      [`${at}/physfn`]: { link: `../${PHYSICAL}` },
      [`${at}/config`]: Uint8Array.from(config),
      [`${at}/reset`]: '',
    });
    const hands = { files, commands: { run: () => Promise.reject(new Error('none')) }, modprobe: null };
    const step: Step = { kind: 'reset', device: `pci:${FIRST}`, node: FIRST };
    const [applied] = await applyPlan({ version: 1, steps: [step] }, hands);
    return applied?.outcome.status;
  };
  const ids = [0xff, 0xff, 0xff, 0xff, 0, 0, 0x10, 0];
  assert.equal(await after([...ids, 1, 0, 0, 2]), 'enforced');
  assert.equal(await after([...ids, 0xff, 0xff, 0xff, 0xff]), 'failed', 'nothing answers there');
});
