/** A physical function and its virtual ones before firmware and before an operating system that knows SR-IOV. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Problem } from '@airlock/core/result.ts';
import { walkExtended } from '@airlock/linux/pci-config.ts';
import type { ServedFunction } from '@airlock/transport/vfio-user/served-function.ts';
import { EntropyDevice } from '../src/entropy/device.ts';
import { deviceSerialNumber } from '../src/pci/capability.ts';
import { type SriovGroup, sriovGroup } from '../src/register/sriov-group.ts';
import { fakeLink } from './support/function-link.ts';

const CONFIG = 7;
const CAPABILITY = 0x100;
const entropy = () => new EntropyDevice((target) => void target.fill(7));

interface Made {
  readonly group: SriovGroup;
  readonly problems: Problem[];
  readonly counts: number[];
}

function make(virtual = 2): Made {
  const problems: Problem[] = [];
  const counts: number[] = [];
  const group = sriovGroup(entropy(), Array.from({ length: virtual }, entropy), {
    violated: (problem) => void problems.push(problem),
    changed: (enabled) => void counts.push(enabled),
    capabilities: () => [deviceSerialNumber(1, 2)],
  });
  assert.ok(group.ok, JSON.stringify(group));
  const { physical, virtual: others } = group.value;
  for (const each of [physical, ...others]) each.attach(fakeLink());
  return { group: group.value, problems, counts };
}

function read(served: ServedFunction, region: number, at: number, bytes: 1 | 2 | 4): number {
  const into = new Uint8Array(4);
  served.readRegion(region, at, into.subarray(0, bytes));
  return new DataView(into.buffer).getUint32(0, true);
}

function write(served: ServedFunction, region: number, at: number, bytes: 1 | 2 | 4, value: number): void {
  const from = new Uint8Array(4);
  new DataView(from.buffer).setUint32(0, value >>> 0, true);
  served.writeRegion(region, at, from.subarray(0, bytes));
}

/** As SeaBIOS does: every function’s BARs, those of one size in a row, and memory on. */
function placeAsFirmware({ physical, virtual }: SriovGroup, gap = 0, from = 0xfe63_0000): void {
  [physical, ...virtual].forEach((each, i) => {
    write(each, CONFIG, 0x10, 4, from + (i + (i > 1 ? gap : 0)) * 0x4000);
    write(each, CONFIG, 0x18, 4, 0xfe60_0000 + i * 0x1_0000);
    write(each, CONFIG, 4, 2, 0x0007);
  });
}

/** As Linux does when it finds the capability (sriov_init), and when root writes sriov_numvfs. */
function takeOver({ physical }: SriovGroup): void {
  write(physical, CONFIG, CAPABILITY + 8, 2, 0);
}
function enable({ physical }: SriovGroup, count: number): void {
  write(physical, CONFIG, CAPABILITY + 0x10, 2, count);
  write(physical, CONFIG, CAPABILITY + 8, 2, count === 0 ? 0 : 9);
}

const ids = (served: ServedFunction) => read(served, CONFIG, 0, 4);
/** A register that only a VIRTIO function has: num_queues of the common configuration. */
const queues = (served: ServedFunction) => read(served, 0, 0x12, 2);

test('firmware finds ordinary functions, and places them; reading the capability is not taking over', () => {
  const { group } = make();
  placeAsFirmware(group);
  const whole = new Uint8Array(4096);
  group.physical.readRegion(CONFIG, 0, whole);
  assert.deepEqual(
    walkExtended(whole).capabilities.map(({ name }) => name),
    ['sr-iov', 'device-serial-number'],
  );
  for (const each of group.virtual) {
    assert.equal(ids(each), 0x1044_1af4);
    assert.equal(queues(each), 1);
    each.readRegion(CONFIG, 0, whole);
    assert.deepEqual(
      walkExtended(whole).capabilities.map(({ name }) => name),
      ['device-serial-number'],
    );
  }
});

test('with the first write to the capability the virtual functions are gone, until they are enabled', () => {
  const { group, counts, problems } = make();
  placeAsFirmware(group);
  takeOver(group);
  const [first, second] = group.virtual;
  assert.ok(first && second);
  for (const each of group.virtual) {
    assert.deepEqual([ids(each), read(each, CONFIG, 0x34, 1), queues(each)], [0xffff_ffff, 0xff, 0xffff]);
  }
  assert.equal(ids(group.physical), 0x1044_1af4);
  assert.equal(read(group.physical, CONFIG, CAPABILITY + 0x24, 4), 0xfe63_4000, 'where firmware put the first of them');
  assert.equal(read(group.physical, CONFIG, CAPABILITY + 0x2c, 4), 0xfe61_0000);
  enable(group, 1);
  assert.deepEqual([ids(first), ids(second)], [0xffff_ffff, 0xffff_ffff], 'their ids are all ones in any case');
  assert.equal(read(first, CONFIG, 8, 4) >>> 8, 0x00ff00, 'the first answers');
  assert.equal(read(second, CONFIG, 8, 4), 0xffff_ffff, 'the second does not');
  assert.deepEqual([queues(first), queues(second)], [1, 0xffff]);
  write(group.physical, CONFIG, CAPABILITY + 8, 2, 1);
  assert.equal(queues(first), 0xffff, 'no memory without VF MSE');
  enable(group, 0);
  assert.deepEqual([queues(first), counts, problems], [0xffff, [1, 0], []]);
});

