import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { IDENTITY_LIES, type IdentityLie, MESSAGE_LIES, type MessageLie } from '@airlock/spdm/profile/hostile.ts';
import { run } from '../src/main.ts';
import { fakeContext } from './fake-context.ts';
import { attest, failed, NAME, respond, type Told } from './served-device.ts';

for (const form of ['tcp', 'emulator-doe', 'emulator-mctp', 'emulator-tcp'])
  test(`an honest device over ${form} is attested, and its evidence judged again without it`, async (t) => {
    const served = await respond(t, { name: NAME }, form);
    const { code, out, err } = await attest(served, '--json', '--save', 'evidence.json', '--transport', form);
    assert.equal(code, 0, err);
    const told = JSON.parse(out) as Told;
    assert.equal(told.tier, 'attested');
    const again = fakeContext({ cwd: served.folder });
    const files = ['--roots', 'root.pem', '--function', NAME, '--nonce', told.nonce];
    assert.equal(await run(again, ['device', 'evidence', 'verify', 'evidence.json', ...files]), 0, again.err());
    assert.match(again.out(), /^ACCEPTED/);
    const stale = fakeContext({ cwd: served.folder });
    const old = ['--roots', 'root.pem', '--nonce', '00'.repeat(32)];
    assert.equal(await run(stale, ['device', 'evidence', 'verify', 'evidence.json', ...old]), 1);
    assert.match(stale.out(), /freshness\.nonce/);
    const text = readFileSync(join(served.folder, 'evidence.json'), 'utf8');
    const piped = fakeContext({ cwd: served.folder, stdin: text });
    assert.equal(await run(piped, ['device', 'evidence', 'verify', '-', '--roots', 'root.pem']), 0, piped.err());
    assert.match(piped.out(), /claimed: nobody knows when/);
    assert.equal(await served.end(), 0);
  });

/** What each lie comes to: failed checks, or the code that it is refused with. */
const OUTCOME: Readonly<Record<IdentityLie | MessageLie, readonly string[] | RegExp>> = {
  'wrong-root': ['chain.root'],
  expired: ['chain.validity'],
  revoked: ['chain.revocation'],
  'other-device': ['cma.function'],
  'wrong-measurement': ['measurement.value'],
  'replayed-signature': /signature-wrong|context-mismatch/,
  'stale-nonce': /signature-wrong/,
  'version-downgrade': /signature-wrong/,
  'algorithm-downgrade': /signature-wrong/,
  truncated: /message-malformed/,
  oversized: /message-|tcp-message-too-large|link-closed/,
  'endless-busy': /peer-busy/,
  mute: /link-timeout/,
};

for (const lie of [...IDENTITY_LIES, ...MESSAGE_LIES])
  test(`a device with ${lie} is refused, for that reason`, async (t) => {
    const served = await respond(t, { name: NAME, hostile: lie });
    const reference = { version: 1, unlisted: 'note', measurements: [{ index: 16, raw: '0100000000000000' }] };
    writeFileSync(join(served.folder, 'reference.json'), JSON.stringify(reference));
    // What was signed first can only be shown again.
    if (lie === 'replayed-signature') assert.equal((await attest(served)).code, 0);
    const { code, out, err } = await attest(served, '--json', '--reference', 'reference.json');
    const expected = OUTCOME[lie];
    if (expected instanceof RegExp) {
      assert.match(err, expected);
      assert.equal(out, '');
      assert.equal(code, lie === 'mute' ? 3 : 1);
    } else {
      assert.deepEqual(failed(out), expected);
      assert.equal(code, 1);
    }
    await served.end();
  });

test('a relay to a genuine device elsewhere is attested, and told that this binds nothing', async (t) => {
  const genuine = await respond(t, { name: NAME });
  const relay = await respond(t, { relay: genuine.place });
  const { code, out } = await attest({ ...genuine, place: relay.place });
  assert.equal(code, 0, out);
  assert.match(out, /Not bound: what answered may be elsewhere/);
  assert.match(relay.log(), /CHALLENGE_AUTH/);
  await relay.end();
  await genuine.end();
});

type Plain =
  | number
  | string
  | Uint8Array
  | readonly Plain[]
  | ReadonlyMap<number, Plain>
  | { readonly tag: number; readonly of: Plain };

