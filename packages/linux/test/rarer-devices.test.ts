import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Device, isBound } from '@airlock/core/device.ts';
import { type FakeNode, fakeFiles } from '../src/fake-files.ts';
import { findDevice } from '../src/find-device.ts';
import { readInventory } from '../src/inventory.ts';

/** Trees written after the kernel's documentation (Documentation/ABI/testing), not taken from a machine. */
async function devicesOf(tree: Readonly<Record<string, FakeNode>>): Promise<readonly Device[]> {
  const result = await readInventory(fakeFiles(tree));
  assert.ok(result.ok, JSON.stringify(result));
  return result.value.devices;
}

const FUNCTION = '/sys/devices/pci0000:00/0000:00:05.0';
const functionTree: Readonly<Record<string, FakeNode>> = {
  '/sys/bus/pci/devices/0000:00:05.0': { link: '../../../devices/pci0000:00/0000:00:05.0' },
  [`${FUNCTION}/modalias`]: 'pci:v00008086d000010C9sv00001AF4sd00001100bc01sc08i02\n',
  [`${FUNCTION}/revision`]: '0x02\n',
};

test('a vdpa device stays on its bus when a virtio device grows from it', async () => {
  const unbound: Readonly<Record<string, FakeNode>> = {
    '/sys/bus/vdpa/devices/vdpa0': { link: '../../../devices/pci0000:00/0000:00:05.0/vdpa0' },
    [`${FUNCTION}/vdpa0/driver_override`]: '(null)\n',
    ...functionTree,
  };
  const before = (await devicesOf(unbound)).find(({ id }) => id === 'vdpa:vdpa0');
  assert.ok(before);
  assert.deepEqual(
    [before.bus, before.transport, before.type, isBound(before), before.parent],
    ['vdpa', 'vdpa', null, false, 'pci:0000:00:05.0'],
  );
  const bound = await devicesOf({
    ...unbound,
    [`${FUNCTION}/vdpa0/driver`]: { link: '../../../../bus/vdpa/drivers/virtio_vdpa' },
    '/sys/bus/virtio/devices/virtio0': { link: '../../../devices/pci0000:00/0000:00:05.0/vdpa0/virtio0' },
    [`${FUNCTION}/vdpa0/virtio0/device`]: '0x0001\n',
    [`${FUNCTION}/vdpa0/virtio0/vendor`]: '0x00001af4\n',
    [`${FUNCTION}/vdpa0/virtio0/features`]: `${'0'.repeat(32)}11${'0'.repeat(30)}\n`,
    [`${FUNCTION}/vdpa0/virtio0/driver`]: { link: '../../../../../bus/virtio/drivers/virtio_net' },
  });
  const after = bound.find(({ id }) => id === 'vdpa:vdpa0');
  assert.ok(after);
  assert.deepEqual([after.bus, after.transport, after.type, isBound(after)], ['vdpa', 'vdpa', 'net', true]);
  assert.deepEqual(after.features?.negotiated, ['VERSION_1', 'ACCESS_PLATFORM']);
  assert.equal(bound.length, 2);
});

test('channel I/O, and a carrier that nobody knows, still show their virtio device', async () => {
  const devices = await devicesOf({
    '/sys/bus/virtio/devices/virtio0': { link: '../../../devices/css0/0.0.0003/0.0.0001/virtio0' },
    '/sys/devices/css0/0.0.0003/0.0.0001/virtio0/device': '0x0002\n',
    '/sys/devices/css0/0.0.0003/0.0.0001/driver': { link: '../../../../bus/ccw/drivers/virtio_ccw' },
    '/sys/bus/virtio/devices/virtio1': { link: '../../../devices/strange/virtio1' },
    '/sys/devices/strange/virtio1/device': '0x0004\n',
  });
  assert.deepEqual(
    devices.map(({ id, bus, transport, type }) => [id, bus, transport, type]),
    [
      ['ccw:0.0.0001', 'virtio', 'ccw', 'block'],
      ['virtio:virtio1', 'virtio', null, 'entropy'],
    ],
  );
  assert.equal(devices[0]?.nodes[0]?.driver, 'virtio_ccw');
});

test('DOE protocols and the TSM state, merged and not merged, are shown where they are', async () => {
  const tree: Record<string, FakeNode> = {
    ...functionTree,
    '/sys/class/tsm/tsm0/uevent': '',
    [`${FUNCTION}/doe_features/0001:00`]: '',
    [`${FUNCTION}/doe_features/0001:01`]: '',
    [`${FUNCTION}/doe_features/doe_discovery`]: '',
    [`${FUNCTION}/doe_features/\x1b[2J`]: '',
    [`${FUNCTION}/tsm/connect`]: 'tsm0\n',
    [`${FUNCTION}/tsm/bound`]: '\n',
    [`${FUNCTION}/authenticated`]: 'tsm0\n',
  };
  const [merged] = await devicesOf(tree);
  assert.deepEqual(merged?.doe, ['0001:00', '0001:01']);
  assert.deepEqual(merged?.tsm, { connected: 'tsm0', bound: null, authenticated: 'tsm0' });
  const [guest] = await devicesOf({
    ...tree,
    [`${FUNCTION}/tsm/lock`]: 'tsm0\n',
    [`${FUNCTION}/tsm/accept`]: 'perhaps\n',
  });
  assert.deepEqual([guest?.tsm?.locked, guest?.tsm?.accepted], ['tsm0', undefined]);
  assert.equal(guest?.faults[0]?.attribute, 'tsm/accept');
  const [none] = await devicesOf(functionTree);
  assert.equal(none?.tsm, undefined);
});

