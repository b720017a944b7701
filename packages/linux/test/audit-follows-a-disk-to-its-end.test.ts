import assert from 'node:assert/strict';
import { test } from 'node:test';
import { observe } from '../src/audit/observe.ts';
import { parseMounts } from '../src/audit/reading.ts';
import { shieldOf } from '../src/audit/storage.ts';
import { type FakeNode, fakeFiles } from '../src/fake-files.ts';
import { audit, mountinfo, outcome, snpGuest } from './audit-machines.ts';

const PCI = '/sys/devices/pci0000:00/0000:00:03.0/virtio1/block';
const VIRTUAL = '/sys/devices/virtual/block';

/** A disk `vda` with parts, and device-mapper devices by their UUID and what is below them. */
function stack(
  mapped: Record<string, { uuid?: string; slaves?: readonly string[]; name?: string }>,
): Record<string, FakeNode> {
  const tree: Record<string, FakeNode> = {
    '/sys/class/block/vda': { link: '../../devices/pci0000:00/0000:00:03.0/virtio1/block/vda' },
    '/sys/class/block/vda1': { link: '../../devices/pci0000:00/0000:00:03.0/virtio1/block/vda/vda1' },
    [`${PCI}/vda/dev`]: '254:0\n',
    [`${PCI}/vda/vda1/dev`]: '254:1\n',
    [`${PCI}/vda/vda1/partition`]: '1\n',
    '/proc/self/mountinfo': mountinfo(),
  };
  for (const [name, { uuid, slaves = [], name: label }] of Object.entries(mapped)) {
    tree[`/sys/class/block/${name}`] = { link: `../../devices/virtual/block/${name}` };
    tree[`${VIRTUAL}/${name}/dev`] = `253:${name.replace(/\D/g, '')}\n`;
    if (uuid !== undefined) tree[`${VIRTUAL}/${name}/dm/uuid`] = `${uuid}\n`;
    if (label !== undefined) tree[`${VIRTUAL}/${name}/dm/name`] = `${label}\n`;
    for (const slave of slaves) tree[`${VIRTUAL}/${name}/slaves/${slave}`] = { link: `../../${slave}` };
  }
  return tree;
}

async function shield(tree: Record<string, FakeNode>, device: string) {
  const observations = await observe(fakeFiles(tree));
  const mounts = tree['/proc/self/mountinfo'];
  return shieldOf(observations, parseMounts(typeof mounts === 'string' ? mounts : ''), device);
}

test('LVM on LUKS is encrypted; LUKS on one half of a volume is not', async () => {
  const tree = stack({
    'dm-0': { uuid: 'CRYPT-LUKS2-a-x', slaves: ['vda1'] },
    'dm-1': { uuid: 'LVM-abc', slaves: ['dm-0'] },
    'dm-2': { uuid: 'LVM-def', slaves: ['dm-0', 'vda'] },
  });
  assert.deepEqual(await shield(tree, 'dm-1'), {
    encryption: 'yes',
    integrity: 'no',
    layers: ['dm-1', 'dm-0 crypt', 'vda1', 'vda'],
  });
  assert.deepEqual((await shield(tree, 'dm-2')).encryption, 'no');
  assert.deepEqual((await shield(tree, 'dm-2')).layers, ['dm-2', 'vda']);
});

test('the integrity device of cryptsetup before 2.8 and of integritysetup counts', async () => {
  const tree = stack({
    'dm-0': { uuid: 'CRYPT-INTEGRITY-bec07f-root_dif', slaves: ['vda1'] },
    'dm-1': { uuid: 'CRYPT-LUKS2-bec07f-root', slaves: ['dm-0'] },
  });
  assert.deepEqual(await shield(tree, 'dm-1'), {
    encryption: 'yes',
    integrity: 'yes',
    layers: ['dm-1 crypt', 'dm-0 integrity', 'vda1', 'vda'],
  });
});

test('on a disk with room for integrity tags it is not known whether dm-crypt uses them', async () => {
  const tree = {
    ...stack({ 'dm-0': { uuid: 'CRYPT-LUKS2-a-x', slaves: ['vda1'] } }),
    [`${PCI}/vda/integrity/tag_size`]: '16\n',
  };
  const { encryption, integrity } = await shield(tree, 'dm-0');
  assert.deepEqual([encryption, integrity], ['yes', 'unknown']);
});

test('dm-verity is integrity without encryption', async () => {
  const { encryption, integrity } = await shield(
    stack({ 'dm-0': { uuid: 'CRYPT-VERITY-a-usr', slaves: ['vda1'] } }),
    'dm-0',
  );
  assert.deepEqual([encryption, integrity], ['no', 'yes']);
});

test('a device-mapper device without a UUID could be anything: not known, never a finding', async () => {
  const tree = stack({ 'dm-0': { slaves: ['vda1'] }, 'dm-1': { uuid: 'CRYPT-NEWKIND-x', slaves: ['vda1'] } });
  assert.equal((await shield(tree, 'dm-0')).encryption, 'unknown');
  assert.equal((await shield(tree, 'dm-1')).encryption, 'unknown');
});

test('a UUID that only contains CRYPT-LUKS2 is not one', async () => {
  const tree = stack({ 'dm-0': { uuid: 'LVM-CRYPT-LUKS2-', slaves: ['vda1'] } });
  assert.equal((await shield(tree, 'dm-0')).encryption, 'no');
});

