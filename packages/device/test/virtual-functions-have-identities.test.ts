/** Functions of one process: by themselves each has a serial number of its own, as a group they have one between them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deviceSerialNumber, readHeader, walkExtended } from '@airlock/linux/pci-config.ts';
import { EntropyDevice } from '../src/entropy/device.ts';
import { parseServeEvent, type ServeRequest, virtualSocket } from '../src/serve-event.ts';
import { type OneFunction, vfioUserFunctions } from '../src/serve-transport.ts';

const entropy = () => new EntropyDevice((target) => void target.fill(7));

function serve(virtual: number, more: Partial<ServeRequest> = {}): readonly OneFunction[] {
  const request: ServeRequest = {
    ...{ type: 'entropy', transport: 'vfio-user', socket: '/run/vm1/random.sock', folder: '/', values: {} },
    ...{ once: false, unsealedMemory: false, sandbox: true, plain: false },
    ...more,
  };
  const others = Array.from({ length: virtual }, entropy);
  const made = vfioUserFunctions({ device: entropy(), virtual: others, request, tell: () => {} });
  assert.ok(made.ok, JSON.stringify(made));
  return made.value;
}

function configOf({ served }: OneFunction): Uint8Array {
  const bytes = new Uint8Array(4096);
  served.readRegion(7, 0, bytes);
  return bytes;
}
const serialOf = (one: OneFunction) => deviceSerialNumber(configOf(one), walkExtended(configOf(one)));
const capabilities = (one: OneFunction) => walkExtended(configOf(one)).capabilities.map(({ name }) => name);

test('one function by itself is as it always was', () => {
  const [only, ...more] = serve(0);
  assert.ok(only);
  assert.deepEqual([more.length, capabilities(only)], [0, []]);
});

test('several functions: each by itself, with a serial number that is its own and the same at the next start', () => {
  const functions = serve(2);
  const serials = functions.map(serialOf);
  assert.equal(new Set(serials).size, 3);
  assert.deepEqual(serve(2).map(serialOf), serials);
  assert.notDeepEqual(serve(2, { socket: '/run/vm2/random.sock' }).map(serialOf), serials);
  for (const one of functions) {
    assert.equal(readHeader(configOf(one))?.device, 0x1044);
    assert.deepEqual(capabilities(one), ['device-serial-number'], 'none is the physical function of another');
  }
  assert.equal(new Set(functions.map(({ side }) => side)).size, 3);
});

test('a group: the physical function says how many there can be, and all have its serial number (PCIe 6.0 §7.9.3)', () => {
  const functions = serve(3, { sriov: true });
  assert.equal(functions.length, 4);
  assert.equal(new Set(functions.map(serialOf)).size, 1);
  assert.deepEqual(functions.map(capabilities), [
    ['sr-iov', 'device-serial-number'],
    ['device-serial-number'],
    ['device-serial-number'],
    ['device-serial-number'],
  ]);
});

test('what a device process tells of its functions is checked as everything that it tells', () => {
  const read = (event: unknown) => parseServeEvent(JSON.stringify(event));
  assert.deepEqual(read({ event: 'virtual-functions', enabled: 2 }), {
    ok: true,
    value: { event: 'virtual-functions', enabled: 2 },
  });
  for (const enabled of ['2', null, 0.5, -1, {}]) assert.equal(read({ event: 'virtual-functions', enabled }).ok, false);
  assert.deepEqual(read({ event: 'connected', socket: 5 }), { ok: true, value: { event: 'connected' } });
  const socket = virtualSocket('/run/a.sock', 1);
  assert.equal(socket, '/run/a.sock-vf1');
  assert.deepEqual(read({ event: 'connected', socket }), { ok: true, value: { event: 'connected', socket } });
});