/** CBOR as far as a manifest needs it. */
function cbor(value: Plain): Buffer {
  const head = (major: number, count: number) =>
    count < 24
      ? Buffer.from([(major << 5) | count])
      : count < 256
        ? Buffer.from([(major << 5) | 24, count])
        : Buffer.from([(major << 5) | 25, count >> 8, count & 0xff]);
  if (typeof value === 'number') return head(0, value);
  if (typeof value === 'string') return Buffer.concat([head(3, Buffer.byteLength(value)), Buffer.from(value)]);
  if (value instanceof Uint8Array) return Buffer.concat([head(2, value.length), value]);
  if (value instanceof Map)
    return Buffer.concat([head(5, value.size), ...[...value].flatMap(([key, one]) => [cbor(key), cbor(one)])]);
  if (Array.isArray(value)) return Buffer.concat([head(4, value.length), ...value.map(cbor)]);
  const { tag, of } = value as { readonly tag: number; readonly of: Plain };
  return Buffer.concat([head(6, tag), cbor(of)]);
}

/** A CoRIM for one device: measurement 1 has this digest, measurement 16 is at least this. */
function manifest(digest: Uint8Array, least: number): Buffer {
  const environment = new Map<number, Plain>([
    [
      0,
      new Map<number, Plain>([
        [1, 'ACME'],
        [2, 'Drive'],
      ]),
    ],
  ]);
  const measurement = (key: number, values: ReadonlyMap<number, Plain>) =>
    new Map<number, Plain>([
      [0, key],
      [1, values],
    ]);
  const measurements = [
    measurement(1, new Map<number, Plain>([[2, [[7, digest]]]])),
    measurement(
      2,
      new Map<number, Plain>([[2, [[7, createHash('sha384').update('Airlock made-up firmware 1.0').digest()]]]]),
    ),
    measurement(16, new Map<number, Plain>([[1, { tag: 553, of: least }]])),
  ];
  const comid = new Map<number, Plain>([
    [1, new Map<number, Plain>([[0, 'made-up']])],
    [4, new Map<number, Plain>([[0, [[environment, measurements]]]])],
  ]);
  const corim = new Map<number, Plain>([
    [0, 'acme'],
    [1, [{ tag: 506, of: cbor(comid) }]],
  ]);
  return cbor({ tag: 501, of: corim });
}

test('a CoRIM vouches for measurements, and refuses what it does not', async (t) => {
  const served = await respond(t, { name: NAME });
  const digest = createHash('sha384').update('Airlock made-up ROM').digest();
  writeFileSync(join(served.folder, 'good.cbor'), manifest(digest, 1));
  const good = await attest(served, '--reference', 'good.cbor');
  assert.equal(good.code, 0, good.out + good.err);
  assert.match(good.out, /3 matched, 0 different, 0 without/);
  writeFileSync(join(served.folder, 'newer.cbor'), manifest(digest, 2));
  assert.deepEqual(failed((await attest(served, '--json', '--reference', 'newer.cbor')).out), ['measurement.value']);
  writeFileSync(join(served.folder, 'cut.cbor'), manifest(digest, 1).subarray(0, -3));
  const cut = await attest(served, '--reference', 'cut.cbor');
  assert.equal(cut.code, 2);
  assert.match(cut.err, /cut\.cbor/);
});

test('without a root nobody vouches for it', async (t) => {
  const served = await respond(t, {});
  const context = fakeContext({ cwd: served.folder });
  assert.equal(await run(context, ['device', 'attest', served.place]), 1);
  assert.match(context.out(), /no root was given/);
  await served.end();
});

test('a nonce of our own, values in place of digests, and a check that is allowed to fail', async (t) => {
  const served = await respond(t, {});
  const nonce = 'ab'.repeat(32);
  const { code, out, err } = await attest(served, '--json', '--nonce', nonce, '--raw', '--allow', 'cma.name');
  assert.equal(code, 0, err);
  assert.equal((JSON.parse(out) as Told).nonce, nonce);
  assert.match(out, new RegExp(Buffer.from('Airlock made-up ROM').toString('hex')));
  await served.end();
});

