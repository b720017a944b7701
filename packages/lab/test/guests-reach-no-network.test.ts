import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CMDLINE, HOTPLUG_BACKENDS, HOTPLUGS, labParts, MEMORY } from '../src/machine.ts';
import { qemuWords } from '../src/qemu.ts';

const cache = { folder: '/cache', tools: '/cache/tools', peers: '/none' };
const words = qemuWords(
  cache,
  {
    accelerator: 'tcg',
    memory: MEMORY,
    kernel: '/k',
    initramfs: '/i',
    cmdline: CMDLINE,
    parts: labParts({ rootDisk: '/root,disk', tweaks: { '03.0': { packed: 'on' } } }),
    backends: HOTPLUG_BACKENDS,
  },
  '/tmp/guest',
);
const after = (option: string) => words.filter((_, i) => words[i - 1] === option);

test('every network is user-mode and restricted', () => {
  const networks = after('-netdev');
  assert.equal(networks.length, 2);
  for (const network of networks) assert.match(network, /^user,id=\w+,restrict=on$/);
  assert.ok(!words.includes('-nic') && !words.includes('-net'));
});

test('nothing of this machine is written: disks are read-only or keep nothing', () => {
  for (const drive of after('-drive')) assert.match(drive, /read-only=on|file\.driver=null-co/);
  for (const share of after('-fsdev')) assert.match(share, /path=\/tmp\/guest\/share.*readonly=on/);
});

test('sockets lie in the private folder', () => {
  for (const channel of after('-chardev'))
    assert.match(channel, /^null,|path=\/tmp\/guest\/\w+\.sock,server=on,wait=off$/);
});

test('a comma in a path does not become an option', () => {
  assert.ok(after('-drive').some((drive) => drive.includes('file=/root,,disk,')));
});

test('virtio devices are modern and behind the DMA API, the balloon apart', () => {
  const devices = after('-device').filter((device) => /^virtio-.*-pci/.test(device));
  assert.equal(devices.length, 8);
  for (const device of devices) {
    assert.match(device, /disable-legacy=on/);
    assert.match(device, device.startsWith('virtio-balloon') ? /iommu_platform=off/ : /iommu_platform=on/);
  }
  assert.match(CMDLINE, /swiotlb=force/);
  assert.ok(devices.some((device) => device.startsWith('virtio-net') && device.includes('packed=on')));
  for (const { device } of HOTPLUGS) {
    if (device['driver'] === 'virtio-net-pci') assert.equal(device['iommu_platform'], true);
  }
});
