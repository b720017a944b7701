import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { fakeFiles } from '../src/fake-files.ts';
import { functionLayout, parseMemoryBars, pciIdentity, readFunctionFacts } from '../src/function-layout.ts';

const FOLDER = '/sys/devices/pci0000:00/0000:00:04.0';
const line = (start: bigint, end: bigint, flags: number) =>
  `0x${[start, end, BigInt(flags)].map((one) => one.toString(16).padStart(16, '0')).join(' 0x')}`;
const none = line(0n, 0n, 0);

function config(): Uint8Array {
  const bytes = new Uint8Array(4096);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x0010_1b36, true);
  view.setUint16(6, 0x10, true);
  view.setUint32(8, 0x010802_02, true);
  view.setUint32(0x2c, 0x1100_1af4, true);
  bytes[0x34] = 0x40;
  bytes.set([0x11, 0], 0x40);
  view.setUint16(0x42, 0x0040, true);
  view.setUint32(0x44, 0x2004, true);
  view.setUint32(0x48, 0x3004, true);
  // Device serial number, ATS, TPH.
  view.setUint32(0x100, 0x0001_0003 | (0x110 << 20), true);
  view.setUint32(0x104, 0x89ab_cdef, true);
  view.setUint32(0x108, 0x0123_4567, true);
  view.setUint32(0x110, (0x0001_000f | (0x120 << 20)) >>> 0, true);
  view.setUint32(0x120, 0x0001_0017, true);
  view.setUint32(0x128, 0x0000_0101, true);
  return bytes;
}

test('memory BARs: I/O ports and empty lines are none, a 64-bit BAR is one', () => {
  const text = [
    line(0xfe00_0000n, 0xfe00_3fffn, 0x40200),
    none,
    line(0xc000n, 0xc01fn, 0x40101),
    none,
    line(0x38_0000_0000n, 0x38_0000_7fffn, 0x14220c),
    none,
  ].join('\n');
  const bars = parseMemoryBars(`${text}\n${none}\n`);
  assert.deepEqual(bars.ok && bars.value, [
    { index: 0, start: 0xfe00_0000n, size: 0x4000n },
    { index: 4, start: 0x38_0000_0000n, size: 0x8000n },
  ]);
});

test('a resource file of another form is refused', () => {
  for (const text of ['', 'x', line(0n, 0n, 0).slice(1), line(5n, 4n, 0x200), `${none}\n0x0 0x0 0x0`])
    assert.equal(parseMemoryBars(text).ok, false, text);
  fc.assert(fc.property(fc.string(), (text) => void parseMemoryBars(text)));
});

test('a function’s layout out of its files', async () => {
  const files = fakeFiles({
    [`${FOLDER}/config`]: config(),
    [`${FOLDER}/resource`]: [line(0xfe00_0000n, 0xfe00_3fffn, 0x40200), none, none, none, none, none].join('\n'),
  });
  const facts = await readFunctionFacts(files, FOLDER, '0000:01:00.0');
  assert.ok(facts.ok);
  assert.deepEqual([facts.value.function, facts.value.before.length], ['0000:01:00.0', 64]);
  assert.deepEqual(functionLayout(facts.value.config, facts.value.bars), {
    bars: [{ index: 0, start: 0xfe00_0000n, size: 0x4000n }],
    msix: { control: 0x40, entries: 65, table: { bar: 4, offset: 0x2000 }, pba: { bar: 4, offset: 0x3000 } },
    lnrControl: 0,
    tphControl: 0x101,
    pasid: false,
    ats: true,
    pageRequests: false,
  });
  assert.equal((await readFunctionFacts(fakeFiles(), FOLDER, null)).ok, false);
  files.tree.set(`${FOLDER}/config`, new Uint8Array(60));
  const short = await readFunctionFacts(files, FOLDER, null);
  assert.equal(!short.ok && short.error.code, 'config-too-short');
});

test('addresses are the device’s own only where the processor tells its flags and none of them is a hypervisor', async () => {
  const told = async (cpuinfo: string | null) => {
    const files = fakeFiles({
      [`${FOLDER}/config`]: config(),
      [`${FOLDER}/resource`]: [none, none, none, none, none, none].join('\n'),
      ...(cpuinfo === null ? {} : { '/proc/cpuinfo': cpuinfo }),
    });
    const facts = await readFunctionFacts(files, FOLDER, null);
    return facts.ok && facts.value.virtual;
  };
  assert.equal(await told('processor\t: 0\nflags\t\t: fpu vme hypervisor lahf_lm\n'), true);
  assert.equal(await told('processor\t: 0\nflags\t\t: fpu vme lahf_lm\n'), false);
  assert.equal(await told('processor\t: 0\nFeatures\t: fp asimd\n'), true);
  assert.equal(await told(null), true);
});

test('any bytes give a layout', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 4096 }), (bytes) => void functionLayout(bytes, [])));
});

test('what a certificate can name of a function', () => {
  const bytes = config();
  assert.deepEqual(pciIdentity(bytes), {
    vendor: 0x1b36,
    device: 0x10,
    class: 0x010802,
    revision: 2,
    subsystem: { vendor: 0x1af4, device: 0x1100 },
    serial: '0123456789abcdef',
  });
  bytes.fill(0, 0x104, 0x10c);
  assert.equal(pciIdentity(bytes)?.serial, null);
  bytes[14] = 1;
  assert.equal(pciIdentity(bytes)?.subsystem, null);
  assert.equal(pciIdentity(new Uint8Array(4096).fill(0xff)), undefined);
});
