import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Inventory } from '@airlock/core/device.ts';
import { type Planted, plant } from '../../linux/test/plant.ts';
import { vectorFiles } from '../../linux/test/vector-files.ts';
import { run } from '../src/main.ts';
import { fakeContext } from './fake-context.ts';

async function airlock(args: readonly string[], given: Parameters<typeof fakeContext>[0] = {}) {
  const context = fakeContext(given);
  const code = await run(context, args);
  return { code, out: context.out(), err: context.err() };
}

async function withTree(vector: string, use: (tree: Planted) => Promise<void>): Promise<void> {
  const tree = plant(vectorFiles(vector));
  try {
    await use(tree);
  } finally {
    tree.remove();
  }
}

test('list: one aligned line a device, and a summary', () =>
  withTree('q35-7.2-bound', async ({ root }) => {
    const { code, out, err } = await airlock(['list', '--root', root]);
    assert.deepEqual([code, err], [0, '']);
    const lines = out.split('\n');
    assert.match(lines[0] ?? '', /^DEVICE +WHAT +DRIVER +USED AS +IDS$/);
    assert.match(out, /^pci:0000:00:03\.0 +virtio block +virtio_blk +vda "root" +1af4:1042$/m);
    assert.match(out, /^pci:0000:01:00\.0 +nvme +nvme +nvme0n1, nvme0 "nvme-serial-1" +1b36:0010$/m);
    assert.match(out, /^32 devices, 29 in use\. Linux 7\.2\.12/m);
    assert.equal(out.includes('\x1b'), false, 'no colour where nobody looks on');
  }));

test('list --tree: bridges, hubs and virtual functions nest', () =>
  withTree('q35-7.2-bound', async ({ root }) => {
    const { out } = await airlock(['list', '--tree', '--root', root]);
    assert.match(
      out,
      /pci:0000:00:0d\.0 .*\n└─ pci:0000:02:00\.0 .*\n {3}├─ pci:0000:02:10\.0 .*\n {3}└─ pci:0000:02:10\.2 /,
    );
    assert.match(out, /pci:0000:02:00\.0 +ethernet, PF with 2 of 7 VFs .*\n.*ethernet, VF 0 .*\n.*ethernet, VF 1 /);
    assert.match(out, /\n│ {2}└─ usb:1-2 .*\n│ {5}└─ usb:1-2\.1 /);
    assert.equal(out.split('\n').filter((line) => /(pci|usb|platform):/.test(line)).length, 32);
  }));

test('list --json is an inventory; --blocked leaves what is in use out', () =>
  withTree('q35-6.12-unbound', async ({ root }) => {
    const { code, out } = await airlock(['list', '--json', '--blocked', '--root', root]);
    assert.equal(code, 0);
    const inventory = JSON.parse(out) as Inventory;
    assert.equal(inventory.version, 1);
    assert.ok(inventory.devices.length > 0);
    assert.ok(inventory.devices.every(({ nodes }) => nodes.at(-1)?.driver === null));
    assert.deepEqual(Object.keys(inventory.devices[1] ?? {}).slice(0, 4), ['id', 'bus', 'transport', 'type']);
  }));

test('list shows levels and rules where a gate has run, and says so where its file is not the gate’s', () =>
  withTree('q35-7.2-bound', async ({ root }) => {
    mkdirSync(join(root, 'run/airlock'), { recursive: true });
    const decision = (device: string, level: string, rule: string | null) => ({
      decision: {
        device,
        level,
        rule: rule === null ? null : { id: rule, file: 'p.yaml', line: 3 },
        reason: rule === null ? 'default' : 'rule-matched',
      },
      outcomes: [],
      status: rule === 'root-disk' ? 'enforced' : 'not-enforceable',
    });
    const state = join(root, 'run/airlock/enforcement.json');
    writeFileSync(
      state,
      JSON.stringify([
        decision('pci:0000:00:03.0', 'limited', 'root-disk'),
        decision('pci:0000:00:04.0', 'disconnected', null),
      ]),
    );
    const { out } = await airlock(['list', '--root', root]);
    assert.match(out, /^pci:0000:00:03\.0 .* limited +root-disk$/m);
    assert.match(out, /^pci:0000:00:04\.0 .* disconnected +default +not-enforceable$/m);
    assert.match(out, /^pci:0000:00:05\.0 .* undecided$/m);
    const blocked = await airlock(['list', '--blocked', '--root', root]);
    assert.match(blocked.out, /^pci:0000:00:04\.0 /m);
    assert.doesNotMatch(blocked.out, /^pci:0000:00:03\.0 /m);
    for (const wrong of ['[', '{}', '[{"decision":{"device":1}}]', '[null]']) {
      writeFileSync(state, wrong);
      const again = await airlock(['list', '--root', root]);
      assert.equal(again.code, 0);
      assert.match(again.err, /enforcement\.json is not what the gate writes/);
    }
  }));

