import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ok } from '@airlock/core/result.ts';
import fc from 'fast-check';
import { findWindow, readOffered } from '../src/virtio-window.ts';
import { vectorFiles } from './vector-files.ts';
import { CONFIG, windowDevice, windowState } from './window-device.ts';

const bitsOf = (features: bigint) =>
  Array.from({ length: 128 }, (_, i) => i).filter((i) => (features >> BigInt(i)) & 1n);

test('any set of features comes out as it is, and window and selector stay as they were', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.bigInt({ min: 0n, max: 2n ** 128n - 1n }),
      fc.integer({ min: 0, max: 3 }),
      fc.tuple(fc.integer({ min: 0, max: 5 }), fc.nat(0xffff), fc.constantFrom(0, 1, 2, 4)),
      async (offered, selected, left) => {
        const device = windowDevice({ offered, selected, left });
        const result = await readOffered(device.files, CONFIG);
        assert.ok(result.ok, JSON.stringify(result));
        assert.deepEqual(result.value.bits, bitsOf(offered));
        assert.deepEqual(windowState(device), left);
        assert.deepEqual(device.registerWrites.at(-1), { register: 0, value: selected });
      },
    ),
    { numRuns: 100 },
  );
});

test('nothing but the feature selector is ever written', async () => {
  const device = windowDevice({ offered: 0x1_3000_6e54n });
  assert.ok((await readOffered(device.files, CONFIG, 2)).ok);
  assert.ok(device.registerWrites.length > 0);
  assert.ok(device.registerWrites.every(({ register }) => register === 0));
});

test('two words take eleven calls at most, since the gate pays for each', async () => {
  const device = windowDevice({ offered: 0x1_3000_6e54n });
  let reads = 0;
  const files = {
    ...device.files,
    readAt: (...args: Parameters<typeof device.files.readAt>) => {
      reads++;
      return device.files.readAt(...args);
    },
  };
  assert.ok((await readOffered(files, CONFIG, 2)).ok);
  assert.ok(reads + device.writes <= 11, `${reads} reads, ${device.writes} writes`);
});

test('a selector that does not take what is written gives no features', async () => {
  for (const echo of [() => 0, () => 7, (value: number) => value ^ 1]) {
    const device = windowDevice({ offered: 0xffff_ffffn, echo });
    const result = await readOffered(device.files, CONFIG);
    assert.equal(result.ok ? result.value : result.error.code, 'probe-lied');
    assert.deepEqual(windowState(device), [0, 0, 0]);
  }
});

test('memory with no device behind it is told from a device that offers VERSION_1 alone', async () => {
  const real = windowDevice({ offered: 1n << 32n });
  const result = await readOffered(real.files, CONFIG, 2);
  assert.deepEqual(result.ok ? result.value.bits : result.error, [32]);
  const memory = windowDevice();
  const inert = new Uint8Array(memory.config);
  const files = {
    ...memory.files,
    readAt: async (_: string, at: number, count: number) => ok(inert.slice(at, at + count)),
    write: async (_: string, data: string | Uint8Array, at = 0) => {
      if (typeof data !== 'string') inert.set(data, at);
      return ok(undefined);
    },
  };
  const parrot = await readOffered(files, CONFIG, 2);
  assert.equal(parrot.ok ? 'ok' : parrot.error.code, 'probe-lied');
});

test('a device with 64 bits only is no liar', async () => {
  const device = windowDevice({ offered: 0x1_0000_0001n, echo: (value) => (value > 1 ? 1 : value) });
  const result = await readOffered(device.files, CONFIG);
  assert.deepEqual(result.ok ? result.value.bits : result.error, [0, 32]);
});

test('whichever write is refused, the failure is told and the window is closed again where it can be', async () => {
  for (let failAt = 1; failAt < 14; failAt++) {
    const device = windowDevice({ offered: 0x1_0000_0000n, failAt });
    const result = await readOffered(device.files, CONFIG);
    if (device.writes < failAt) continue;
    assert.equal(result.ok ? 'ok' : result.error.code, 'file-denied', `write ${failAt}`);
    // Only the refused write itself can be the one that would have closed it.
    if (device.writes !== failAt) assert.deepEqual(windowState(device), [0, 0, 0], `write ${failAt}`);
  }
});

test('a function whose capabilities cannot be is not written to', async () => {
  const wrong: readonly (readonly [number, number, string])[] = [
    [0x40 + 4, 6, 'probe-malformed'], // BAR 6
    [0x40 + 8, 2, 'probe-malformed'], // offset not aligned
    [0x40 + 2, 8, 'probe-no-window'], // the capability ends before its length field
    [0x40 + 3, 2, 'probe-no-window'], // no common configuration
    [0x84 + 3, 3, 'probe-no-window'], // no window
    [0x84 + 2, 16, 'probe-malformed'], // a window without its data
    [0x84 + 1, 0x84, 'probe-malformed'], // the chain bites its tail before the common configuration
    [14, 1, 'probe-malformed'], // a bridge
  ];
  for (const [at, value, code] of wrong) {
    const device = windowDevice();
    device.config[at] = value;
    const result = await readOffered(device.files, CONFIG);
    assert.equal(result.ok ? 'ok' : result.error.code, code, `0x${at.toString(16)} = ${value}`);
    assert.equal(device.writes, 0);
  }
  const gone = windowDevice();
  gone.config.fill(0xff);
  const result = await readOffered(gone.files, CONFIG);
  assert.equal(result.ok ? 'ok' : result.error.code, 'file-missing');
});

test('arbitrary configuration space is read, refused or probed, never more', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ minLength: 256, maxLength: 256 }), fc.boolean(), async (noise, keepHead) => {
      const device = windowDevice();
      const head = device.config.slice(0, 64);
      device.config.set(noise);
      if (keepHead) device.config.set(head);
      const sound = findWindow(device.config).ok;
      const result = await readOffered(device.files, CONFIG);
      if (!sound) assert.ok(!result.ok && device.writes === 0);
    }),
    { numRuns: 500 },
  );
});

test('a legacy function of a real guest has no window, a modern one has', async () => {
  const files = vectorFiles('q35-6.1-unbound');
  const window = async (address: string) => {
    const config = await files.readAt(`/sys/bus/pci/devices/${address}/config`, 0, 256);
    assert.ok(config.ok);
    return findWindow(config.value);
  };
  const legacy = await window('0000:00:06.0');
  assert.equal(legacy.ok ? 'ok' : legacy.error.code, 'probe-no-window');
  const modern = await window('0000:00:03.0');
  assert.ok(modern.ok);
  assert.deepEqual([modern.value.common.bar, modern.value.common.offset, modern.value.window.at], [4, 0, 132]);
});