test('a device is found by what people call it, and two of a name are not guessed between', async () => {
  const devices = await devicesOf(functionTree);
  const [device] = devices;
  assert.ok(device);
  const two = [device, { ...device, id: 'pci:0001:00:05.0', interfaces: ['net/eth0'] }];
  const both = findDevice(two, '0000:00:05.0');
  assert.equal(both.ok ? 'ok' : both.error.code, 'device-ambiguous');
  assert.ok(findDevice(two, 'eth0').ok);
  assert.ok(findDevice(two, 'pci:0000:00:05.0').ok);
  const missing = findDevice(two, 'x'.repeat(10_000));
  assert.equal(missing.ok ? 'ok' : missing.error.code, 'device-unknown');
});

test('a pnp device that does not tell what it is may be anything, so it is shown; one that tells is shown or left out', async () => {
  const pnp = (name: string, id: FakeNode): Record<string, FakeNode> => ({
    [`/sys/bus/pnp/devices/${name}`]: { link: `../../../devices/pnp0/${name}` },
    [`/sys/devices/pnp0/${name}/id`]: id,
  });
  const devices = await devicesOf({
    ...pnp('00:01', 'PNP0303\n'),
    ...pnp('00:02', 'PNP0501\nPNP0500\n'),
    ...pnp('00:03', { fails: 'file-denied' }),
  });
  assert.deepEqual(
    devices.map(({ id, type, faults }) => [id, type, faults.length]),
    [
      ['platform:00:02', 'serial', 0],
      ['platform:00:03', null, 1],
    ],
  );
});

test('a serial8250 is a device when a UART answers behind it', async () => {
  const tree = (type: string): Record<string, FakeNode> => ({
    '/sys/bus/platform/devices/serial8250': { link: '../../../devices/platform/serial8250' },
    '/sys/devices/platform/serial8250/driver': { link: '../../../bus/platform/drivers/serial8250' },
    '/sys/class/tty/ttyS0': { link: '../../devices/platform/serial8250/serial8250:0/serial8250:0.0/tty/ttyS0' },
    '/sys/devices/platform/serial8250/serial8250:0/serial8250:0.0/tty/ttyS0/type': type,
  });
  assert.deepEqual(await devicesOf(tree('0\n')), []);
  for (const type of ['4\n', 'x']) {
    const [port] = await devicesOf(tree(type));
    assert.deepEqual([port?.id, port?.type, port?.interfaces], ['platform:serial8250', 'serial', ['tty/ttyS0']]);
  }
});

test('a TPM is in use whether the platform or the ACPI bus drives it', async () => {
  // As 6.1 and 7.2 show QEMU's tpm-crb.
  const node = '/sys/devices/LNXSYSTM:00/LNXSYBUS:00/MSFT0101:00';
  const tree: Readonly<Record<string, FakeNode>> = {
    '/sys/bus/acpi/devices/MSFT0101:00': { link: `../../..${node.slice(4)}` },
    '/sys/bus/platform/devices/MSFT0101:00': { link: '../../../devices/platform/MSFT0101:00' },
    '/sys/devices/platform/MSFT0101:00/modalias': 'acpi:MSFT0101:MSFT0101:\n',
  };
  const [old] = await devicesOf({
    ...tree,
    [`${node}/driver`]: { link: '../../../../bus/acpi/drivers/tpm_crb' },
    '/sys/class/tpm/tpm0': { link: `../..${node.slice(4)}/tpm/tpm0` },
  });
  assert.ok(old);
  assert.deepEqual(
    [old.id, old.type, old.interfaces, isBound(old)],
    ['platform:MSFT0101:00', 'tpm', ['tpm/tpm0'], true],
  );
  assert.deepEqual(old.nodes.at(-1), { bus: 'acpi', name: 'MSFT0101:00', driver: 'tpm_crb' });
  const [recent] = await devicesOf({
    ...tree,
    '/sys/devices/platform/MSFT0101:00/driver': { link: '../../../bus/platform/drivers/tpm_crb_acpi' },
    '/sys/class/tpm/tpm0': { link: '../../devices/platform/MSFT0101:00/tpm/tpm0' },
  });
  assert.deepEqual([recent?.nodes.length, recent?.interfaces, recent && isBound(recent)], [1, ['tpm/tpm0'], true]);
  const [idle] = await devicesOf(tree);
  assert.equal(idle && isBound(idle), false);
});