test('wrong use exits with 2 and says what is wrong', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'airlock-attest-'));
  writeFileSync(join(folder, 'text'), 'text');
  writeFileSync(join(folder, 'profile.yaml'), 'version: 1\nhostil: mute\n');
  writeFileSync(join(folder, 'twice.yaml'), 'version: 1\nmeasurements: []\nmeasurements: []\n');
  const wrong: readonly (readonly [readonly string[], RegExp])[] = [
    [['device', 'attest'], /which device/],
    [['device', 'attest', 'a', 'b'], /one device/],
    [['device', 'attest', 'udp://x:1'], /tcp:\/\/HOST:PORT/],
    [['device', 'attest', 'tcp://x:0'], /tcp:\/\/HOST:PORT/],
    [['device', 'attest', 'tcp://x:99999'], /tcp:\/\/HOST:PORT/],
    [['device', 'attest', 'tcp://127.0.0.1:1', '--transport', 'udp'], /--transport/],
    [['device', 'attest', 'tcp://127.0.0.1:1', '--slot', '8'], /--slot/],
    [['device', 'attest', 'tcp://127.0.0.1:1', '--nonce', 'abc'], /--nonce/],
    [['device', 'attest', 'tcp://127.0.0.1:1', '--nonce', 'ab'], /32 bytes/],
    [['device', 'attest', 'tcp://127.0.0.1:1', '--as-of', 'now'], /--as-of/],
    [['device', 'attest', 'tcp://127.0.0.1:1', '--function', 'x'], /--function/],
    [['device', 'attest', 'tcp://127.0.0.1:1', '--roots', 'nothing'], /no such file/],
    [['device', 'attest', 'tcp://127.0.0.1:1', '--roots', 'text'], /no certificate/],
    [['device', 'attest', 'tcp://127.0.0.1:1', '--crl', 'text'], /no revocation list/],
    [['device', 'attest', 'tcp://127.0.0.1:1', '--reference', 'text'], /a map is needed/],
    [['device', 'attest', 'tcp://127.0.0.1:1', '--reference', 'twice.yaml'], /twice|duplicate/],
    [['device', 'attest', 'tcp://127.0.0.1:1', '--allow', 'chain.root'], /proves nothing/],
    [['device', 'attest', 'tcp://127.0.0.1:1', '--allow', 'cma.nam'], /did you mean cma\.name/],
    [['device', 'attest', 'x', '--transport', 'tcp'], /for sockets/],
    [['device', 'evidence', 'verify'], /which FILE/],
    [['device', 'evidence', 'verify', 'nothing'], /no such file/],
    [['spdm', 'respond'], /--tcp HOST:PORT or --socket/],
    [['spdm', 'respond', '--tcp', 'x'], /HOST:PORT/],
    [['spdm', 'respond', '--tcp', 'x:1', '--socket', 'y'], /not both/],
    [['spdm', 'respond', '--tcp', 'x:1', '--transport', 'z'], /--transport/],
    [['spdm', 'respond', '--tcp', 'x:1', '--profile', 'nothing'], /no such file/],
    [['spdm', 'respond', '--tcp', 'x:1', '--profile', 'profile.yaml'], /unknown key hostil/],
    [['spdm', 'respond', '--tcp', 'x:1', 'more'], /no arguments/],
  ];
  for (const [args, said] of wrong) {
    const context = fakeContext({ cwd: folder });
    assert.equal(await run(context, args), 2, `${args.join(' ')}: ${context.out()}`);
    assert.match(context.err(), said, args.join(' '));
  }
  rmSync(folder, { recursive: true, force: true });
});

test('nobody there is the environment’s fault, evidence that is none is a finding', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'airlock-attest-'));
  writeFileSync(join(folder, 'text.json'), '{"format":"other"}');
  const nobody = fakeContext({ cwd: folder });
  assert.equal(await run(nobody, ['device', 'attest', 'tcp://127.0.0.1:1']), 3);
  assert.match(nobody.err(), /link-refused/);
  const none = fakeContext({ cwd: folder });
  assert.equal(await run(none, ['device', 'evidence', 'verify', 'text.json']), 1);
  assert.match(none.err(), /device-evidence-invalid/);
  const taken = await respond(t, {});
  const port = taken.place.replace('tcp://', '');
  const second = fakeContext({ cwd: folder });
  assert.equal(await run(second, ['spdm', 'respond', '--tcp', port]), 3);
  assert.match(second.err(), /EADDRINUSE/);
  await taken.end();
  rmSync(folder, { recursive: true, force: true });
});

test('a device that speaks less than the version asked for is refused, from its evidence too', async (t) => {
  const served = await respond(t, { name: NAME, spdm: ['1.1', '1.2'] });
  const { code, out, err } = await attest(served, '--json', '--least-version', '1.2', '--save', 'evidence.json');
  assert.equal(code, 0, err);
  const { nonce } = JSON.parse(out) as Told;
  const low = await attest(served, '--json', '--least-version', '1.3');
  assert.deepEqual([low.code, failed(low.out)], [1, ['spdm.version']]);
  const verify = async (least: string) => {
    const context = fakeContext({ cwd: served.folder });
    const files = ['--roots', 'root.pem', '--function', NAME, '--nonce', nonce, '--least-version', least];
    return [await run(context, ['device', 'evidence', 'verify', 'evidence.json', ...files]), context.out()] as const;
  };
  assert.equal((await verify('1.2'))[0], 0);
  const [refused, said] = await verify('1.4');
  assert.equal(refused, 1);
  assert.match(said, /SPDM 1\.4 or later[\s\S]*SPDM 1\.2; the device offers 1\.1, 1\.2/);
  const wrong = await attest(served, '--least-version', '2');
  assert.deepEqual([wrong.code, /--least-version 2: one of 1\.1/.test(wrong.err)], [2, true]);
  await served.end();
});
