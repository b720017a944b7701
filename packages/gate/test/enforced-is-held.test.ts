/** Ways in which a host makes something look held that is not. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Decision } from '@airlock/core/decision.ts';
import type { Device, KernelFacts } from '@airlock/core/device.ts';
import { machineOutcomes } from '@airlock/gate/kernel-abilities.ts';
import { readBack } from '@airlock/gate/read-back.ts';
import { fakeFiles } from '@airlock/linux/fake-files.ts';

const KERNEL: KernelFacts = {
  release: '7.2.12+deb13-amd64',
  arch: 'x86_64',
  confidential: null,
  autoprobe: { pci: false, virtio: false },
  modulesDisabled: false,
  lockdown: null,
  swiotlb: 'auto',
  cmdline: '',
};
const DEVICE: Device = {
  id: 'pci:0000:00:05.0',
  bus: 'pci',
  transport: null,
  location: '0000:00:05.0',
  path: '/sys/devices/pci0000:00/0000:00:05.0',
  nodes: [{ bus: 'pci', name: '0000:00:05.0', driver: 'e1000' }],
  type: 'network',
  class: 0x020000,
  iommu: null,
  interfaces: [],
  faults: [],
};
const LIMITED: Decision = {
  device: DEVICE.id,
  level: 'limited',
  rule: null,
  reason: 'default',
  detail: '',
  tier: 'claimed',
  inputs: [],
  changes: [],
  pending: [],
  grantable: 'disconnected',
};

async function outcomeOf(property: RegExp, device: Device, kernel: KernelFacts = KERNEL, config?: Uint8Array) {
  const files = fakeFiles(config === undefined ? {} : { [`${DEVICE.path}/config`]: config });
  const { outcomes } = await readBack(LIMITED, device, { files, kernel });
  return outcomes.find((one) => property.test(one.property));
}

test('a bus that binds by itself holds no hot-plugged function, whatever the kernel could do', () => {
  for (const [release, status] of [
    ['7.2.12', 'failed'],
    ['6.12.1', 'not-enforceable'],
  ]) {
    const kernel = { ...KERNEL, release: String(release), autoprobe: { pci: true } };
    const outcomes = machineOutcomes({ version: 1, kernel, devices: [] }, { pciDrivers: [], disableModules: false });
    const hotplug = outcomes.find((one) => one.property.startsWith('hot-plugged'));
    assert.equal(hotplug?.status, status, release);
  }
});

test('an autoprobe that cannot be read is not a bus that is not there', () => {
  const kernel = { ...KERNEL, autoprobe: {} };
  const outcomes = machineOutcomes(
    { version: 1, kernel, devices: [DEVICE] },
    { pciDrivers: [], disableModules: false },
  );
  assert.notEqual(outcomes.find((one) => one.property.startsWith('hot-plugged'))?.status, 'enforced');
});

test('a network card that says that it is a bridge still does DMA', async () => {
  const forged = { ...DEVICE, class: 0x068000, type: 'bridge' };
  assert.equal((await outcomeOf(/^DMA/, forged))?.status, 'not-enforceable');
  // A real one, with its own driver or none, is spared.
  for (const driver of ['pcieport', null]) {
    const bridge = { ...forged, class: 0x060400, nodes: [{ bus: 'pci', name: DEVICE.location, driver }] };
    assert.equal(await outcomeOf(/^DMA/, bridge), undefined);
  }
});

test('swiotlb=noforce takes the buffers away in a confidential VM too', async () => {
  const kernel: KernelFacts = { ...KERNEL, confidential: 'sev-snp', swiotlb: 'off' };
  assert.equal((await outcomeOf(/^DMA/, DEVICE, kernel))?.status, 'not-enforceable');
  assert.equal((await outcomeOf(/^DMA/, DEVICE, { ...kernel, swiotlb: 'force' }))?.status, 'enforced');
});

test('configuration space that does not show its capabilities does not show that ATS is off', async () => {
  const behind = { ...DEVICE, iommu: { group: 3, type: 'DMA' } };
  const header = new Uint8Array(4096);
  header.set([0x86, 0x80, 0x0e, 0x10]);
  assert.equal((await outcomeOf(/^ATS/, behind, KERNEL, header))?.status, 'enforced');
  // What somebody without CAP_SYS_ADMIN is shown, nothing at all, and a device that does not answer.
  for (const config of [header.slice(0, 64), new Uint8Array(0), new Uint8Array(4096).fill(0xff)]) {
    assert.equal((await outcomeOf(/^ATS/, behind, KERNEL, config))?.status, 'failed', String(config.length));
  }
  // A chain that turns back or leads out of the space hides what comes after.
  for (const next of [0x100, 0x040, 0xffc]) {
    const looped = header.slice();
    looped.set([0x01, 0x00, 0x01 | ((next & 0xf) << 4), next >> 4], 0x100);
    assert.equal((await outcomeOf(/^ATS/, behind, KERNEL, looped))?.status, 'failed', next.toString(16));
  }
});

test('a driver that could not be read is not the one that the rule allows', async () => {
  const unread = { ...DEVICE, nodes: [{ bus: 'pci', name: DEVICE.location, driver: '(unknown)' }] };
  assert.equal((await outcomeOf(/^bound/, unread))?.status, 'failed');
});