test('a stack that runs in a circle ends, and is not judged', async () => {
  const tree = stack({ 'dm-0': { uuid: 'LVM-a', slaves: ['dm-1'] }, 'dm-1': { uuid: 'LVM-b', slaves: ['dm-0'] } });
  const { encryption, because } = await shield(tree, 'dm-0');
  assert.equal(encryption, 'unknown');
  assert.match(because ?? '', /on and on/);
});

test('a stack that fans out at every level ends', async () => {
  const many: Parameters<typeof stack>[0] = {};
  for (let i = 0; i < 60; i++)
    many[`dm-${i}`] = { uuid: 'LVM-x', slaves: Array.from({ length: 60 }, (_, j) => `dm-${j}`) };
  assert.equal((await shield(stack(many), 'dm-0')).encryption, 'unknown');
});

test('a loop device is as safe as the file system that holds its file', async () => {
  const tree = {
    ...stack({ 'dm-0': { uuid: 'CRYPT-LUKS2-a-x', slaves: ['vda1'] } }),
    '/sys/class/block/loop0': { link: '../../devices/virtual/block/loop0' },
    [`${VIRTUAL}/loop0/loop/backing_file`]: '/srv/disk.img\n',
    [`${VIRTUAL}/loop0/dev`]: '7:0\n',
  };
  const on = (device: string) => ({
    ...tree,
    '/proc/self/mountinfo': mountinfo(`40 21 ${device} / /srv rw - ext4 /dev/x rw`),
  });
  assert.equal((await shield(on('253:0'), 'loop0')).encryption, 'yes');
  assert.equal((await shield(on('254:1'), 'loop0')).encryption, 'no');
});

test('zram with a backing device is as safe as that device', async () => {
  const tree = {
    ...stack({ 'dm-0': { uuid: 'CRYPT-PLAIN-swap', slaves: ['vda1'], name: 'swap' } }),
    '/sys/class/block/zram0': { link: '../../devices/virtual/block/zram0' },
    [`${VIRTUAL}/zram0/backing_dev`]: 'none\n',
  };
  assert.equal((await shield(tree, 'zram0')).encryption, 'yes');
  assert.equal((await shield({ ...tree, [`${VIRTUAL}/zram0/backing_dev`]: '/dev/vda1\n' }, 'zram0')).encryption, 'no');
  assert.equal(
    (await shield({ ...tree, [`${VIRTUAL}/zram0/backing_dev`]: '/dev/mapper/swap\n' }, 'zram0')).encryption,
    'yes',
  );
  assert.equal(
    (await shield({ ...tree, [`${VIRTUAL}/zram0/backing_dev`]: '/dev/gone\n' }, 'zram0')).encryption,
    'unknown',
  );
});

test('a btrfs of two disks is as weak as the weaker', async () => {
  const machine = snpGuest();
  Object.assign(machine.tree, {
    '/proc/self/mountinfo': mountinfo('40 21 0:50 / /data rw - btrfs /dev/mapper/root rw'),
    '/sys/fs/btrfs/0b9b3c6e-9a0c-4b0e-9d0e-2f1f7c1a2b3c/devices/dm-1': {
      link: '../../../../devices/virtual/block/dm-1',
    },
    '/sys/fs/btrfs/0b9b3c6e-9a0c-4b0e-9d0e-2f1f7c1a2b3c/devices/vda2': { link: '../../../../devices/x/vda2' },
  });
  assert.equal(outcome(await audit(machine), 'disk-unencrypted'), 'found');
});

test('a swap file lies on the disk of its file system; one on an encrypted root is no finding', async () => {
  const machine = snpGuest();
  machine.tree['/proc/swaps'] = 'Filename\tType\tSize\tUsed\tPriority\n/var/swap\\040file  file\t1048572\t0\t-2\n';
  assert.equal(outcome(await audit(machine), 'swap-unencrypted'), 'passed');
  machine.tree['/proc/self/mountinfo'] = mountinfo('40 21 254:2 / /var rw - ext4 /dev/vda2 rw');
  const report = await audit(machine);
  assert.equal(outcome(report, 'swap-unencrypted'), 'found');
  assert.deepEqual(report.findings.find(({ id }) => id === 'swap-unencrypted')?.evidence, [
    { path: '/proc/swaps', value: '/var/swap file: vda2 > vda' },
  ]);
});

test('a swap device that /sys does not show is not checked', async () => {
  const machine = snpGuest();
  machine.tree['/proc/swaps'] = 'Filename\tType\tSize\tUsed\tPriority\n/dev/sdz9 partition\t1\t0\t-2\n';
  assert.equal(outcome(await audit(machine), 'swap-unencrypted'), 'not-checked');
});

test('one disk that is not known hides no other that is in the clear', async () => {
  const machine = snpGuest();
  machine.tree['/proc/self/mountinfo'] = mountinfo(
    '40 21 99:9 / /a rw - ext4 /dev/odd rw',
    '41 21 254:2 / /b rw - ext4 /dev/vda2 rw',
  );
  assert.equal(outcome(await audit(machine), 'disk-unencrypted'), 'found');
  machine.tree['/proc/self/mountinfo'] = mountinfo('40 21 99:9 / /a rw - ext4 /dev/odd rw');
  assert.equal(outcome(await audit(machine), 'disk-unencrypted'), 'not-checked');
});

test('a machine that runs from its initramfs has no disk to protect', async () => {
  const machine = snpGuest();
  machine.tree['/proc/self/mountinfo'] = mountinfo().replace(/^21 .*$/m, '21 1 0:2 / / rw - rootfs rootfs rw');
  assert.equal(outcome(await audit(machine), 'disk-unencrypted'), 'passed');
});
