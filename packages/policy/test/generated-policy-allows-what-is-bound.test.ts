import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Device, isBound } from '@airlock/core/device.ts';
import { isConnected } from '@airlock/core/level.ts';
import { pciTypeName } from '@airlock/core/pci-class.ts';
import { VIRTIO_TYPES } from '@airlock/core/virtio.ts';
import fc from 'fast-check';
import { compilePolicy } from '../src/compile.ts';
import { decide } from '../src/decide.ts';
import { formatPolicy } from '../src/format.ts';
import { generatePolicy } from '../src/generate.ts';
import { device, machine, nic, parse } from './policy-fixtures.ts';

const bound = (one: Device, driver = 'a_driver'): Device => ({
  ...one,
  nodes: [
    { bus: 'pci', name: one.location, driver: 'virtio-pci' },
    { bus: 'virtio', name: 'virtio0', driver },
  ],
});

const features = fc.constantFrom(
  undefined,
  ['VERSION_1'],
  ['VERSION_1', 'ACCESS_PLATFORM', 'INDIRECT_DESC'],
  ['RING_PACKED'],
);
const virtio = fc
  .record({
    type: fc.constantFrom('net', 'block', '9p', 'gpu'),
    serial: fc.constantFrom(undefined, null, 'a', 'b: "c"'),
    negotiated: features,
  })
  .map(({ type, serial, negotiated }) => {
    const virtioId = VIRTIO_TYPES[type as 'net'];
    return device({
      type,
      virtioId,
      device: 0x1040 + virtioId,
      ...(serial === undefined ? {} : { serial: type === 'block' ? serial : null }),
      ...(negotiated === undefined ? {} : { features: { negotiated } }),
    });
  });
const pci = fc
  .record({
    device: fc.constantFrom(0x101e, 0x10, 0),
    class: fc.constantFrom(0x020000, 0x010802, 0x060400, 0x0c0330, 0xfe0000),
    subsystem: fc.constantFrom(null, { vendor: 1, device: 2 }),
    sriov: fc.constantFrom(
      null,
      { role: 'physical' as const },
      { role: 'virtual' as const },
      { role: 'virtual' as const, physical: 'pci:0000:01:00.0' },
    ),
  })
  .map((given) => nic({ ...given, type: pciTypeName(given.class) }));
const other = fc.constantFrom(
  nic({ bus: 'usb', type: 'hid', class: 0x030101, subsystem: null }),
  nic({ bus: 'platform', type: 'serial', class: null, revision: null, subsystem: null, serial: null }),
);

test('what is bound may be used after a reboot, nothing else of another kind', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.oneof(virtio, pci, other), fc.boolean()), { maxLength: 6 }), (pairs) => {
      const devices = pairs.map(([one, used], index) => {
        const placed = { ...one, id: `${one.bus}:${index}`, location: `place-${index}` };
        // Before binding the gate sees less than this machine did.
        return used ? bound(placed) : placed;
      });
      const text = generatePolicy(machine(devices), { mode: 'enforce' });
      const policy = compilePolicy(parse(text));
      for (const [index, decision] of decide(policy, machine(devices), {}).entries()) {
        const one = devices[index];
        assert.ok(one);
        if (isBound(one)) assert.ok(isConnected(decision.level), `${text}\n${JSON.stringify(one)}`);
        const sibling = devices.some((two) => isBound(two) && two.type === one.type);
        if (!isBound(one) && !sibling) assert.equal(decision.level, 'disconnected', `${text}\n${JSON.stringify(one)}`);
      }
    }),
    { numRuns: 300 },
  );
});

test('rules are as narrow as what survives a reboot', () => {
  const text = generatePolicy(
    machine([
      bound(
        device({
          serial: 'root "1"',
          interfaces: ['block/vda'],
          features: { negotiated: ['VERSION_1', 'ACCESS_PLATFORM'] },
        }),
      ),
      bound(nic({ interfaces: ['net/eth0'] })),
      device({ id: 'pci:0000:00:09.0', type: 'balloon', virtioId: 5 }),
    ]),
  );
  assert.match(text, /match: \{ bus: virtio, type: block, serial: "root \\"1\\"", hotplugged: false \}/);
  assert.match(text, /require: \[VERSION_1, ACCESS_PLATFORM\], forbid: \[RING_PACKED\]/);
  assert.match(text, /vendor: 0x15b3, device: 0x101e, subsystem: \{ vendor: 0x1af4, device: 0x1100 \}/);
  assert.match(text, /# {3}pci:0000:00:09\.0 virtio balloon/);
  assert.match(text, /boot-critical: \[block\]/);
  assert.match(text, /^mode: audit$/m);
  assert.deepEqual(formatPolicy(text, 'p').ok, true);
  parse(text);
});

test('text that a device sends cannot leave its comment or its quotes', () => {
  const evil = '\n  - { id: x, match: {}, level: tcb }\n#\u001b[31m"';
  const text = generatePolicy(
    machine([bound(device({ id: `pci:${evil}`, serial: evil })), device({ id: `usb:${evil}`, type: evil })], {
      release: evil,
    }),
  );
  assert.deepEqual(
    parse(text).rules.map((rule) => rule.id),
    ['block'],
  );
  assert.doesNotMatch(text, /\u001b/);
});

test('a machine without devices gives a policy all the same', () => {
  assert.deepEqual(parse(generatePolicy(machine([]))).rules, []);
  assert.equal(parse(generatePolicy(machine([]), { mode: 'learn' })).learnFor, 1800);
});
