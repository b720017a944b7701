import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Device, isBound } from '@airlock/core/device.ts';
import { fail, ok } from '@airlock/core/result.ts';
import fc from 'fast-check';
import { UNKNOWN_DRIVER } from '../src/device-reader.ts';
import { type FakeFiles, type FakeNode, fakeFiles } from '../src/fake-files.ts';
import type { Files } from '../src/files.ts';
import { readInventory } from '../src/inventory.ts';
import { vectorFiles } from './vector-files.ts';

const DISK = '/sys/devices/pci0000:00/0000:00:03.0';
const PRINTABLE = /^[\x20-\x7e]*$/;

async function devicesOf(files: Files): Promise<readonly Device[]> {
  const result = await readInventory(files);
  assert.ok(result.ok, JSON.stringify(result));
  return result.value.devices;
}

/** The disk of the guest, after `change` of the tree. */
async function diskAfter(change: (files: FakeFiles) => void, state = 'bound'): Promise<Device> {
  const files = vectorFiles(`q35-7.2-${state}`);
  change(files);
  const devices = await devicesOf(files);
  assert.equal(devices.length, state === 'bound' ? 32 : 25, 'nothing is lost');
  const disk = devices.find(({ id }) => id === 'pci:0000:00:03.0');
  assert.ok(disk);
  return disk;
}

/** Takes a device's ids away but for what is given. */
function withIds(files: FakeFiles, ids: Readonly<Record<string, FakeNode>>): void {
  for (const name of ['modalias', 'vendor', 'device', 'class', 'subsystem_vendor', 'subsystem_device']) {
    files.tree.delete(`${DISK}/${name}`);
  }
  for (const [name, node] of Object.entries(ids)) files.tree.set(`${DISK}/${name}`, node);
}

test('ids that are no numbers are faults and no facts', async () => {
  const disk = await diskAfter((files) =>
    withIds(files, { vendor: '0xzzzz\n', device: '4162\n', class: '', modalias: 'pci:v0000' }),
  );
  assert.deepEqual([disk.vendor, disk.device, disk.class], [undefined, undefined, undefined]);
  // Its virtio half still tells.
  assert.deepEqual([disk.bus, disk.transport, disk.type], ['virtio', 'pci', 'block']);
  assert.deepEqual(
    disk.faults.map(({ attribute, code }) => `${attribute} ${code}`),
    ['vendor attribute-malformed', 'device attribute-malformed', 'class attribute-malformed'],
  );
});

test('without a modalias the ids are read one by one', async () => {
  const disk = await diskAfter(
    (files) => withIds(files, { vendor: '0x1af4\n', device: '0x1042\n', class: '0x010000\n' }),
    'unbound',
  );
  assert.deepEqual([disk.vendor, disk.device, disk.type, disk.subsystem], [0x1af4, 0x1042, 'block', undefined]);
});

test('a transitional function whose subsystem is not known has no type', async () => {
  const disk = await diskAfter(
    (files) => withIds(files, { vendor: '0x1af4\n', device: '0x1001\n', class: '0x010000\n' }),
    'unbound',
  );
  assert.deepEqual([disk.bus, disk.type, disk.virtioId], ['virtio', null, undefined]);
});

test('features that are no digits, or far too many, are a fault', async () => {
  for (const text of ['0101x', '1'.repeat(1_000_000), '', '2'.repeat(64)]) {
    const disk = await diskAfter((files) => files.tree.set(`${DISK}/virtio0/features`, text));
    assert.equal(disk.features, undefined);
    assert.equal(disk.faults[0]?.attribute, 'virtio0/features');
  }
});

test('a driver link that cannot be read counts as a driver', async () => {
  for (const node of [{ fails: 'file-denied' }, { fails: 'file-timeout' }] as const) {
    const files = vectorFiles('q35-7.2-unbound');
    const denied: Files = {
      ...files,
      link: async (path) => (path === `${DISK}/driver` ? fail(node.fails, path) : files.link(path)),
    };
    const disk = (await devicesOf(denied)).find(({ id }) => id === 'pci:0000:00:03.0');
    assert.ok(disk);
    assert.equal(disk.nodes[0]?.driver, UNKNOWN_DRIVER);
    assert.ok(isBound(disk), 'never shown as unbound');
    assert.equal(disk.faults[0]?.code, node.fails);
  }
});

test('a driver link to nowhere still has its name; one with a terminal sequence has none', async () => {
  const nowhere = await diskAfter((files) => files.tree.set(`${DISK}/driver`, { link: '../nowhere/evil' }), 'unbound');
  assert.equal(nowhere.nodes[0]?.driver, 'evil');
  const sequence = await diskAfter((files) => files.tree.set(`${DISK}/driver`, { link: '../x/\x1b[2J' }), 'unbound');
  assert.equal(sequence.nodes[0]?.driver, UNKNOWN_DRIVER);
  assert.match(sequence.faults[0]?.message ?? '', PRINTABLE);
});

