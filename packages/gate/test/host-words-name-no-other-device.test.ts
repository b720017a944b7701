import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Device } from '@airlock/core/device.ts';
import { findDevice as findInInventory } from '@airlock/linux/find-device.ts';
import { findDevice } from '../src/agent/find-device.ts';

const device = (slot: string, interfaces: readonly string[]): Device => ({
  id: `pci:0000:00:${slot}`,
  bus: 'virtio',
  transport: 'pci',
  location: `0000:00:${slot}`,
  path: `/sys/devices/pci0000:00/0000:00:${slot}`,
  nodes: [],
  type: '9p',
  interfaces,
  faults: [],
});
const kernel = {
  release: '7.2.0',
  arch: 'x86_64',
  confidential: null,
  autoprobe: {},
  modulesDisabled: false,
  lockdown: null,
  swiotlb: 'force',
  cmdline: '',
} as const;

for (const word of ['eth0', '00:03.0', '0000:00:03.0']) {
  test(`a share with the tag ${word} is not taken for that device, and keeps nobody from naming it`, () => {
    const card = device('03.0', ['net/eth0']);
    const share = device('09.0', [`9p/${word}`]);
    for (const find of [
      (devices: readonly Device[]) => findDevice({ version: 1, kernel, devices }, word),
      (devices: readonly Device[]) => findInInventory(devices, word),
    ]) {
      const both = find([card, share]);
      assert.equal(both.ok ? both.value.id : both.error.code, card.id);
      const alone = find([share]);
      assert.equal(alone.ok ? alone.value.id : alone.error.code, 'device-unknown');
    }
    const whole = findInInventory([card, share], `9p/${word}`);
    assert.equal(whole.ok && whole.value.id, share.id);
  });
}