test('faults stand below their device, escaped', async () => {
  const files = vectorFiles('microvm-6.12-bound');
  files.tree.set('/sys/devices/pnp0/00:00/driver', { link: '../x/\x1b[2Jevil' });
  const tree = plant(files);
  try {
    const { out } = await airlock(['list', '--root', tree.root]);
    assert.match(out, /\n {2}! .*attribute-malformed\]\n/);
    assert.equal(out.includes('\x1b'), false);
    assert.match(out, /no PCI on this machine/);
  } finally {
    tree.remove();
  }
});

test('without sysfs there is nothing to list: exit 3', async () => {
  const tree = plant(vectorFiles('microvm-6.12-bound'));
  tree.remove();
  mkdirSync(tree.root);
  try {
    const { code, out, err } = await airlock(['list', '--root', tree.root]);
    assert.deepEqual([code, out], [3, '']);
    assert.match(err, /sysfs-missing/);
  } finally {
    tree.remove();
  }
});

test('info: a device by id, address, kernel name or interface', () =>
  withTree('q35-7.2-bound', async ({ root }) => {
    for (const name of ['pci:0000:00:03.0', '00:03.0', '0000:00:03.0', 'virtio0', 'vda', 'block/vda']) {
      const { code, out } = await airlock(['info', name, '--root', root]);
      assert.equal(code, 0, name);
      assert.match(out, /^pci:0000:00:03\.0 {2}virtio block\n/);
      assert.match(out, /negotiated +BLK_F_SEG_MAX[\s\S]*ACCESS_PLATFORM/);
      assert.match(out, /status +0xf ACKNOWLEDGE DRIVER FEATURES_OK DRIVER_OK/);
    }
    const { out } = await airlock(['info', '02:10.0', '--root', root]);
    assert.match(out, /virtual function 0 of pci:0000:02:00\.0/);
  }));

test('info: a name that is not there is 2, with the nearest that is', () =>
  withTree('q35-7.2-bound', async ({ root }) => {
    const slip = await airlock(['info', 'pci:0000:00:3.0', '--root', root]);
    assert.equal(slip.code, 2);
    assert.match(slip.err, /did you mean pci:0000:00:03\.0\?/);
    const hostile = await airlock(['info', '\x1b[2J', '--root', root]);
    assert.equal(hostile.code, 2);
    assert.equal(hostile.err.includes('\x1b'), false);
    assert.equal((await airlock(['info', '--root', root])).code, 2);
    assert.equal((await airlock(['list', 'vda', '--root', root])).code, 2);
  }));

test('info --json carries the device and what its configuration space says', () =>
  withTree('q35-7.2-unbound', async ({ root }) => {
    const { out } = await airlock(['info', '00:03.0', '--json', '--root', root]);
    const info = JSON.parse(out) as { device: { id: string }; config: { virtio: string[] } };
    assert.equal(info.device.id, 'pci:0000:00:03.0');
    assert.equal(info.config.virtio.length, 5);
    assert.match((await airlock(['info', '00:03.0', '--root', root])).out, /--probe asks the device/);
  }));

test('a probe of a device that is in use is not made, and that is said', () =>
  withTree('q35-7.2-bound', async ({ root }) => {
    const { code, err } = await airlock(['info', 'vda', '--probe', '--root', root]);
    assert.equal(code, 0);
    assert.match(err, /was not asked/);
  }));

test('a probe of something that only looks like a device tells that it lied', () =>
  withTree('q35-7.2-unbound', async ({ root }) => {
    const { code, out } = await airlock(['info', '00:03.0', '--probe', '--root', root]);
    assert.equal(code, 0);
    assert.match(out, /! config: .*\[probe-lied\]/);
  }));
