import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Device, type Inventory, isBound } from '@airlock/core/device.ts';
import type { FakeFiles } from '../src/fake-files.ts';
import { type InventoryOptions, readInventory } from '../src/inventory.ts';
import { vectorFiles } from './vector-files.ts';

const KERNELS = ['q35-6.1', 'q35-6.12', 'q35-7.2'] as const;

async function inventoryOf(files: FakeFiles, options?: InventoryOptions): Promise<Inventory> {
  const result = await readInventory(files, options);
  assert.ok(result.ok, JSON.stringify(result));
  return result.value;
}

function find(inventory: Inventory, id: string): Device {
  const device = inventory.devices.find((each) => each.id === id);
  assert.ok(device, `${id} in ${inventory.devices.map((each) => each.id).join(' ')}`);
  return device;
}

for (const kernel of KERNELS) {
  test(`${kernel}: every device is there before anything is bound, with its type and without a fault`, async () => {
    const inventory = await inventoryOf(vectorFiles(`${kernel}-unbound`));
    assert.deepEqual(
      inventory.devices.flatMap(({ faults }) => faults),
      [],
    );
    const types = inventory.devices.filter(({ bus }) => bus === 'virtio').map(({ id, type }) => `${id} ${type}`);
    assert.deepEqual(types, [
      'pci:0000:00:03.0 block',
      'pci:0000:00:04.0 block',
      'pci:0000:00:05.0 net', // transitional: 0x1000 with subsystem 1
      'pci:0000:00:06.0 entropy', // legacy only
      'pci:0000:00:07.0 balloon',
      'pci:0000:00:08.0 console',
      'pci:0000:00:09.0 9p',
      'pci:0000:00:0a.0 gpu',
      'pci:0000:00:0b.0 input',
      'pci:0000:03:00.0 net',
    ]);
    for (const device of inventory.devices.filter(({ bus }) => bus === 'virtio')) {
      assert.ok(!isBound(device), device.id);
      assert.deepEqual([device.features, device.status], [undefined, undefined], 'what is not seen has no key');
      assert.equal(device.transport, 'pci');
    }
    const disk = find(inventory, 'pci:0000:00:03.0');
    assert.equal('serial' in disk, false, 'a disk tells its serial number only once bound');
    assert.equal(find(inventory, 'pci:0000:00:05.0').serial, null, 'a network card has none');
    assert.deepEqual(disk.nodes, [{ bus: 'pci', name: '0000:00:03.0', driver: null }]);
    assert.deepEqual(disk.iommu, { group: 1, type: 'DMA' });
    assert.equal(disk.path, '/sys/devices/pci0000:00/0000:00:03.0');
    assert.deepEqual(find(inventory, 'pci:0000:02:00.0').sriov, { role: 'physical', enabled: 0, total: 8 });
  });

  test(`${kernel}: bound, a virtio device is one device with two nodes, its features and its names`, async () => {
    const inventory = await inventoryOf(vectorFiles(`${kernel}-bound`));
    assert.deepEqual(
      inventory.devices.flatMap(({ faults }) => faults),
      [],
    );
    const disk = find(inventory, 'pci:0000:00:03.0');
    assert.deepEqual(
      disk.nodes.map(({ bus, driver }) => [bus, driver]),
      [
        ['pci', 'virtio-pci'],
        ['virtio', 'virtio_blk'],
      ],
    );
    assert.ok(isBound(disk));
    assert.deepEqual([disk.serial, disk.interfaces, disk.status, disk.virtioId], ['root', ['block/vda'], 0xf, 2]);
    const negotiated = disk.features?.negotiated ?? [];
    assert.ok(negotiated.includes('ACCESS_PLATFORM') && negotiated.includes('VERSION_1'), negotiated.join(' '));
    assert.ok(!negotiated.includes('RING_PACKED'));
    assert.equal(disk.features?.offered, undefined);
    const packed = find(inventory, 'pci:0000:00:04.0').features?.negotiated ?? [];
    assert.ok(packed.includes('RING_PACKED') && !packed.includes('ACCESS_PLATFORM'), packed.join(' '));
    const legacy = find(inventory, 'pci:0000:00:06.0');
    assert.equal(legacy.features?.negotiated?.includes('VERSION_1'), false);
    assert.equal(legacy.status, 7, 'a legacy device has no FEATURES_OK');
    assert.equal(find(inventory, 'pci:0000:00:09.0').interfaces.at(-1), '9p/share');
    const nvme = find(inventory, 'pci:0000:01:00.0');
    assert.deepEqual([nvme.type, nvme.serial], ['nvme', 'nvme-serial-1']);
    assert.deepEqual(nvme.interfaces, ['block/nvme0n1', 'nvme/nvme0']);
    assert.equal(nvme.parent, 'pci:0000:00:0c.0');
    assert.deepEqual(nvme.link, { speed: '2.5 GT/s PCIe', width: 1 });
  });

  test(`${kernel}: virtual functions name their physical one, USB devices their hub`, async () => {
    const inventory = await inventoryOf(vectorFiles(`${kernel}-bound`));
    const physical = 'pci:0000:02:00.0';
    assert.deepEqual(find(inventory, 'pci:0000:02:10.0').sriov, { role: 'virtual', physical, index: 0 });
    assert.deepEqual(find(inventory, 'pci:0000:02:10.2').sriov, { role: 'virtual', physical, index: 1 });
    assert.equal(find(inventory, 'pci:0000:02:00.0').sriov?.enabled, 2);
    const disk = find(inventory, 'usb:1-2.1');
    assert.deepEqual([disk.type, disk.serial, disk.parent], ['storage', 'usb-serial-7', 'usb:1-2']);
    assert.ok(disk.interfaces.includes('block/sda') && isBound(disk));
    assert.deepEqual(find(inventory, 'usb:1-2').type, 'hub');
    assert.equal(find(inventory, 'usb:usb1').parent, 'pci:0000:00:11.0');
    assert.deepEqual(
      ['platform:i8042', 'platform:QEMU0002:00', 'platform:00:03'].map((id) => find(inventory, id).type),
      ['i8042', 'fw-cfg', 'serial'],
    );
    assert.deepEqual(find(inventory, 'platform:00:03').interfaces, ['tty/ttyS0']);
    assert.equal(
      inventory.devices.some(({ id }) => id === 'platform:serial8250'),
      false,
      'there is no port behind it',
    );
  });

  test(`${kernel}: what decisions need is the same with less reading`, async () => {
    for (const state of ['unbound', 'bound']) {
      const files = vectorFiles(`${kernel}-${state}`);
      const read = new Map<string, number>();
      const counting: FakeFiles = {
        ...files,
        read: (path, limit) => {
          read.set(path, (read.get(path) ?? 0) + 1);
          return files.read(path, limit);
        },
      };
      const decision = await inventoryOf(counting, { detail: 'decision' });
      const full = await inventoryOf(vectorFiles(`${kernel}-${state}`));
      assert.ok(
        [...read.values()].every((times) => times === 1),
        'each attribute is read once',
      );
      assert.equal(
        [...read.keys()].some((path) => path.endsWith('/status') || path.endsWith('/config')),
        false,
      );
      assert.deepEqual(decision.kernel, full.kernel);
      const essence = ({ link, doe, tsm, status, interfaces, ...rest }: Device) => rest;
      assert.deepEqual(decision.devices.map(essence), full.devices.map(essence));
      const names = (device: Device) => device.interfaces.filter((name) => /^(block|net|nvme)\//.test(name));
      assert.deepEqual(decision.devices.map(names), full.devices.map(names));
    }
  });

  test(`${kernel}: nothing is written but by a probe`, async () => {
    for (const state of ['unbound', 'bound']) {
      const files = vectorFiles(`${kernel}-${state}`);
      await readInventory(files);
      assert.deepEqual(files.writes, []);
    }
    const bound = vectorFiles(`${kernel}-bound`);
    await readInventory(bound, { probe: true });
    assert.deepEqual(bound.writes, [], 'a function with a driver is never probed');
    const unbound = vectorFiles(`${kernel}-unbound`);
    await readInventory(unbound, { probe: ['pci:0000:00:03.0'] });
    assert.ok(unbound.writes.length > 0);
    assert.ok(unbound.writes.every(({ path }) => path === '/sys/devices/pci0000:00/0000:00:03.0/config'));
  });
}

test('virtio over MMIO is one device, of unknown type until its transport is bound', async () => {
  const unbound = await inventoryOf(vectorFiles('microvm-6.12-unbound'));
  const before = find(unbound, 'platform:LNRO0005:00');
  assert.deepEqual([before.bus, before.transport, before.type, isBound(before)], ['virtio', 'mmio', null, false]);
  assert.equal('serial' in before, false);
  const bound = await inventoryOf(vectorFiles('microvm-6.12-bound'));
  const after = find(bound, 'platform:LNRO0005:00');
  assert.deepEqual([after.type, after.serial, after.interfaces], ['block', 'root', ['block/vda']]);
  assert.deepEqual(
    after.nodes.map(({ bus }) => bus),
    ['platform', 'virtio'],
  );
  assert.equal(
    bound.devices.some(({ id }) => id.startsWith('virtio:')),
    false,
  );
});

test('present at boot or hot-plugged: as the gate wrote it, or not known', async () => {
  const files = vectorFiles('q35-7.2-unbound');
  assert.equal(find(await inventoryOf(files), 'pci:0000:00:03.0').origin, undefined);
  files.tree.set('/run/airlock/boot-devices.json', '["pci:0000:00:03.0"]');
  const seen = await inventoryOf(files);
  assert.equal(find(seen, 'pci:0000:00:03.0').origin, 'boot');
  assert.equal(find(seen, 'pci:0000:00:04.0').origin, 'hotplug');
  const given = await inventoryOf(files, { bootDevices: ['pci:0000:00:04.0'] });
  assert.equal(find(given, 'pci:0000:00:03.0').origin, 'hotplug');
  for (const wrong of ['{"pci:0000:00:03.0":1}', '[1]', 'pci', '']) {
    files.tree.set('/run/airlock/boot-devices.json', wrong);
    assert.equal(find(await inventoryOf(files), 'pci:0000:00:03.0').origin, undefined, wrong);
  }
});
