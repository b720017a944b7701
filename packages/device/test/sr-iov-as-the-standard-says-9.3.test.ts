/** SR-IOV, PCIe 6.0 §9.3: the physical function's capability, and what virtual functions show of themselves. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readHeader, walkCapabilities, walkExtended } from '@airlock/linux/pci-config.ts';
import fc from 'fast-check';
import { deviceSerialNumber, pciExpress } from '../src/pci/capability.ts';
import { PciFunction, type PciFunctionOptions } from '../src/pci/function.ts';
import { Msix } from '../src/pci/msix.ts';
import { BankMap } from '../src/pci/register.ts';
import { ARI_HIERARCHY, Sriov, type SriovOptions, VF_ENABLE, VF_MEMORY_SPACE } from '../src/pci/sriov.ts';
import { fakeLink } from './support/function-link.ts';

const CONFIG = 7;
/** Places within the capability, which stands at 0x100. */
const AT = {
  capabilities: 4,
  control: 8,
  initial: 0xc,
  count: 0x10,
  place: 0x14,
  device: 0x1a,
  page: 0x20,
  bars: 0x24,
};
const BASE = 0x100;

interface Made {
  readonly pci: PciFunction;
  readonly sriov: Sriov;
  readonly told: number[];
}

function make(options: Partial<SriovOptions> = {}): Made {
  const told: number[] = [];
  const sriov = Sriov.create({ total: 4, device: 0x1044, changed: (enabled) => void told.push(enabled), ...options });
  assert.ok(sriov.ok, JSON.stringify(sriov));
  const pci = PciFunction.create({
    vendor: 0x1af4,
    device: 0x1044,
    classCode: 0x00ff00,
    capabilities: [pciExpress({ functionLevelReset: () => {} }), sriov.value.capability, deviceSerialNumber(1, 2)],
  });
  assert.ok(pci.ok, JSON.stringify(pci));
  return { pci: pci.value, sriov: sriov.value, told };
}

function read(pci: PciFunction, at: number, bytes: number): number {
  const into = new Uint8Array(4);
  pci.readRegion(CONFIG, BASE + at, into.subarray(0, bytes));
  return new DataView(into.buffer).getUint32(0, true);
}

function write(pci: PciFunction, at: number, bytes: number, value: number): void {
  const from = new Uint8Array(4);
  new DataView(from.buffer).setUint32(0, value >>> 0, true);
  pci.writeRegion(CONFIG, BASE + at, from.subarray(0, bytes));
}

test('the capability is one of 0x40 bytes, and what follows it is found behind it (§9.3.3)', () => {
  const { pci } = make({ dependency: 3 });
  const bytes = new Uint8Array(4096);
  pci.readRegion(CONFIG, 0, bytes);
  const { capabilities, broken } = walkExtended(bytes);
  assert.equal(broken, undefined);
  assert.deepEqual(
    capabilities.map(({ name, offset }) => [name, offset]),
    [
      ['sr-iov', 0x100],
      ['device-serial-number', 0x140],
    ],
  );
  assert.equal(read(pci, 0, 4) & 0xfffff, 0x1_0010);
  assert.equal(read(pci, AT.initial, 4), 0x0004_0004, 'InitialVFs is TotalVFs where nothing migrates');
  assert.equal(read(pci, 0x12, 1), 3);
  assert.equal(read(pci, AT.device, 2), 0x1044);
  assert.equal(read(pci, 0x1c, 4), 0x553);
  assert.equal(read(pci, AT.page, 4), 1);
});

test('virtual functions come with VF Enable, as many as NumVFs says, and NumVFs stands still meanwhile (§9.3.3.3.1, §9.3.3.7)', () => {
  const { pci, sriov, told } = make();
  write(pci, AT.count, 2, 3);
  assert.deepEqual([sriov.enabled, told], [0, []]);
  write(pci, AT.control, 2, VF_ENABLE | VF_MEMORY_SPACE);
  assert.deepEqual([sriov.enabled, sriov.memoryEnabled, told], [3, true, [3]]);
  write(pci, AT.count, 2, 1);
  assert.equal(read(pci, AT.count, 2), 3);
  write(pci, AT.page, 4, 2);
  assert.equal(read(pci, AT.page, 4), 1, 'nor does the page size change under them');
  write(pci, AT.control, 2, 0);
  assert.deepEqual([sriov.enabled, told], [0, [3, 0]]);
  write(pci, AT.count, 2, 4);
  assert.equal(read(pci, AT.count, 2), 4);
});