test('a virtual function of something that is no address has no physical function', async () => {
  const disk = await diskAfter((files) => files.tree.set(`${DISK}/physfn`, { link: '../../../../etc' }), 'unbound');
  assert.deepEqual(disk.sriov, { role: 'virtual' });
  assert.equal(disk.faults[0]?.attribute, 'physfn');
});

test('a device that does not answer has one fault, and is not asked again', async () => {
  const files = vectorFiles('q35-7.2-bound');
  const asked: string[] = [];
  const slow: Files = {
    ...files,
    read: async (path, limit) => {
      if (!path.startsWith(DISK)) return files.read(path, limit);
      asked.push(path);
      return fail('file-timeout', `${path}: no answer in 1000 ms`);
    },
  };
  const devices = await devicesOf(slow);
  const disk = devices.find(({ id }) => id === 'pci:0000:00:03.0');
  assert.ok(disk);
  // One for the function, one for its virtio half.
  assert.ok(asked.length <= 2, asked.join(' '));
  assert.equal(disk.faults[0]?.code, 'file-timeout');
  assert.equal(devices.filter(({ faults }) => faults.length > 0).length, 1);
});

test('when nothing answers the list still ends, soon and whole', async () => {
  const files = vectorFiles('q35-7.2-bound');
  let asked = 0;
  const dead: Files = {
    ...files,
    read: async (path, limit) => {
      if (!path.startsWith('/sys/devices/pci')) return files.read(path, limit);
      asked++;
      return fail('file-timeout', `${path}: no answer in 1000 ms`);
    },
  };
  const devices = await devicesOf(dead);
  assert.equal(devices.filter(({ id }) => id.startsWith('pci:')).length, 23);
  assert.ok(asked <= 24, `${asked} reads of a second each`);
  assert.ok(devices.filter(({ id }) => id.startsWith('pci:')).every(({ faults }) => faults.length > 0));
});

test('a device that vanishes while it is read leaves faults, not facts', async () => {
  for (let after = 0; after < 12; after++) {
    const files = vectorFiles('q35-7.2-bound');
    let reads = 0;
    const vanish = (path: string) => {
      if (path.startsWith(DISK) && reads++ === after) {
        for (const key of [...files.tree.keys()]) if (key.startsWith(DISK)) files.tree.delete(key);
      }
    };
    const vanishing: Files = {
      ...files,
      read: (path, limit) => {
        vanish(path);
        return files.read(path, limit);
      },
      link: (path) => {
        vanish(path);
        return files.link(path);
      },
    };
    const disk = (await devicesOf(vanishing)).find(({ id }) => id === 'pci:0000:00:03.0');
    assert.ok(disk);
    if (after === 0) assert.deepEqual([disk.sriov, disk.vendor], [undefined, undefined]);
    assert.ok(disk.vendor !== undefined || disk.faults.length > 0);
  }
});

test('names that no kernel gives are shown, escaped, and never read', async () => {
  const files = vectorFiles('q35-7.2-unbound');
  const read: string[] = [];
  const names = ['0000:00:1e.0\x1b[2J', '..', 'passwd', '0000:00:03.0 ', '\u202e0:00'];
  const lying: Files = {
    ...files,
    list: async (path) => {
      const result = await files.list(path);
      return path === '/sys/bus/pci/devices' && result.ok ? ok([...names, ...result.value]) : result;
    },
    read: (path, limit) => {
      read.push(path);
      return files.read(path, limit);
    },
  };
  const devices = await devicesOf(lying);
  assert.equal(devices.filter(({ faults }) => faults[0]?.code === 'name-malformed').length, names.length);
  for (const device of devices) assert.match(JSON.stringify(device), PRINTABLE);
  assert.equal(
    read.some((path) => path.includes('..') || !PRINTABLE.test(path)),
    false,
  );
});

test('two entries that pass for one device have two ids', async () => {
  const files = vectorFiles('q35-7.2-unbound');
  const lying: Files = {
    ...files,
    list: async (path) =>
      path === '/sys/bus/pci/devices' ? ok(['\x1b', '\\u{1b}', '0000:00:03.0', '0000:00:03.0']) : files.list(path),
  };
  const ids = (await devicesOf(lying)).map(({ id }) => id);
  assert.equal(new Set(ids).size, ids.length);
});

