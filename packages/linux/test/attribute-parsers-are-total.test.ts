import assert from 'node:assert/strict';
import { test } from 'node:test';
import { asciiText } from '@airlock/core/bytes.ts';
import fc from 'fast-check';
import {
  isDeviceName,
  isDoeFeature,
  isPciAddress,
  parseBareHex,
  parseChosen,
  parseDecimal,
  parseFeatureBits,
  parseFlag,
  parseHex,
  parseLine,
  parseLinkName,
  parseSerial,
  printable,
  resolveLink,
} from '../src/attribute.ts';
import { commandLineValues, splitCommandLine } from '../src/kernel-facts.ts';
import { parseModalias, parsePciModalias, virtioIdOfPci } from '../src/pci.ts';
import { platformType, pnpType } from '../src/platform.ts';
import { usbDeviceOf, usbTypeName } from '../src/usb.ts';

/** Bytes as a device or a lying tree may give them: noise, and noise inside what looks right. */
const hostile = fc.oneof(
  fc.uint8Array({ maxLength: 300 }),
  fc
    .tuple(
      fc.constantFrom('0x1af4\n', '0x', '-1', '1e9', 'pci:v00001AF4d00001042sv', '0101', '..', '0x00000000f\n', ' 7 '),
      fc.uint8Array({ maxLength: 6 }),
    )
    .map(([text, noise]) => Uint8Array.from([...Buffer.from(text), ...noise])),
);
const PRINTABLE = /^[\x20-\x7e]*$/;

test('every parser gives a value of its kind or undefined, for any bytes', () => {
  fc.assert(
    fc.property(hostile, fc.integer({ min: 1, max: 8 }), (bytes, digits) => {
      const text = asciiText(bytes);
      const hex = parseHex(text, digits);
      assert.ok(hex === undefined || (Number.isInteger(hex) && hex >= 0 && hex < 16 ** digits));
      const bare = parseBareHex(text, digits);
      assert.ok(bare === undefined || (Number.isInteger(bare) && bare >= 0 && bare < 16 ** digits));
      const decimal = parseDecimal(text);
      assert.ok(decimal === undefined || (Number.isInteger(decimal) && decimal >= 0 && decimal < 1e9));
      assert.ok([undefined, true, false].includes(parseFlag(text)));
      const bits = parseFeatureBits(text);
      assert.ok(
        bits === undefined || bits.every((bit, i) => bit >= 0 && bit < 512 && (i === 0 || bit > (bits[i - 1] ?? 0))),
      );
      const chosen = parseChosen(text);
      assert.ok(chosen === undefined || /^[a-z]+$/.test(chosen));
      const line = parseLine(text);
      assert.ok(line === undefined || PRINTABLE.test(line));
      const serial = parseSerial(text);
      assert.ok(serial === undefined || serial === null || (serial !== '' && PRINTABLE.test(serial)));
      const modalias = parseModalias(text);
      assert.ok(modalias === undefined || /^[\x21-\x7e]+$/.test(modalias));
      parsePciModalias(text);
      assert.match(printable(text), PRINTABLE);
      pnpType(text);
    }),
    { numRuns: 2000 },
  );
});

test('names and links from a lying tree are refused or safe', () => {
  const name = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 40 }),
    fc.constantFrom('..', '.', '', 'a/b', '0000:00:03.0', '\x1b[2J', '../../etc/passwd', '/sys/devices/../../etc'),
  );
  fc.assert(
    fc.property(name, name, (first, second) => {
      const path = resolveLink('/sys/bus/pci/devices', `${first}/${second}`);
      if (path !== undefined) assert.ok(path.startsWith('/') && !`${path}/`.includes('/../'), path);
      const link = parseLinkName(first);
      if (link !== undefined) assert.ok(PRINTABLE.test(link) && !link.includes('/') && link !== '..');
      if (isDeviceName(first)) assert.ok(!first.includes('/') && first !== '..' && PRINTABLE.test(first));
      if (isPciAddress(first) || isDoeFeature(first)) assert.match(first, /^[0-9a-f:.]+$/);
      assert.match(printable(first), PRINTABLE);
      platformType(first);
      usbDeviceOf(first);
    }),
    { numRuns: 2000 },
  );
});

test('a command line of any text is cut into words without loss of its plain ones', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 200 }), (text) => {
      for (const word of splitCommandLine(text)) assert.ok(!word.includes('"'));
    }),
  );
  assert.deepEqual(splitCommandLine('a=1  b "c d"=2 e="f g" -- swiotlb=noforce'), ['a=1', 'b', 'c d=2', 'e=f g']);
  assert.deepEqual(commandLineValues('swiotlb=force swiotlb=65536,noforce swiotlbx=1', 'swiotlb'), [
    'force',
    '65536,noforce',
  ]);
  assert.deepEqual(commandLineValues('random.trust-cpu=1 quiet', 'random.trust_cpu'), ['1']);
  assert.deepEqual(commandLineValues('quiet', 'quiet'), ['']);
});

