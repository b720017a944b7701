import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Decision } from '@airlock/core/decision.ts';
import type { Enforcement, OutcomeStatus } from '@airlock/core/plan.ts';
import fc from 'fast-check';
import { parseEnforcement } from '../src/airlock-state.ts';
import { renderReport } from '../src/render.ts';
import { type ReportParts, reportOf } from '../src/report.ts';
import { driverOf, parseView, touchingDriver, usableDriver, type View } from '../src/view.ts';

const VIEW = `pci/devices/0000:00:02.0/vendor:0x1af4
pci/devices/0000:00:06.0/vendor:0x1af4
pci/devices/0000:00:0a.0/vendor:0x1b36
pci/devices/0000:00:02.0/device:0x1042
pci/devices/0000:00:06.0/device:0x1045
pci/devices/0000:00:0a.0/device:0x0010
pci/devices/0000:00:02.0/class:0x010000
pci/devices/0000:00:06.0/class:0x00ff00
pci/devices/0000:00:0a.0/class:0x010802
pci/devices/0000:00:02.0/driver -> ../../../bus/pci/drivers/virtio-pci
pci/devices/0000:00:06.0/driver -> ../../../bus/pci/drivers/virtio-pci
pnp/devices/00:03/driver -> ../../../bus/pnp/drivers/i8042 kbd
virtio/devices/virtio0 -> ../../../devices/pci0000:00/0000:00:02.0/virtio0
virtio/devices/virtio0/driver -> ../../../../bus/virtio/drivers/virtio_blk
virtio/devices/virtio1 -> ../../../devices/pci0000:00/0000:00:06.0/virtio1
`;

function view(text = VIEW): View {
  const parsed = parseView(text);
  assert.ok(parsed.ok);
  return parsed.value;
}

test('a virtio function is usable by the driver of its inner node only', () => {
  const [disk, balloon, nvme] = view().pci;
  assert.ok(disk && balloon && nvme);
  assert.deepEqual([usableDriver(disk), touchingDriver(disk)], ['virtio_blk', 'virtio_blk']);
  assert.deepEqual([usableDriver(balloon), touchingDriver(balloon)], [null, 'virtio-pci']);
  assert.deepEqual([usableDriver(nvme), touchingDriver(nvme)], [null, null]);
  assert.equal(driverOf(view(), 'pci:0000:00:1e.0'), undefined);
});

test('what is no view is an error, and nothing throws', () => {
  for (const text of ['', 'sh: not found\n', `${VIEW}oops\n`]) {
    const parsed = parseView(text);
    assert.equal(!parsed.ok && parsed.error.code, 'guest-answer');
  }
  fc.assert(fc.property(fc.string(), (text) => void parseView(text)));
});

function enforcement(device: string, level: Decision['level'], status: OutcomeStatus = 'enforced'): Enforcement {
  return {
    decision: {
      device,
      level,
      rule: level === 'disconnected' ? null : { id: 'a-rule', file: 'p.yaml', line: 1 },
      reason: level === 'disconnected' ? 'default' : 'rule-matched',
      detail: '',
      tier: 'claimed',
      inputs: [],
      changes: [],
      pending: [],
      grantable: level,
    },
    outcomes: [{ property: 'p', status, ...(status === 'enforced' ? {} : { because: 'this kernel cannot' }) }],
    status,
  };
}

function parts(enforcements: readonly Enforcement[], more: Partial<ReportParts> = {}): ReportParts {
  return {
    gate: { mode: 'enforce', milliseconds: 100, kernel: '7.2', problems: [], machine: [] },
    agent: null,
    known: new Set(['pci:0000:00:02.0', 'pci:0000:00:06.0']),
    attempts: [],
    shown: [],
    added: null,
    view: view(),
    enforcement: enforcements,
    without: undefined,
    kernel: { series: '7.2', release: '7.2.0' },
    accelerator: { name: 'tcg', because: 'no /dev/kvm' },
    policy: 'p.yaml',
    seconds: 1,
    ...more,
  };
}

const DISK = enforcement('pci:0000:00:02.0', 'limited');
const NVME = enforcement('pci:0000:00:0a.0', 'disconnected');

test('a denied device on which any driver sits is not as claimed', () => {
  // virtio-pci alone is enough: it has switched the function on.
  const report = reportOf(parts([DISK, NVME, enforcement('pci:0000:00:06.0', 'disconnected')]));
  assert.equal(report.held, false);
  assert.deepEqual(
    report.devices.filter((device) => !device.agrees).map((device) => device.id),
    ['pci:0000:00:06.0'],
  );
  assert.match(renderReport(report, false), /does not hold/);
});

test('where Airlock says itself that it could not, the report is honest', () => {
  const honest = enforcement('pci:0000:00:06.0', 'disconnected', 'not-enforceable');
  const report = reportOf(parts([DISK, NVME, honest]));
  assert.ok(report.devices.every((device) => device.agrees));
  assert.match(renderReport(report, false), /this kernel cannot/);
});

test('an allowed device without a driver is not as claimed', () => {
  const report = reportOf(parts([enforcement('pci:0000:00:0a.0', 'limited'), DISK]));
  assert.deepEqual(
    report.devices.filter((device) => !device.agrees).map((device) => device.id),
    ['pci:0000:00:0a.0'],
  );
});

test('a function of which nothing was said, a silent agent, and an attempt that succeeded: not held', () => {
  const all = [DISK, NVME, enforcement('pci:0000:00:06.0', 'disconnected', 'not-enforceable')];
  assert.equal(reportOf(parts(all)).held, true);
  assert.deepEqual(reportOf(parts([DISK, NVME])).undecided, ['pci:0000:00:06.0']);
  assert.equal(reportOf(parts([DISK, NVME])).held, false);
  assert.equal(reportOf(parts(all, { agent: 'it crashed' })).held, false);
  const attempt = {
    id: 'bind',
    title: 'bind',
    tried: 1,
    bound: ['pci:0000:00:0a.0'],
    left: ['pci:0000:00:0a.0'],
    settledMilliseconds: null,
  };
  assert.equal(reportOf(parts(all, { attempts: [attempt] })).held, false);
  assert.equal(reportOf(parts(all, { attempts: [{ ...attempt, left: [], settledMilliseconds: 300 }] })).held, true);
});

test('what came after boot is marked as plugged in', () => {
  const report = reportOf(parts([DISK, NVME]));
  assert.deepEqual(
    report.devices.map((device) => device.origin),
    ['boot', 'hotplug'],
  );
});

test('a state file of another shape is refused', () => {
  assert.equal(parseEnforcement([DISK]).ok, true);
  const wrong = [
    null,
    {},
    [1],
    [{ ...DISK, status: 'fine' }],
    [{ ...DISK, decision: { ...DISK.decision, level: 'root' } }],
  ];
  for (const value of wrong) assert.equal(parseEnforcement(value).ok, false);
});

test('text of a device never reaches the terminal as it is', () => {
  const evil = { ...DISK, decision: { ...DISK.decision, rule: { id: '\x1b[2J', file: 'x', line: 1 } } };
  assert.ok(!renderReport(reportOf(parts([evil])), false).includes('\x1b'));
});