test('more than there can be are none at all, and a count of none is none', () => {
  const { pci, sriov, told } = make();
  for (const count of [5, 0xffff, 0]) {
    write(pci, AT.count, 2, count);
    write(pci, AT.control, 2, VF_ENABLE);
    assert.equal(sriov.enabled, 0, `${count}`);
    assert.equal(sriov.routingId(0x100, 0), null);
    write(pci, AT.control, 2, 0);
  }
  assert.deepEqual(told, []);
});

test('half a register at a time is as good as the whole', () => {
  const { pci, sriov, told } = make();
  write(pci, AT.count, 1, 2);
  write(pci, AT.control + 1, 1, 0xff);
  assert.deepEqual([sriov.enabled, told], [0, []], 'the upper half of the control register enables nothing');
  write(pci, AT.control, 1, VF_ENABLE);
  assert.deepEqual(told, [2]);
  write(pci, AT.control, 4, 0);
  assert.deepEqual(told, [2, 0]);
});

test('where they are is told by offset and stride, beyond the bus where the device has no room left (§9.2.1.2)', () => {
  const { pci, sriov } = make({ total: 20 });
  assert.equal(read(pci, AT.place, 4), 0x0001_0100, 'twenty do not fit behind function 0 without ARI');
  write(pci, AT.control, 2, ARI_HIERARCHY);
  assert.equal(read(pci, AT.place, 4), 0x0001_0001);
  write(pci, AT.count, 2, 20);
  write(pci, AT.control, 2, ARI_HIERARCHY | VF_ENABLE);
  assert.equal(sriov.routingId(0x0100, 0), 0x0101);
  assert.equal(sriov.routingId(0x0100, 19), 0x0114);
  assert.equal(sriov.routingId(0x0100, 20), null);
  assert.equal(sriov.routingId(0xfffe, 5), null, 'there is no bus behind the last one');
  write(pci, AT.control, 2, VF_ENABLE);
  assert.equal(sriov.routingId(0x0100, 0), 0x0101, 'they do not move while they are there');
});

test('VF BARs say the size of one virtual function’s part, at least a page, and where each part lies (§9.3.3.14)', () => {
  const { pci, sriov } = make({
    bars: [
      { index: 0, size: 0x4000, kind: 'memory32' },
      { index: 1, size: 0x100, kind: 'memory32' },
      { index: 2, size: 2 ** 33, kind: 'memory64', prefetchable: true },
    ],
  });
  const bar = (index: number) => AT.bars + 4 * index;
  for (let index = 0; index < 6; index++) write(pci, bar(index), 4, 0xffff_ffff);
  assert.deepEqual(
    [0, 1, 2, 3, 4, 5].map((index) => read(pci, bar(index), 4)),
    [0xffff_c000, 0xffff_f000, 0x0000_000c, 0xffff_fffe, 0, 0],
  );
  write(pci, AT.page, 4, 0x10);
  assert.equal(read(pci, bar(0), 4), 0xffff_0000, 'a page of 64 KiB is what each takes up then');
  write(pci, AT.page, 4, 1);
  write(pci, bar(0), 4, 0xfe61_1234);
  write(pci, bar(2), 4, 0);
  write(pci, bar(3), 4, 0x38);
  assert.equal(read(pci, bar(0), 4), 0xfe61_0000);
  assert.equal(sriov.barAddress(0, 0), null, 'there is none yet');
  write(pci, AT.count, 2, 4);
  write(pci, AT.control, 2, VF_ENABLE);
  assert.equal(sriov.barAddress(0, 3), 0xfe61_c000);
  assert.equal(sriov.barAddress(2, 1), 0x38 * 2 ** 32 + 2 ** 33);
  assert.equal(sriov.barAddress(3, 1), null, 'the upper half of another');
  assert.equal(sriov.barAddress(0, 4), null);
});

