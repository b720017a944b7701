import assert from 'node:assert/strict';
import { test } from 'node:test';
import { file } from '@airlock/gate/build/cpio.ts';
import { bootGuest, disk, skip } from './guest.ts';

const POLICY = `version: 1
mode: enforce
default: disconnected
boot-critical: [root-disk]
modules: { disable-loading: after-gate }
rules:
  - id: root-disk
    match: { bus: virtio, type: block, serial: root }
    level: limited
  - id: nic
    match: { bus: virtio, type: net, hotplugged: false }
    level: limited
    features: { forbid: [RING_PACKED] }
  - id: entropy
    match: { bus: virtio, type: entropy }
    level: limited
  - id: serial-port
    match: { bus: platform, type: serial }
    level: limited
`;

const COMMON = 'iommu_platform=on,disable-legacy=on';
const net = (id: string, more = '') => [
  '-netdev',
  `user,id=${id},restrict=on`,
  '-device',
  `virtio-net-pci,netdev=${id},${COMMON}${more}`,
];
// In this order from 0000:00:01.0 on.
const DEVICES = [
  ...disk('d1', 'root'),
  ...net('n1'),
  ...['-device', `virtio-rng-pci,${COMMON}`],
  ...['-device', `virtio-balloon-pci,${COMMON}`],
  ...['-device', `virtio-serial-pci,${COMMON}`],
  ...['-drive', 'if=none,id=d2,file=DISK,format=raw,snapshot=on', '-device', 'nvme,drive=d2,serial=nv'],
  ...net('n2', ',packed=on'),
  ...disk('d3', 'other'),
];
const at = (slot: number) => `0000:00:0${slot}.0`;

interface Enforcement {
  readonly status: string;
  readonly decision: { readonly device: string; readonly level: string; readonly reason: string };
  readonly outcomes: readonly { readonly property: string; readonly status: string; readonly because?: string }[];
}

for (const kernel of ['6.1', '6.12', '7.2'] as const) {
  test(`Linux ${kernel}: exactly the allowed devices are bound when the real init starts`, { skip }, async () => {
    const denied = [4, 5, 6, 7, 8].map(at);
    const seen = await bootGuest({
      kernel,
      policy: POLICY,
      devices: DEVICES,
      append: `denied="${denied.join(' ')}" -- one two`,
    });
    assert.ok(seen.ended, seen.console);
    // Drivers, as busybox sees them.
    assert.deepEqual(
      [1, 2, 3, 4, 5, 6, 7, 8].map((slot) => seen.driver(at(slot))),
      ['virtio-pci', 'virtio-pci', 'virtio-pci', '', '', '', '', ''],
      seen.console,
    );
    assert.deepEqual(
      seen
        .said('driver virtio')
        .map((line) => line.split(' ')[1])
        .sort(),
      ['virtio_blk', 'virtio_net', 'virtio_rng'],
    );
    // A root shell tries to bind what is denied, and a rescan.
    assert.deepEqual(
      seen.said('forced'),
      denied.map((node) => `${node} `.trimEnd()),
    );
    assert.deepEqual(seen.said('autoprobe').slice(0, 2), ['pci 0', 'virtio 0']);
    assert.deepEqual(seen.said('modules_disabled'), ['1']);
    const modules = ` ${seen.said('modules')[0]} `;
    assert.ok(!/ (nvme|virtio_balloon) /.test(modules), modules);
    // Arguments and environment go on to the real init.
    assert.deepEqual(seen.said('args'), ['one two']);
    assert.match(seen.said('env')[0] ?? '', /denied=/);

    const enforcement = JSON.parse(seen.said('enforcement')[0] ?? '[]') as Enforcement[];
    const of = (slot: number) => enforcement.find((one) => one.decision.device === `pci:${at(slot)}`);
    for (const slot of [1, 2, 3, 4, 5, 6, 7, 8]) {
      assert.equal(of(slot)?.status, 'enforced', JSON.stringify(of(slot)));
      assert.equal(of(slot)?.decision.level, slot <= 3 ? 'limited' : 'disconnected');
    }
    assert.ok(of(1)?.outcomes.some((one) => one.property.startsWith('DMA bounced') && one.status === 'enforced'));
    assert.equal(of(7)?.decision.reason, 'feature-forbidden');
    const gate = JSON.parse(seen.said('gate')[0] ?? '{}') as {
      readonly machine: Enforcement['outcomes'];
      readonly problems: readonly unknown[];
    };
    assert.deepEqual(gate.problems, []);
    assert.equal(
      gate.machine.find((one) => one.property.startsWith('hot-plugged'))?.status,
      kernel === '7.2' ? 'enforced' : 'not-enforceable',
    );
    assert.match(seen.console, /drwx------ .* \/run\/airlock/);
  });
}

const BROKEN = DEVICES.slice(0, 14);
const kernel = '7.2';

test('a policy that is broken in the initramfs: disks, nothing else, and a loud report', { skip }, async () => {
  const seen = await bootGuest({
    kernel,
    policy: POLICY,
    devices: BROKEN,
    over: [file('airlock/policy.json', Buffer.from('{"version":1,"documents":[{}]}'))],
    append: 'airlock.mode=audit',
  });
  assert.ok(seen.ended, seen.console);
  assert.equal(seen.driver(at(1)), 'virtio-pci');
  assert.deepEqual(
    seen.said('driver virtio').map((line) => line.split(' ')[1]),
    ['virtio_blk'],
  );
  assert.match(seen.console, /airlock: !! .*\[policy-unusable\]/);
});

test('a /run that cannot be written: boot-critical devices only, and a loud report', { skip }, async () => {
  const seen = await bootGuest({
    kernel,
    policy: POLICY,
    devices: BROKEN,
    over: [
      file(
        'airlock/mounts',
        Buffer.from('proc /proc proc defaults 0 0\nsysfs /sys sysfs defaults 0 0\ntmpfs /run tmpfs ro 0 0\n'),
      ),
    ],
  });
  assert.ok(seen.ended, seen.console);
  assert.deepEqual(
    seen.said('driver virtio').map((line) => line.split(' ')[1]),
    ['virtio_blk'],
  );
  assert.match(seen.console, /EROFS.*\[state-unwritable\]/);
});

test('without /sys, or when the gate itself dies, the real init never runs', { skip }, async () => {
  const without = await bootGuest({
    kernel,
    policy: POLICY,
    devices: [],
    over: [file('airlock/mounts', Buffer.from('proc /proc proc defaults 0 0\ntmpfs /run tmpfs defaults 0 0\n'))],
  });
  assert.equal(without.ended, false);
  assert.match(without.console, /\[sysfs-missing\]/);
  assert.match(without.console, /this machine is not started/);
  const dead = await bootGuest({
    kernel,
    policy: POLICY,
    devices: [],
    over: [file('airlock/gate', Buffer.from('#!/airlock/busybox sh\nkill -SEGV $$\n'), 0o755)],
  });
  assert.equal(dead.ended, false);
  assert.match(dead.console, /the gate ended with 139: this machine is not started/);
});
