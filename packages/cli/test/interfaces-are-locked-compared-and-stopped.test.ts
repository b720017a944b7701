import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { TDISP_LIES, type TdispLie } from '@airlock/spdm/profile/hostile.ts';
import { run } from '../src/main.ts';
import { fakeContext } from './fake-context.ts';
import { attest, failed, NAME, respond, type Served, type Told } from './served-device.ts';

const FUNCTION = {
  function: 0xbeef,
  msix: 65,
  ranges: [
    { id: 0, page: 0xfe000, pages: 2 },
    { id: 0, page: 0xfe002, pages: 1, is: ['msix-table'] },
    { id: 0, page: 0xfe003, pages: 1, is: ['msix-pba'] },
  ],
};
const NONE = '0x0000000000000000 0x0000000000000000 0x0000000000000000';

/** The files of a function with one BAR of 16 KiB at `start`, MSI-X of 65 vectors in it. */
function writeFacts({ folder }: Served, start = 0xfe00_0000, flags = 'fpu hypervisor'): string {
  const config = Buffer.alloc(256);
  config.writeUInt16LE(0x1b36, 0);
  config.writeUInt16LE(0x10, 2);
  config.writeUInt16LE(0x10, 6);
  config.writeUInt32LE(0x0108_0202, 8);
  config.writeUInt32LE(start, 0x10);
  config[0x34] = 0x40;
  config[0x40] = 0x11;
  config.writeUInt16LE(64, 0x42);
  config.writeUInt32LE(0x2000, 0x44);
  config.writeUInt32LE(0x3000, 0x48);
  const facts = join(folder, 'facts');
  mkdirSync(join(facts, 'proc'), { recursive: true });
  writeFileSync(join(facts, 'config'), config);
  const hex = (value: number) => `0x${value.toString(16).padStart(16, '0')}`;
  const bar = `${hex(start)} ${hex(start + 0x3fff)} 0x0000000000040200`;
  writeFileSync(join(facts, 'resource'), [bar, ...Array.from({ length: 12 }, () => NONE)].join('\n'));
  writeFileSync(join(facts, 'proc/cpuinfo'), `processor\t: 0\nflags\t\t: ${flags}\n`);
  return 'facts';
}

const failures = (out: string) => {
  const told = JSON.parse(out) as Told;
  return told.appraisals
    .flatMap(({ checks }) => checks)
    .filter(({ status }) => status === 'failed')
    .map(({ id }) => id);
};

test('an interface is locked, its report fits, and it is unlocked again; the file says so to whoever judges it later', async (t) => {
  const served = await respond(t, { name: NAME, tdisp: [FUNCTION] });
  const facts = writeFacts(served);
  const ask = ['--interface', '0xbeef', '--start', '--facts', facts, '--save', 'evidence.json'];
  const { code, out, err } = await attest(served, ...ask, '--json');
  assert.equal(code, 0, err + out);
  const told = JSON.parse(out) as Told;
  assert.equal(told.tier, 'attested');
  const [, its] = told.appraisals;
  const passed = its?.checks.filter(({ status }) => status === 'passed').map(({ id }) => id) ?? [];
  for (const id of ['answer', 'session', 'state', 'nonce', 'stopped', 'report', 'ranges', 'coverage', 'msix', 'config'])
    assert.ok(passed.includes(`tdisp.${id}`), id);
  const saved = JSON.parse(readFileSync(join(served.folder, 'evidence.json'), 'utf8')) as {
    interface: { found: string; reached: string; left: string; by: string };
  };
  const { by, found, reached, left } = saved.interface;
  assert.deepEqual([by, found, reached, left], ['requester', 'CONFIG_UNLOCKED', 'RUN', 'CONFIG_UNLOCKED']);

  const verify = async () => {
    const context = fakeContext({ cwd: served.folder });
    const files = ['--roots', 'root.pem', '--function', NAME, '--nonce', told.nonce];
    const result = await run(context, ['device', 'evidence', 'verify', 'evidence.json', ...files, '-v']);
    return [result, context.out() + context.err()] as const;
  };
  const [judged, text] = await verify();
  assert.equal(judged, 0, text);
  assert.match(text, /TDISP interface be:1d\.7, RUN/);
  assert.match(text, /Not bound, whatever the state of its interface/);
  // The file's own facts are what the report is compared with: another BAR, and it does not fit.
  const path = join(served.folder, 'evidence.json');
  writeFileSync(path, readFileSync(path, 'utf8').replace('"size": "0x4000"', '"size": "0x3000"'));
  const [refused, said] = await verify();
  assert.equal(refused, 1);
  assert.match(said, /tdisp\.ranges/);
  assert.match(said, /claimed: its interface was rejected/);
  await served.end();
});

test('without --lock nothing changes: the state is told and nothing else', async (t) => {
  const served = await respond(t, { name: NAME, tdisp: [0xbeef] });
  const { code, out } = await attest(served, '--interface', 'be:1d.7', '-v', '--save', 'evidence.json');
  assert.equal(code, 0, out);
  assert.match(out, /tdisp\.state[\s\S]*CONFIG_UNLOCKED/);
  assert.match(out, /none: it is not locked/);
  assert.match(readFileSync(join(served.folder, 'evidence.json'), 'utf8'), /"lock": null,\s*"report": null/);
  await served.end();
});