test('a page size that is not offered, or is several, is not taken (§9.3.3.13)', () => {
  const { pci } = make();
  for (const wrong of [0, 4, 3, 0x553, 0xffff_ffff, 0x8000_0000]) {
    write(pci, AT.page, 4, wrong);
    assert.equal(read(pci, AT.page, 4), 1, `${wrong}`);
  }
  write(pci, AT.page, 4, 0x400);
  assert.equal(read(pci, AT.page, 4), 0x400);
});

test('a reset of the physical function takes its virtual functions away, once (§9.2.2)', () => {
  const { pci, sriov, told } = make({ bars: [{ index: 0, size: 0x1000, kind: 'memory32' }] });
  write(pci, AT.bars, 4, 0xfe00_0000);
  write(pci, AT.count, 2, 2);
  write(pci, AT.control, 2, VF_ENABLE | VF_MEMORY_SPACE);
  pci.reset();
  assert.deepEqual([sriov.enabled, sriov.memoryEnabled, told], [0, false, [2, 0]]);
  assert.deepEqual([read(pci, AT.count, 2), read(pci, AT.bars, 4)], [0, 0]);
  pci.reset();
  assert.deepEqual(told, [2, 0]);
  const link = fakeLink();
  pci.attach(link);
  write(pci, AT.count, 2, 1);
  write(pci, AT.control, 2, VF_ENABLE);
  pci.detach();
  assert.deepEqual(told, [2, 0, 1, 0], 'and so does a VMM that goes');
});

test('whatever is written, the constants stay, no more than TotalVFs are there, and every change is told', () => {
  const fixed: readonly (readonly [number, number])[] = [
    [0, 4],
    [AT.capabilities, 4],
    [0xa, 2],
    [AT.initial, 4],
    [0x12, 2],
    [0x18, 2],
    [AT.device, 2],
    [0x1c, 4],
    [0x3c, 4],
  ];
  const access = fc.record({
    at: fc.integer({ min: 0, max: 0x3f }),
    bytes: fc.constantFrom(1, 2, 3, 4),
    value: fc.oneof(fc.constantFrom(0, 1, 2, 4, 8, 9, 0x19, 0xffff_ffff), fc.integer({ min: 0, max: 0xffff_ffff })),
  });
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 300 }), fc.array(access, { maxLength: 60 }), (total, writes) => {
      const { pci, sriov, told } = make({
        total,
        bars: [
          { index: 0, size: 0x4000, kind: 'memory32' },
          { index: 4, size: 0x10000, kind: 'memory64' },
        ],
      });
      const before = fixed.map(([at, bytes]) => read(pci, at, bytes));
      for (const { at, bytes, value } of writes) {
        const locked = sriov.enabled > 0 ? [read(pci, AT.count, 2), read(pci, AT.page, 4), read(pci, AT.place, 4)] : [];
        write(pci, at, Math.min(bytes, 0x40 - at), value);
        assert.ok(sriov.enabled <= total);
        assert.equal(told.at(-1) ?? 0, sriov.enabled);
        const page = read(pci, AT.page, 4);
        assert.ok((page & 0x553) !== 0 && (page & (page - 1)) === 0, `${page}`);
        assert.equal(read(pci, AT.bars, 4) & 0x3fff, 0);
        assert.equal(read(pci, AT.bars + 16, 4) & 0xffff, 4);
        if (locked.length > 0 && sriov.enabled > 0) {
          assert.deepEqual([read(pci, AT.count, 2), read(pci, AT.page, 4), read(pci, AT.place, 4)], locked);
        }
        const last = sriov.routingId(0x100, sriov.enabled - 1);
        assert.ok(sriov.enabled === 0 ? last === null : last !== null && last > 0x100 && last < 0x1_0000);
      }
      for (let i = 1; i < told.length; i++) assert.notEqual(told[i], told[i - 1]);
      assert.deepEqual(
        fixed.map(([at, bytes]) => read(pci, at, bytes)),
        before,
      );
    }),
    { numRuns: 200 },
  );
});

function virtual(more: Partial<PciFunctionOptions> = {}): PciFunction {
  const bank = new BankMap(0x4000);
  const made = PciFunction.create({
    ...{ vendor: 0x1af4, device: 0x1044, subsystem: 0x1100, classCode: 0x00ff00, revision: 1, virtual: true },
    ...{ interruptPin: true, multifunction: true, capabilities: [pciExpress()] },
    bars: [{ index: 0, size: 0x4000, kind: 'memory32', bank }],
    ...more,
  });
  assert.ok(made.ok, JSON.stringify(made));
  return made.value;
}

