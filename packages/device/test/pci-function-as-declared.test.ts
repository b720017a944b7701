/** What is declared is what a system finds: read back through the reader that Airlock uses on real functions. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readHeader, walkCapabilities, walkExtended } from '@airlock/linux/pci-config.ts';
import {
  accessControlServices,
  advancedErrorReporting,
  deviceSerialNumber,
  integrityAndDataEncryption,
  pciExpress,
  powerManagement,
  vendorCapability,
} from '../src/pci/capability.ts';
import { DOE_CMA, DoeMailbox, PCI_SIG } from '../src/pci/doe.ts';
import { PciFunction, type PciFunctionOptions } from '../src/pci/function.ts';
import { Msix } from '../src/pci/msix.ts';
import { BankMap, constant } from '../src/pci/register.ts';
import { fakeLink } from './support/function-link.ts';

const CONFIG = 7;

function make(options: Partial<PciFunctionOptions> = {}): PciFunction {
  const made = PciFunction.create({ vendor: 0x1af4, device: 0x1044, classCode: 0x00ff00, ...options });
  assert.ok(made.ok, JSON.stringify(made));
  return made.value;
}

function config(pci: PciFunction): Uint8Array {
  const bytes = new Uint8Array(4096);
  pci.readRegion(CONFIG, 0, bytes);
  return bytes;
}

function word(pci: PciFunction, at: number): number {
  const bytes = new Uint8Array(4);
  pci.readRegion(CONFIG, at, bytes);
  return new DataView(bytes.buffer).getUint32(0, true);
}

function put(pci: PciFunction, at: number, value: number): void {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  pci.writeRegion(CONFIG, at, bytes);
}

test('identity and both chains of capabilities read back as declared', () => {
  const mailbox = new DoeMailbox([{ vendor: PCI_SIG, type: DOE_CMA }], () => null);
  const pci = make({
    revision: 3,
    subsystemVendor: 0x1234,
    subsystem: 0x5678,
    capabilities: [
      pciExpress(),
      powerManagement(),
      vendorCapability([constant('x', 4, 1)]),
      advancedErrorReporting().capability,
      deviceSerialNumber(0x55667788, 0x11223344),
      accessControlServices(),
      mailbox.capability,
      integrityAndDataEncryption({ linkStreams: true, selectiveStreams: 2 }).capability,
    ],
  });
  const bytes = config(pci);
  const header = readHeader(bytes);
  assert.equal(header?.vendor, 0x1af4);
  assert.equal(header?.revision, 3);
  assert.equal(header?.class, 0x00ff00);
  const standard = walkCapabilities(bytes);
  assert.equal(standard.broken, undefined);
  assert.deepEqual(
    standard.capabilities.map(({ name }) => name),
    ['pci-express', 'power-management', 'vendor-specific'],
  );
  const extended = walkExtended(bytes);
  assert.equal(extended.broken, undefined);
  assert.deepEqual(
    extended.capabilities.map(({ name }) => name),
    ['aer', 'device-serial-number', 'acs', 'doe', 'ide'],
  );
});

test('a BAR answers its size when all ones are written, and keeps an aligned address (PCIe 6.0 §7.5.1.2.1)', () => {
  const bank = new BankMap(0x4000);
  const pci = make({
    bars: [
      { index: 0, size: 0x4000, kind: 'memory32', bank },
      { index: 2, size: 2 ** 33, kind: 'memory64', prefetchable: true, bank },
    ],
  });
  put(pci, 0x10, 0xffffffff);
  assert.equal(word(pci, 0x10), 0xffffc000);
  put(pci, 0x18, 0xffffffff);
  put(pci, 0x1c, 0xffffffff);
  assert.equal(word(pci, 0x18), 0x0000000c);
  assert.equal(word(pci, 0x1c), 0xfffffffe);
  put(pci, 0x10, 0xfe61_1234);
  assert.equal(word(pci, 0x10), 0xfe610000);
  put(pci, 0x14, 0xffffffff);
  assert.equal(word(pci, 0x14), 0, 'a BAR that is not there has no bits');
});

test('declarations that no hardware could be are refused', () => {
  const bank = new BankMap(16);
  const bars = (index: number, size: number, kind: 'memory32' | 'memory64' | 'io' = 'memory32') => ({
    index,
    size,
    kind,
    bank,
  });
  for (const wrong of [
    [bars(0, 0x3001)],
    [bars(6, 16)],
    [bars(5, 16, 'memory64')],
    [bars(0, 8)],
    [bars(0, 16, 'memory64'), bars(1, 16)],
  ]) {
    const made = PciFunction.create({ vendor: 1, device: 1, classCode: 0, bars: wrong });
    assert.equal(made.ok ? '' : made.error.code, 'pci-bar-invalid', JSON.stringify(wrong));
  }
  const alone = PciFunction.create({ vendor: 1, device: 1, classCode: 0, capabilities: [deviceSerialNumber(1, 2)] });
  assert.equal(alone.ok ? '' : alone.error.code, 'pci-capability-misplaced');
  const beyond = PciFunction.create({
    vendor: 1,
    device: 1,
    classCode: 0,
    capabilities: [vendorCapability([constant('x', 4, 1)], 0xfc)],
  });
  assert.equal(beyond.ok ? '' : beyond.error.code, 'pci-capability-misplaced');
});

test('a masked vector waits, shows as pending, and is sent once when it is unmasked (PCIe 6.0 §7.7.2)', () => {
  const msix = new Msix(3, 0, 0, 0x800);
  const bank = new BankMap(0x1000);
  bank.place(0, msix.table);
  bank.place(0x800, msix.pending);
  const pci = make({
    capabilities: [pciExpress(), msix.capability],
    bars: [{ index: 0, size: 0x1000, kind: 'memory32', bank }],
    msix,
  });
  const link = fakeLink();
  pci.attach(link);
  const control = 0x40 + 60; // behind PCI Express
  assert.equal(word(pci, control) & 0xff, 0x11);
  put(pci, 4, 0x0000_0006); // memory, bus master
  pci.writeRegion(CONFIG, control + 2, Uint8Array.of(0x00, 0x80));
  const entry = new Uint8Array(16);
  new DataView(entry.buffer).setUint32(0, 0xfee0_1007, true);
  new DataView(entry.buffer).setUint32(8, 0x4021, true);
  new DataView(entry.buffer).setUint32(12, 1, true);
  pci.writeRegion(0, 16, entry);
  pci.interrupt(1);
  pci.interrupt(1);
  assert.deepEqual(link.messages, []);
  const pending = new Uint8Array(8);
  pci.readRegion(0, 0x800, pending);
  assert.equal(pending[0], 0b010);
  pci.writeRegion(0, 16 + 12, Uint8Array.of(0, 0, 0, 0));
  assert.deepEqual(link.messages, [{ address: 0xfee0_1004, data: 0x4021 }]);
  pci.interrupt(1);
  assert.equal(link.messages.length, 2);
  pci.interrupt(3);
  pci.interrupt(0xffff);
  assert.equal(link.messages.length, 2, 'a vector that does not exist interrupts nobody');
  put(pci, 4, 0x0000_0002);
  pci.interrupt(1);
  assert.equal(link.messages.length, 2, 'a message is a write of a bus master');
});

test('INTA# interrupts on assertion, and again when interrupts are enabled while it is asserted', () => {
  const pci = make({ interruptPin: true });
  const link = fakeLink();
  pci.attach(link);
  pci.setLine(true);
  pci.setLine(true);
  assert.deepEqual(link.triggers, ['intx 0']);
  assert.equal((word(pci, 4) >>> 16) & 8, 8);
  put(pci, 4, 0x400);
  assert.equal(pci.lineAsserted, false);
  put(pci, 4, 0x000);
  assert.deepEqual(link.triggers, ['intx 0', 'intx 0']);
  pci.setLine(false);
  assert.equal((word(pci, 4) >>> 16) & 8, 0);
});

test('a DOE mailbox answers discovery, hands objects to its handler, and an abort ends everything (PCIe 6.0 §6.30)', () => {
  const seen: string[] = [];
  const mailbox = new DoeMailbox(
    [{ vendor: PCI_SIG, type: DOE_CMA }],
    ({ type }, payload) => {
      seen.push(`${type}:${payload.length}`);
      return payload[0] === 0xee ? null : payload[0] === 0xbb ? 'busy' : Uint8Array.of(9, 8, 7, 6);
    },
    8,
  );
  const pci = make({ capabilities: [pciExpress(), mailbox.capability] });
  const status = () => word(pci, 0x10c);
  const exchange = (dwords: readonly number[]): number[] => {
    for (const dword of dwords) put(pci, 0x110, dword);
    put(pci, 0x108, 0x8000_0000);
    const reply: number[] = [];
    while ((status() & 0x8000_0000) !== 0) {
      reply.push(word(pci, 0x114));
      put(pci, 0x114, 0);
    }
    return reply;
  };
  assert.deepEqual(exchange([0x0000_0001, 3, 0]), [1, 3, 0x0100_0001], 'discovery itself, then index 1');
  assert.deepEqual(exchange([0x0000_0001, 3, 1]), [1, 3, 0x0001_0001]);
  assert.deepEqual(exchange([0x0001_0001, 3, 0x11]), [0x0001_0001, 3, 0x06070809]);
  assert.deepEqual(seen, ['1:4']);
  for (const wrong of [
    [0x0001_0001, 4, 1],
    [0x0002_0001, 3, 1],
    [0x0001_0001],
    [0x0001_0001, 3, 0xee],
    [1, 2, 3, 4, 5, 6, 7, 8, 9],
  ]) {
    assert.deepEqual(exchange(wrong), []);
    assert.equal(status() & 4, 4, `${wrong}`);
    put(pci, 0x108, 1);
    assert.equal(status(), 0, 'an abort clears the error');
  }
  assert.deepEqual(exchange([0x0001_0001, 3, 0xbb]), []);
  assert.equal(status() & 1, 1, 'busy');
  put(pci, 0x110, 5);
  mailbox.answer(Uint8Array.of(1, 0, 0, 0));
  assert.equal(word(pci, 0x114), 0x0001_0001);
  put(pci, 0x108, 1);
  mailbox.answer(Uint8Array.of(1, 0, 0, 0));
  assert.equal(status(), 0, 'an answer to what was aborted goes nowhere');
  pci.reset();
  assert.equal(status(), 0);
});