test('links in circles and links that leave the device tree lead nowhere', async () => {
  const files = fakeFiles({
    '/sys/bus/pci/devices/0000:00:01.0': { link: '0000:00:02.0' },
    '/sys/bus/pci/devices/0000:00:02.0': { link: '0000:00:01.0' },
    '/sys/bus/pci/devices/0000:00:03.0': { link: '../../../../etc/0000:00:03.0' },
    '/sys/bus/pci/devices/0000:00:04.0': { link: '../../../devices/../../etc/0000:00:04.0' },
    '/etc/0000:00:03.0/vendor': '0x1af4\n',
  });
  const devices = await devicesOf(files);
  assert.equal(devices.length, 4);
  for (const { path } of devices) assert.ok(path.startsWith('/sys/bus/pci/devices/'), path);
});

test('a bus that cannot be listed fails the whole inventory: a short list would hide devices', async () => {
  for (const [path, code] of [
    ['/sys/bus/pci/devices', 'bus-unreadable'],
    ['/sys/bus/virtio/devices', 'bus-unreadable'],
    ['/sys/bus', 'bus-unreadable'],
  ] as const) {
    const files = vectorFiles('q35-7.2-bound');
    const denied: Files = {
      ...files,
      list: async (asked) => (asked === path ? fail('file-denied', `${asked}: EACCES`) : files.list(asked)),
    };
    const result = await readInventory(denied);
    assert.equal(result.ok ? 'ok' : result.error.code, code);
  }
  const nothing = await readInventory(fakeFiles());
  assert.equal(nothing.ok ? 'ok' : nothing.error.code, 'sysfs-missing');
  const crowd: Files = {
    ...fakeFiles(),
    list: async (path) =>
      path === '/sys/bus' ? ok(['pci']) : path.endsWith('/pci/devices') ? ok(new Array(30_000).fill('x')) : ok([]),
  };
  const crowded = await readInventory(crowd);
  assert.equal(crowded.ok ? 'ok' : crowded.error.code, 'inventory-too-large');
});

test('ten thousand devices are ten thousand devices', async () => {
  const names = Array.from(
    { length: 10_000 },
    (_, i) => `${(i >> 8).toString(16).padStart(4, '0')}:${(i & 255).toString(16).padStart(2, '0')}:00.0`,
  );
  const many: Files = {
    ...fakeFiles(),
    list: async (path) =>
      path === '/sys/bus' ? ok(['pci']) : path === '/sys/bus/pci/devices' ? ok(names) : fail('file-missing', path),
    read: async (path) =>
      path.endsWith('/vendor') || path.endsWith('/device')
        ? ok(Uint8Array.from(Buffer.from('0x1af4\n')))
        : fail('file-missing', path),
  };
  const devices = await devicesOf(many);
  assert.equal(devices.length, 10_000);
  assert.deepEqual(
    devices.map(({ location }) => location),
    names,
  );
});

test('a USB device that is not authorized is not in use, whatever the kernel binds to its shell', async () => {
  const files = vectorFiles('q35-7.2-bound');
  for (const key of [...files.tree.keys()]) if (key.includes('1-1:1.0')) files.tree.delete(key);
  const keyboard = (await devicesOf(files)).find(({ id }) => id === 'usb:1-1');
  assert.ok(keyboard);
  assert.deepEqual([isBound(keyboard), keyboard.nodes.length, keyboard.type], [false, 1, null]);
});

test('whatever stands in the attributes, the inventory is whole and printable', async () => {
  const { tree } = vectorFiles('q35-7.2-bound');
  const changeable = [...tree].filter(([path]) => path.startsWith('/sys/')).map(([path]) => path);
  const node: fc.Arbitrary<FakeNode | undefined> = fc.oneof(
    fc.uint8Array({ maxLength: 80 }),
    fc.string({ unit: 'binary-ascii', maxLength: 80 }),
    fc.constantFrom('file-denied', 'file-io', 'file-timeout', 'file-too-large').map((fails) => ({ fails })),
    fc.string({ unit: 'binary-ascii', maxLength: 40 }).map((link) => ({ link })),
    fc.constant(undefined),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.constantFrom(...changeable), node), { minLength: 1, maxLength: 40 }),
      async (changes) => {
        const files = vectorFiles('q35-7.2-bound');
        for (const [path, value] of changes) {
          if (value === undefined) files.tree.delete(path);
          else files.tree.set(path, value);
        }
        const result = await readInventory(files);
        if (!result.ok) return assert.match(result.error.message, PRINTABLE);
        assert.match(JSON.stringify(result.value), PRINTABLE);
        const ids = result.value.devices.map(({ id }) => id);
        assert.equal(new Set(ids).size, ids.length);
      },
    ),
    { numRuns: 60 },
  );
});