test('a virtual function’s own space has no ids, no BARs, no pin, and of its command register only bus mastering (§9.3.4.1)', () => {
  const pci = virtual();
  for (let at = 0; at < 0x40; at++) pci.writeRegion(CONFIG, at, Uint8Array.of(0xff));
  const bytes = new Uint8Array(4096);
  pci.readRegion(CONFIG, 0, bytes);
  const view = new DataView(bytes.buffer);
  assert.equal(view.getUint32(0, true), 0xffff_ffff);
  assert.equal(view.getUint16(4, true), 0x0004);
  assert.deepEqual([...bytes.subarray(0x0c, 0x2c)], new Array(0x20).fill(0), 'header type, BARs, CardBus');
  assert.equal(view.getUint32(0x2c, true), 0x1100_1af4, 'its subsystem is what tells it apart');
  assert.equal(view.getUint32(0x3c, true), 0);
  assert.equal(view.getUint32(8, true), 0x00ff_0001, 'class and revision are the physical function’s');
  assert.equal(readHeader(bytes)?.class, 0x00ff00, 'it is a function that answers');
  assert.deepEqual(
    walkCapabilities(bytes).capabilities.map(({ name }) => name),
    ['pci-express'],
  );
  assert.deepEqual([pci.regionSizes[0], pci.interrupts.intx], [0x4000, 0], 'the VMM still learns what it maps');
});

test('a virtual function asserts no line, and sends its messages when it masters the bus', () => {
  const msix = new Msix(1, 0, 0, 0x800);
  const bank = new BankMap(0x4000);
  bank.place(0, msix.table);
  const pci = virtual({
    msix,
    capabilities: [pciExpress(), msix.capability],
    bars: [{ index: 0, size: 0x4000, kind: 'memory32', bank }],
  });
  const link = fakeLink();
  pci.attach(link);
  pci.setLine(true);
  assert.deepEqual([link.triggers, pci.lineAsserted], [[], false]);
  const status = new Uint8Array(2);
  pci.readRegion(CONFIG, 6, status);
  assert.equal((status[0] ?? 0) & 8, 0);
  pci.writeRegion(CONFIG, 4, Uint8Array.of(0x04, 0));
  pci.writeRegion(CONFIG, 0x40 + 60 + 2, Uint8Array.of(0x00, 0x80));
  pci.writeRegion(0, 0, Uint8Array.of(0, 0, 0xe0, 0xfe, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0));
  pci.interrupt(0);
  assert.deepEqual(link.messages, [{ address: 0xfee0_0000, data: 5 }]);
});

test('declarations that no hardware could be are refused', () => {
  const bar = (index: number, size: number, kind: 'memory32' | 'memory64' = 'memory32') => ({ index, size, kind });
  for (const bars of [
    [bar(0, 0x3001)],
    [bar(6, 0x1000)],
    [bar(-1, 0x1000)],
    [bar(0.5, 0x1000)],
    [bar(5, 0x1000, 'memory64')],
    [bar(0, 8)],
    [bar(0, 2 ** 32)],
    [bar(0, 0x1000, 'memory64'), bar(1, 0x1000)],
  ]) {
    const made = Sriov.create({ total: 1, device: 1, bars });
    assert.equal(made.ok ? '' : made.error.code, 'pci-bar-invalid', JSON.stringify(bars));
  }
  for (const total of [-1, 0.5, 0x1_0000, Number.NaN]) {
    const made = Sriov.create({ total, device: 1 });
    assert.equal(made.ok ? '' : made.error.code, 'pci-virtual-functions-invalid', `${total}`);
  }
  const made = Sriov.create({ total: 1, device: 1 });
  assert.ok(made.ok);
  const base = { vendor: 1, device: 1, classCode: 0, virtual: true };
  const nested = PciFunction.create({ ...base, capabilities: [pciExpress(), made.value.capability] });
  assert.equal(nested.ok ? '' : nested.error.code, 'pci-virtual-functions-invalid');
  const io = PciFunction.create({ ...base, bars: [{ index: 0, size: 16, kind: 'io', bank: new BankMap(16) }] });
  assert.equal(io.ok ? '' : io.error.code, 'pci-bar-invalid');
});