test('numbers are what the kernel writes, nothing near it', () => {
  assert.equal(parseHex('0x1af4\n', 4), 0x1af4);
  for (const wrong of ['0xzzzz', '1af4', '0x', '0x1af4 ', '0x11af4', '0x1AF4', ' 0x1af4', '0x1af4\n\n', '-0x1', '']) {
    assert.equal(parseHex(wrong, 4), undefined, wrong);
  }
  assert.equal(parseBareHex('046d\n', 4), 0x046d);
  assert.equal(parseBareHex('46d', 4), undefined);
  assert.equal(parseDecimal('12\n'), 12);
  for (const wrong of ['-1', '1.5', '1e3', '', '0x1', '12345678901']) assert.equal(parseDecimal(wrong), undefined);
  assert.equal(parseFlag('1\n'), true);
  assert.equal(parseFlag('2'), undefined);
});

test('features are read by index, at any length', () => {
  assert.deepEqual(parseFeatureBits(`${'0'.repeat(32)}11${'0'.repeat(30)}\n`), [32, 33]);
  assert.deepEqual(parseFeatureBits(`${'0'.repeat(127)}1\n`), [127]);
  assert.deepEqual(parseFeatureBits('0000'), []);
  for (const wrong of ['', '012', '1'.repeat(600), '10 01', 'abc']) assert.equal(parseFeatureBits(wrong), undefined);
});

test('serial numbers lose their padding and nothing else', () => {
  assert.equal(parseSerial('root\n'), 'root');
  assert.equal(parseSerial('nvme-serial-1       \n'), 'nvme-serial-1');
  assert.equal(parseSerial(asciiText(Uint8Array.from([0x61, 0x62, 0, 0, 0]))), 'ab');
  assert.equal(parseSerial(asciiText(Uint8Array.from([0x61, 0x1b, 0x5b, 0x32, 0x4a]))), 'a\\x1b[2J');
  assert.equal(parseSerial('\n'), null);
  assert.equal(parseSerial(`${'x'.repeat(300)}\n`), undefined);
  assert.equal(parseSerial('a\nb\n'), undefined);
});

test('a PCI modalias gives the ids that it was made of', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 0xffff }),
      fc.integer({ min: 0, max: 0xffff }),
      fc.integer({ min: 1, max: 0xffff }),
      fc.integer({ min: 0, max: 0xffff }),
      fc.integer({ min: 0, max: 0xffffff }),
      (vendor, device, subVendor, subDevice, classCode) => {
        const up = (value: number, digits: number) => value.toString(16).toUpperCase().padStart(digits, '0');
        const code = up(classCode, 6);
        // include/linux: file2alias writes the programming interface with %02x, the rest with capitals.
        const text = `pci:v${up(vendor, 8)}d${up(device, 8)}sv${up(subVendor, 8)}sd${up(subDevice, 8)}bc${code.slice(0, 2)}sc${code.slice(2, 4)}i${code.slice(4).toLowerCase()}`;
        assert.deepEqual(parsePciModalias(text), {
          vendor,
          device,
          subsystem: { vendor: subVendor, device: subDevice },
          class: classCode,
        });
        assert.equal(parsePciModalias(`${text}x`), undefined);
        assert.equal(parsePciModalias(text.slice(1)), undefined);
      },
    ),
  );
});

test('the VIRTIO type of a PCI function comes from its ids', () => {
  const sub = (device: number) => ({ vendor: 0x1af4, device });
  assert.equal(virtioIdOfPci(0x1af4, 0x1042, sub(0x1100)), 2);
  assert.equal(virtioIdOfPci(0x1af4, 0x1000, sub(1)), 1);
  assert.equal(virtioIdOfPci(0x1af4, 0x1001, null), 0);
  assert.equal(virtioIdOfPci(0x1af4, 0x1080, sub(1)), undefined);
  assert.equal(virtioIdOfPci(0x1af4, 0x0fff, sub(1)), undefined);
  assert.equal(virtioIdOfPci(0x8086, 0x1042, sub(1)), undefined);
});

test('USB interfaces belong to their device', () => {
  assert.equal(usbDeviceOf('1-2.1:1.0'), '1-2.1');
  assert.equal(usbDeviceOf('2-0:1.0'), 'usb2');
  assert.equal(usbTypeName(9), 'hub');
  assert.equal(usbTypeName(0), null);
  assert.equal(usbTypeName(0x77), 'class-77');
});
