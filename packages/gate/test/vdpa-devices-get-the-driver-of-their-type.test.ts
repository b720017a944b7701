import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Decision } from '@airlock/core/decision.ts';
import type { Device, Inventory, SysfsNode } from '@airlock/core/device.ts';
import type { Step } from '@airlock/core/plan.ts';
import { planFor } from '@airlock/gate/plan.ts';

const OUTER: SysfsNode = { bus: 'vdpa', name: 'data', driver: null };
const BOUND: SysfsNode = { ...OUTER, driver: 'virtio_vdpa' };
const inner = (driver: string | null): SysfsNode => ({ bus: 'virtio', name: 'virtio7', driver });

function stepsFor(nodes: readonly SysfsNode[], level: Decision['level'], type: string | null): readonly Step[] {
  const device = {
    ...{ id: 'vdpa:data', bus: 'vdpa', transport: 'vdpa', location: 'data', path: '/sys/devices/vduse/data' },
    ...{ nodes, type, interfaces: [], faults: [] },
    ...(type === null ? {} : { virtioId: 2 }),
  } as unknown as Device;
  const decision = { device: 'vdpa:data', level, rule: null, reason: 'default', detail: '' } as unknown as Decision;
  const kernel = { autoprobe: { pci: false, virtio: false, vdpa: false, usb: false } };
  const inventory = { version: 1, kernel, devices: [device] } as unknown as Inventory;
  return planFor([decision], inventory).steps;
}

test('first virtio_vdpa is asked for, of whatever type the device is', () => {
  assert.deepEqual(stepsFor([OUTER], 'limited', null), [
    { kind: 'bind', device: 'vdpa:data', bus: 'vdpa', node: 'data', driver: '*' },
  ]);
});

test('then what has grown from it gets the driver of its type', () => {
  assert.deepEqual(stepsFor([BOUND, inner(null)], 'limited', 'block'), [
    { kind: 'load', device: 'vdpa:data', module: 'virtio_blk' },
    { kind: 'bind', device: 'vdpa:data', bus: 'virtio', node: 'virtio7', driver: 'virtio_blk' },
  ]);
});

test('and then it is as decided', () => {
  assert.deepEqual(stepsFor([BOUND, inner('virtio_blk')], 'limited', 'block'), []);
});

test('a denied one loses both, the inner one first, and none can bind again', () => {
  assert.deepEqual(
    stepsFor([BOUND, inner('virtio_blk')], 'disconnected', 'block').map((step) => [
      step.kind,
      'bus' in step ? step.bus : null,
    ]),
    [
      ['unbind', 'virtio'],
      ['unbind', 'vdpa'],
      ['pin', 'vdpa'],
    ],
  );
});