test('Linux’s way to size the BARs of virtual functions puts them back where they were', () => {
  const { group } = make();
  placeAsFirmware(group);
  takeOver(group);
  const bar = CAPABILITY + 0x24;
  const before = read(group.physical, CONFIG, bar, 4);
  write(group.physical, CONFIG, bar, 4, 0xffff_ffff);
  assert.equal(read(group.physical, CONFIG, bar, 4), 0xffff_c000);
  write(group.physical, CONFIG, bar, 4, before);
  enable(group, 2);
  assert.deepEqual(group.virtual.map(queues), [1, 1]);
});

test('what the guest moved, and what firmware did not place in a row, does not answer, and that is said', () => {
  const moved = make();
  placeAsFirmware(moved.group);
  takeOver(moved.group);
  write(moved.group.physical, CONFIG, CAPABILITY + 0x24, 4, 0xfe80_0000);
  enable(moved.group, 2);
  const apart = make();
  placeAsFirmware(apart.group, 3);
  takeOver(apart.group);
  enable(apart.group, 2);
  // Pages of 64 KiB: Linux looks for the second function's registers 64 KiB behind the first one's.
  const spread = make();
  placeAsFirmware(spread.group, 0, 0xfe63_c000);
  takeOver(spread.group);
  write(spread.group.physical, CONFIG, CAPABILITY + 0x20, 4, 16);
  enable(spread.group, 2);
  const unplaced = make();
  takeOver(unplaced.group);
  enable(unplaced.group, 2);
  for (const { group, problems } of [moved, apart, spread, unplaced]) {
    assert.deepEqual(
      group.virtual.map((each) => [queues(each), read(each, CONFIG, 8, 4)]),
      [
        [0xffff, 0xffff_ffff],
        [0xffff, 0xffff_ffff],
      ],
    );
    assert.deepEqual(
      problems.map(({ code }) => code),
      ['sriov-not-placed'],
    );
  }
});

test('an enabled function comes as after a reset, and keeps its place in the VMM', () => {
  const { group } = make(1);
  const [only] = group.virtual;
  assert.ok(only);
  placeAsFirmware(group);
  takeOver(group);
  enable(group, 1);
  write(only, 0, 0x14, 1, 3); // device_status: ACKNOWLEDGE, DRIVER
  write(only, CONFIG, 4, 2, 0x0006);
  assert.deepEqual([read(only, 0, 0x14, 1), read(only, CONFIG, 4, 2)], [3, 6], 'the VMM maps by memory space');
  enable(group, 0);
  enable(group, 1);
  assert.deepEqual([read(only, 0, 0x14, 1), read(only, CONFIG, 4, 2)], [0, 0]);
});

test('a function-level reset of the physical one takes the virtual ones away; firmware is only back with the VMM’s reset', () => {
  const { group, counts } = make();
  const [first] = group.virtual;
  assert.ok(first);
  placeAsFirmware(group);
  takeOver(group);
  enable(group, 2);
  write(group.physical, CONFIG, 0x40 + 8, 2, 0x8000); // PCI Express device control: initiate function-level reset
  assert.deepEqual(counts, [2, 0]);
  assert.equal(read(first, CONFIG, 8, 4), 0xffff_ffff);
  enable(group, 2);
  assert.equal(queues(first), 1, 'where firmware put them is not forgotten');
  group.physical.reset();
  assert.equal(ids(first), 0x1044_1af4);
  assert.deepEqual(counts, [2, 0, 2, 0]);
  placeAsFirmware(group);
  takeOver(group);
  enable(group, 1);
  assert.equal(queues(first), 1);
  group.physical.detach();
  assert.equal(ids(first), 0x1044_1af4, 'the next VMM’s firmware finds them again');
});

test('accesses of any kind at any time: nothing throws, and no more answer than are enabled', () => {
  const { group, counts } = make(7);
  placeAsFirmware(group);
  let seed = 1;
  const random = (below: number) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor((seed / 2 ** 32) * below);
  };
  const all = [group.physical, ...group.virtual];
  let taken = false;
  for (let i = 0; i < 4000; i++) {
    if (i % 20 === 0) {
      enable(group, 0);
      write(group.physical, CONFIG, CAPABILITY + 0x24, 4, 0xfe63_4000);
      write(group.physical, CONFIG, CAPABILITY + 0x2c, 4, 0xfe61_0000);
      enable(group, random(8));
    }
    const who = random(3) === 0 ? 0 : random(all.length);
    const served = all[who];
    assert.ok(served);
    const region = [0, 2, CONFIG, CONFIG, CONFIG][random(5)] ?? CONFIG;
    const at = region === CONFIG && random(2) === 0 ? CAPABILITY + random(0x40) : random(0x60);
    const value = [0, 1, 9, 7, 2, 0xffff_ffff, random(0xffff_ffff)][random(7)] ?? 0;
    const bytes = ([1, 2, 4] as const)[random(3)] ?? 1;
    write(served, region, at, bytes, value);
    read(served, region, at, bytes);
    taken ||= ids(group.virtual[0] ?? served) === 0xffff_ffff;
    const answering = group.virtual.filter((each) => read(each, CONFIG, 8, 4) !== 0xffff_ffff).length;
    if (taken) assert.ok(answering <= (counts.at(-1) ?? 0), `${i}: ${answering} answer`);
    assert.ok(counts.every((count) => count <= 7));
  }
  assert.ok(taken && counts.length > 100, `${counts.length}`);
});

test('groups that a slot cannot hold, or of several types, are refused', () => {
  for (const virtual of [
    [],
    Array.from({ length: 8 }, entropy),
    [{ ...entropy(), type: { ...entropy().type, name: 'net' } }],
  ]) {
    const made = sriovGroup(entropy(), virtual as EntropyDevice[]);
    assert.equal(made.ok ? '' : made.error.code, 'pci-virtual-functions-invalid');
  }
});
