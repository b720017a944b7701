import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Outcome, Step } from '@airlock/core/plan.ts';
import { fail, ok } from '@airlock/core/result.ts';
import { applyPlan, type Hands } from '@airlock/gate/apply.ts';
import { type FakeCommands, fakeCommands } from '@airlock/linux/fake-commands.ts';
import { type FakeFiles, type FakeNode, fakeFiles } from '@airlock/linux/fake-files.ts';
import fc from 'fast-check';
import { disk, fakeMachine, MODULES } from './fake-machine.ts';

const BDF = '0000:00:01.0';
const bindStep = (driver: string, node = BDF, bus = 'pci'): Step => ({
  kind: 'bind',
  device: `pci:${BDF}`,
  bus,
  node,
  driver,
});
const unbindStep: Step = { kind: 'unbind', device: `pci:${BDF}`, bus: 'pci', node: BDF, driver: 'virtio-pci' };
const pinStep: Step = { kind: 'pin', device: `pci:${BDF}`, bus: 'pci', node: BDF, driver: 'none' };

async function apply(step: Step, files: FakeFiles, commands: FakeCommands = fakeCommands()): Promise<Outcome> {
  const hands: Hands = { files, commands, modprobe: ['/sbin/modprobe'] };
  const applied = await applyPlan({ version: 1, steps: [step] }, hands);
  assert.equal(applied.length, 1);
  const outcome = applied[0]?.outcome;
  assert.ok(outcome !== undefined);
  return outcome;
}

test('a bind that the kernel answers with success and does not do is failed', async () => {
  const machine = fakeMachine({ functions: [disk(BDF, 'x')], builtin: { pci: ['virtio-pci'] }, liars: ['virtio-pci'] });
  const outcome = await apply(bindStep('virtio-pci'), machine.files);
  assert.equal(outcome.status, 'failed');
  assert.match(outcome.because ?? '', /bound nothing/);
});

test('drivers_probe answers success where nothing matches: failed', async () => {
  const machine = fakeMachine({ functions: [disk(BDF, 'x')] });
  assert.equal((await apply(bindStep('*'), machine.files)).status, 'failed');
});

test('a driver that is not there is named', async () => {
  const machine = fakeMachine({ functions: [disk(BDF, 'x')] });
  const outcome = await apply(bindStep('virtio-pci'), machine.files);
  assert.equal(outcome.status, 'failed');
  assert.match(outcome.because ?? '', /no driver virtio-pci on pci/);
});

test('a bind that fails leaves the device held as it was', async () => {
  const machine = fakeMachine({ functions: [disk(BDF, 'x')], builtin: { pci: ['nvme'] } });
  await apply(pinStep, machine.files);
  assert.equal((await apply(bindStep('nvme'), machine.files)).status, 'failed');
  assert.equal(machine.files.tree.get(`/sys/devices/pci0000:00/${BDF}/driver_override`), 'none\n');
});

test('a driver that nobody can unbind is not enforceable, with the reason', async () => {
  const machine = fakeMachine({ functions: [disk(BDF, 'x')], builtin: { pci: ['virtio-pci'] } });
  machine.files.tree.delete('/sys/bus/pci/drivers/virtio-pci/unbind');
  const outcome = await apply(unbindStep, machine.files);
  assert.equal(outcome.status, 'not-enforceable');
  assert.match(outcome.because ?? '', /no unbind file/);
});

test('an unbind that is answered with success and changes nothing is failed', async () => {
  const machine = fakeMachine({ functions: [disk(BDF, 'x')], builtin: { pci: ['virtio-pci'] } });
  const lying = fakeFiles(Object.fromEntries(machine.files.tree));
  assert.equal((await apply(unbindStep, lying)).status, 'failed');
});

test('a device that has gone is no failure of what was to be cut off, and one of what was to be bound', async () => {
  const files = fakeFiles({ '/sys/bus/pci/drivers_autoprobe': '0\n' });
  assert.equal((await apply(unbindStep, files)).status, 'enforced');
  assert.equal((await apply(pinStep, files)).status, 'enforced');
  assert.equal((await apply(bindStep('nvme'), files)).status, 'failed');
  assert.equal((await apply({ kind: 'remove', device: `pci:${BDF}`, node: BDF }, files)).status, 'enforced');
});

test('autoprobe that goes back to 1 is failed; a bus that is not there has nothing to bind', async () => {
  const files = fakeFiles({ '/sys/bus/pci/drivers_autoprobe': '1\n' });
  files.onWrite('/sys/bus/pci/drivers_autoprobe', () => ok(undefined));
  assert.equal((await apply({ kind: 'autoprobe-off', bus: 'pci' }, files)).status, 'failed');
  assert.equal((await apply({ kind: 'autoprobe-off', bus: 'vdpa' }, files)).status, 'enforced');
});

test('what already holds is not written again', async () => {
  const files = fakeFiles({
    '/sys/bus/pci/drivers_autoprobe': '0\n',
    '/sys/bus/usb/devices/1-1/authorized': '0\n',
    '/proc/sys/kernel/modules_disabled': '1\n',
  });
  for (const step of [
    { kind: 'autoprobe-off', bus: 'pci' },
    { kind: 'authorize', device: 'usb:1-1', node: '1-1', value: false },
    { kind: 'sysctl', name: 'kernel/modules_disabled', value: '1' },
  ] as const) {
    assert.equal((await apply(step, files)).status, 'enforced');
  }
  assert.deepEqual(files.writes, []);
});