test('addresses must be those that the device decodes, where no hypervisor maps them', async (t) => {
  const served = await respond(t, { name: NAME, tdisp: [FUNCTION] });
  const ask = ['--interface', '0xbeef', '--lock', '--json', '--facts'];
  const own = await attest(served, ...ask, writeFacts(served, 0xfe00_0000, 'fpu lm'));
  assert.equal(own.code, 0, own.out);
  const moved = await attest(served, ...ask, writeFacts(served, 0xfd00_0000, 'fpu lm'));
  assert.equal(moved.code, 1);
  assert.ok(failures(moved.out).includes('tdisp.ranges'));
  const mapped = await attest(served, ...ask, writeFacts(served, 0xfd00_0000, 'fpu hypervisor'));
  assert.equal(mapped.code, 0, mapped.out);
  await served.end();
});

/** The checks that each lie fails. */
const OUTCOME: Readonly<Record<TdispLie, readonly string[]>> = {
  'tdisp-other-bars': ['tdisp.ranges', 'tdisp.overlap', 'tdisp.msix'],
  'tdisp-lock-flags': ['tdisp.msix', 'tdisp.no-update'],
  'tdisp-error': ['tdisp.answer', 'tdisp.state'],
  'tdisp-stale-nonce': ['tdisp.nonce'],
  'tdisp-oversized-report': ['tdisp.answer'],
  'tdisp-version-downgrade': ['tdisp.answer'],
};

for (const lie of TDISP_LIES)
  test(`a device with ${lie} is attested by its key and refused for its interface`, async (t) => {
    const served = await respond(t, { name: NAME, tdisp: [FUNCTION], hostile: lie });
    const ask = ['--interface', '0xbeef', '--lock', '--json', '--facts', writeFacts(served)];
    const { code, out, err } = await attest(served, ...ask);
    assert.equal(code, 1, err + out);
    assert.deepEqual(failures(out), OUTCOME[lie], out);
    assert.deepEqual(failed(out), [], 'the device itself is not refused');
    assert.equal((JSON.parse(out) as Told).tier, 'claimed');
    await served.end();
  });

test('a stale nonce starts nothing', async (t) => {
  const served = await respond(t, { name: NAME, tdisp: [FUNCTION], hostile: 'tdisp-stale-nonce' });
  const { out } = await attest(served, '--interface', '0xbeef', '--start', '--json', '--facts', writeFacts(served));
  assert.deepEqual(failures(out), ['tdisp.answer', 'tdisp.nonce']);
  assert.match(out, /INVALID_NONCE/);
  assert.match(out, /"left": "CONFIG_UNLOCKED"/);
  await served.end();
});

/** Aborted from the `count`th time on that somebody looks. */
function abortedAfter(count: number): AbortSignal {
  let looks = 0;
  return Object.defineProperty(new AbortController().signal, 'aborted', { get: () => ++looks > count });
}

test('interrupted at any moment, the lock is taken back and the device is not accepted', async (t) => {
  const served = await respond(t, { name: NAME, tdisp: [FUNCTION] });
  const facts = writeFacts(served);
  const signalled = (count: number) =>
    attest({ ...served, signal: abortedAfter(count) }, '--interface', '0xbeef', '--start', '--facts', facts, '--json');
  let locked = 0;
  for (let count = 0; ; count++) {
    const { code, out, err } = await signalled(count);
    if (code === 0) break;
    if (out === '') assert.match(err, /link-cancelled/, `${count}`);
    else {
      assert.equal(code, 1);
      assert.match(out, /link-cancelled/);
      if (out.includes('tdisp.stopped')) locked++;
      assert.ok(!failures(out).includes('tdisp.stopped'), `${count}: ${out}`);
    }
    assert.ok(count < 200);
  }
  assert.ok(locked > 8, `${locked}`);
  await served.end();
});

test('a device without TDISP, and one without that interface, say so', async (t) => {
  const plain = await respond(t, { name: NAME });
  const none = await attest(plain, '--interface', '0xbeef');
  assert.equal(none.code, 1);
  assert.match(none.out, /tdisp\.answer[\s\S]*VENDOR_DEFINED_REQUEST: UnsupportedRequest/);
  await plain.end();
  const other = await respond(t, { name: NAME, tdisp: [0x100] });
  const unknown = await attest(other, '--interface', '0xbeef');
  assert.match(unknown.out, /INVALID_INTERFACE/);
  await other.end();
});

test('wrong use exits with 2', async (t) => {
  const served = await respond(t, { name: NAME, tdisp: [0xbeef] });
  for (const [args, said] of [
    [['--lock'], /--lock: which interface/],
    [['--start'], /--start: which interface/],
    [['--facts', '.'], /--facts: is what/],
    [['--interface', 'x'], /own, an address/],
    [['--interface', '0x2000000'], /own, an address/],
    [['--interface', 'own'], /a socket has no address/],
    [['--interface', '0xbeef', '--facts', 'nothing'], /no folder with a config file/],
  ] as const) {
    const { code, err } = await attest(served, ...args);
    assert.equal(code, 2, args.join(' '));
    assert.match(err, said);
  }
  await served.end();
  const folder = fakeContext({ cwd: '/' });
  assert.equal(await run(folder, ['device', 'attest', 'x', '--interface', 'own', '--facts', 'y']), 2);
  assert.match(folder.err(), /--facts is for sockets/);
});
