import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  deviceSerialNumber,
  readHeader,
  sriovCounts,
  virtioCapabilities,
  walkCapabilities,
  walkExtended,
} from '../src/pci-config.ts';
import { describeConfig } from '../src/pci-details.ts';
import { findWindow } from '../src/virtio-window.ts';
import { vectorFiles } from './vector-files.ts';

/** A function with a capability list whose chain is `links`: where, id, next. */
function withChain(first: number, ...links: readonly (readonly [number, number, number])[]): Uint8Array {
  const config = new Uint8Array(256);
  config.set([0xf4, 0x1a, 0x42, 0x10]);
  config[6] = 0x10;
  config[0x34] = first;
  for (const [at, id, next] of links) config.set([id, next], at);
  return config;
}

test('for any bytes of any length every walk ends and stays inside', () => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    fc.uint8Array({ minLength: 4096, maxLength: 4096 }),
    // A list that is there, with pointers that are noise.
    fc.uint8Array({ minLength: 256, maxLength: 256 }).map((config) => {
      config[6] = 0x10;
      config[14] = 0;
      return config;
    }),
  );
  fc.assert(
    fc.property(bytes, (config) => {
      const walk = walkCapabilities(config);
      assert.ok(walk.capabilities.length <= 48);
      for (const { offset } of walk.capabilities) assert.ok(offset >= 0x40 && offset + 1 < config.length);
      const extended = walkExtended(config);
      assert.ok(extended.capabilities.length <= 960);
      for (const { offset } of extended.capabilities) assert.ok(offset >= 0x100 && offset + 4 <= config.length);
      for (const { at, size } of virtioCapabilities(config, walk)) assert.ok(at + size <= 256);
      deviceSerialNumber(config, extended);
      sriovCounts(config, extended);
      describeConfig(config);
      const window = findWindow(config.subarray(0, 256));
      if (window.ok) {
        assert.ok(window.value.common.bar <= 5 && window.value.window.at + 20 <= 256);
        assert.ok(window.value.common.offset + window.value.common.length <= 2 ** 32);
      }
    }),
    { numRuns: 500 },
  );
});

test('a chain that turns back is cut and said to be broken', () => {
  const walk = walkCapabilities(withChain(0x40, [0x40, 1, 0x50], [0x50, 5, 0x40]));
  assert.deepEqual(
    walk.capabilities.map(({ name }) => name),
    ['power-management', 'msi'],
  );
  assert.match(walk.broken ?? '', /comes back to 0x40/);
});

test('a pointer into the header, past the end or to nothing ends the walk', () => {
  assert.match(walkCapabilities(withChain(0x10)).broken ?? '', /inside the header/);
  assert.match(walkCapabilities(withChain(0xf0, [0xf0, 0xff, 0])).broken ?? '', /nothing answers/);
  assert.match(walkCapabilities(withChain(0xf0).subarray(0, 128)).broken ?? '', /past the end/);
  assert.equal(walkCapabilities(withChain(0x40, [0x40, 1, 0]).subarray(0, 64)).broken, undefined);
});

test('without the capability bit there is no list', () => {
  const config = withChain(0x40, [0x40, 1, 0]);
  config[6] = 0;
  assert.deepEqual(walkCapabilities(config), { capabilities: [] });
});

test('a function that has gone reads as all ones; a virtual function does not', async () => {
  assert.equal(readHeader(new Uint8Array(256).fill(0xff)), undefined);
  const virtual = await vectorFiles('q35-7.2-bound').read('/sys/bus/pci/devices/0000:02:10.0/config');
  assert.ok(virtual.ok);
  const header = readHeader(virtual.value);
  assert.deepEqual([header?.vendor, header?.class], [0xffff, 0x020000]);
});

test('the extended capabilities of a real function are found', async () => {
  const config = await vectorFiles('q35-7.2-bound').read('/sys/bus/pci/devices/0000:02:00.0/config');
  assert.ok(config.ok);
  const extended = walkExtended(config.value);
  assert.deepEqual(
    extended.capabilities.map(({ name }) => name),
    ['aer', 'ari', 'sr-iov'],
  );
  // The function has 8; sysfs says 7, since the igb driver lowers it.
  assert.deepEqual(sriovCounts(config.value, extended), { total: 8, enabled: 2 });
});