test('a kernel without the switch is not enforceable', async () => {
  const files = fakeFiles({});
  assert.equal(
    (await apply({ kind: 'sysctl', name: 'kernel/modules_disabled', value: '1' }, files)).status,
    'not-enforceable',
  );
});

test('one modprobe for all modules, none for those that are there, and its success is not believed', async () => {
  const files = fakeFiles({ '/sys/module/virtio_pci/uevent': '' });
  const commands = fakeCommands({ '/sbin/modprobe': () => ({ status: 0 }) });
  const steps = ['virtio_pci', 'virtio_blk', 'virtio-rng'].map(
    (module): Step => ({ kind: 'load', device: null, module }),
  );
  const applied = await applyPlan({ version: 1, steps }, { files, commands, modprobe: ['/sbin/modprobe'] });
  assert.deepEqual(commands.calls, [['/sbin/modprobe', '-a', 'virtio_blk', 'virtio-rng']]);
  assert.deepEqual(
    applied.map((one) => one.outcome.status),
    ['enforced', 'failed', 'failed'],
  );
});

test('a modalias from a device never becomes an option of modprobe', async () => {
  const commands = fakeCommands({ '/sbin/modprobe': () => ({ status: 0 }) });
  for (const module of ['-C/tmp/evil', '--show', 'a b', 'x;y', '', 'a\nb', '../../x', 'a'.repeat(300)]) {
    const outcome = await apply({ kind: 'load', device: null, module }, fakeFiles({}), commands);
    assert.equal(outcome.status, 'failed', module);
  }
  assert.deepEqual(commands.calls, []);
});

test('names that lead out of sysfs are refused before anything is written', async () => {
  const hostile = fc.constantFrom('..', '.', '', 'a/b', '../../../../etc', 'a\0', 'a\nb');
  await fc.assert(
    fc.asyncProperty(
      hostile,
      hostile,
      fc.constantFrom('bind', 'unbind', 'pin', 'authorize', 'remove', 'autoprobe-off', 'sysctl'),
      async (bad, other, kind) => {
        const files = fakeFiles({ '/etc/passwd': 'root' });
        const step = {
          kind,
          device: 'x',
          bus: bad,
          node: other,
          driver: bad,
          value: kind === 'sysctl' ? '1' : true,
          name: bad,
        } as unknown as Step;
        const outcome = await apply(step, files);
        // `a/b` is the name of a kernel switch like any other.
        assert.notEqual(outcome.status, 'enforced');
        assert.deepEqual(
          files.writes.filter((one) => one.path !== '/proc/sys/a/b'),
          [],
        );
      },
    ),
  );
});

test('files that fail in every way give outcomes, never exceptions', async () => {
  const node: fc.Arbitrary<FakeNode> = fc.oneof(
    fc.string({ maxLength: 8 }),
    fc
      .constantFrom('file-denied', 'file-timeout', 'file-io', 'file-refused', 'file-missing', 'file-too-large')
      .map((code) => ({ fails: code })),
    fc.constantFrom('../../drivers/x', '', '/').map((target) => ({ link: target })),
  );
  const paths = [
    '/sys/bus/pci/drivers_autoprobe',
    `/sys/bus/pci/devices/${BDF}`,
    `/sys/bus/pci/devices/${BDF}/driver`,
    `/sys/bus/pci/devices/${BDF}/driver_override`,
    '/sys/bus/pci/drivers/virtio-pci/bind',
    '/sys/bus/pci/drivers/virtio-pci/unbind',
  ];
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(fc.constantFrom(...paths), node), { maxLength: 6 }), async (entries) => {
      const files = fakeFiles(Object.fromEntries(entries));
      for (const step of [
        unbindStep,
        pinStep,
        bindStep('virtio-pci'),
        bindStep('*'),
        { kind: 'autoprobe-off', bus: 'pci' } as const,
      ]) {
        const outcome = await apply(step, files, fakeCommands());
        assert.ok(['enforced', 'not-enforceable', 'failed'].includes(outcome.status));
        if (outcome.status !== 'enforced') assert.ok(outcome.because);
      }
    }),
  );
});

test('modprobe that cannot be run is the reason of every load', async () => {
  const commands = fakeCommands({
    '/sbin/modprobe': () => fail('command-timeout', 'modprobe: did not end in 30000 ms'),
  });
  const outcome = await apply({ kind: 'load', device: null, module: 'nvme' }, fakeFiles({}), commands);
  assert.equal(outcome.status, 'failed');
  assert.match(outcome.because ?? '', /did not end/);
});

test('the child of a transport is found by its parent, whatever its number', async () => {
  const machine = fakeMachine({ functions: [disk(BDF, 'x')], builtin: { pci: ['virtio-pci'] }, modules: MODULES });
  machine.files.tree.set('/sys/bus/virtio/drivers_autoprobe', '0\n');
  machine.commands.programs.get('/sbin/modprobe')?.(['/sbin/modprobe', '-a', 'virtio_blk'], {});
  const outcome = await apply(bindStep('virtio_blk', `${BDF}/*`, 'virtio'), machine.files);
  assert.equal(outcome.status, 'enforced', JSON.stringify(outcome));
  assert.equal(machine.driverOf('virtio', 'virtio0'), 'virtio_blk');
});
