import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { Decision } from '@airlock/core/decision.ts';
import type { Device } from '@airlock/core/device.ts';
import { openExternal } from '../src/external/node-external.ts';
import { type BundleOptions, openBundle } from '../src/external/node-opa.ts';
import type { OpaBundle } from '../src/policy.ts';
import {
  ANSWER,
  bundleWith,
  decision,
  device,
  i32,
  inventory,
  type ModuleShape,
  moduleOf,
  vector,
} from './external-fixtures.ts';

/** Far more than a sound policy needs on a loaded machine; only hopeless ones run into it. */
const PATIENCE = 5000;
const NARROW = { entrypoint: 'airlock/narrow', verify: null, timeout: PATIENCE } as const;

async function ask(
  bytes: Uint8Array,
  options: Partial<BundleOptions> & { entrypoint: string },
  devices: readonly Device[] = [device()],
  decisions: readonly Decision[] = devices.map(({ id }) => decision({ device: id })),
): Promise<Decision[]> {
  const engine = await openBundle(bytes, { verify: null, timeout: PATIENCE, ...options });
  assert.ok(engine.ok, JSON.stringify(engine));
  const narrowed = await engine.value.narrow(decisions, inventory(...devices), {});
  await engine.value.close();
  return narrowed;
}

const hostile = async (name: string, more: Partial<Device> = {}, options: Partial<BundleOptions> = {}) =>
  (await ask(vector('hostile.tar.gz'), { entrypoint: `hostile/${name}`, ...options }, [device(more)]))[0];

/** A module by hand. `[0x03, 0x40, 0x0c, 0, 0x0b]` is `loop br 0 end`. */
const LOOP = [0x03, 0x40, 0x0c, 0, 0x0b];
const handmade = async (shape: ModuleShape, options: Partial<BundleOptions> = {}) =>
  (await ask(bundleWith(moduleOf(shape)), { entrypoint: 'hostile/x', ...options }))[0];

function assertDenied(denied: Decision | undefined, code: string, words: RegExp): void {
  assert.equal(denied?.level, 'disconnected');
  assert.equal(denied.reason, 'external-failed');
  assert.equal(denied.grantable, 'disconnected');
  assert.match(denied.detail, words);
  assert.ok(denied.detail.includes(`[${code}]`), denied.detail);
}

test('Rego decides device by device, with its data, and only downwards', async () => {
  const devices = [
    device({ id: 'pci:a' }),
    device({ id: 'pci:b', vendor: 0x1234 }),
    device({ id: 'pci:c', revision: 1 }),
    device({ id: 'pci:d' }),
  ];
  const decisions = [
    decision({ device: 'pci:a' }),
    decision({ device: 'pci:b' }),
    decision({ device: 'pci:c' }),
    decision({ device: 'pci:d', level: 'disconnected', reason: 'default' }),
  ];
  const [a, b, c, d] = await ask(vector('narrow.tar.gz'), NARROW, devices, decisions);
  assert.deepEqual([a, d], [decisions[0], decisions[3]]);
  assert.deepEqual([b?.level, b?.reason], ['disconnected', 'external-narrowed']);
  assert.match(b?.detail ?? '', /vendor 4660 is on the list of withdrawn vendors/);
  assert.match(c?.detail ?? '', /revision 1 of this card is older than 2/);
});

test('Rego sees the device, the decision, the claim and the kernel', async () => {
  const engine = await openBundle(vector('narrow.tar.gz'), NARROW);
  assert.ok(engine.ok);
  const native = decision({ level: 'dma', tier: 'measured', grantable: 'dma' });
  const on = (confidential: 'tdx' | null) => {
    const { kernel, ...rest } = inventory(device());
    return engine.value.narrow([native], { ...rest, kernel: { ...kernel, confidential } }, {});
  };
  assert.deepEqual(await on('tdx'), [native]);
  const [lowered] = await on(null);
  assert.deepEqual([lowered?.level, lowered?.reason], ['limited', 'external-narrowed']);
  await engine.value.close();
});

test('an answer of the wrong shape denies', async () => {
  for (const [name, words] of [
    ['number', /a number, not an object/],
    ['list', /a list, not an object/],
    ['text', /a string, not an object/],
    ['nothing', /null, not an object/],
    ['yes', /a boolean, not an object/],
    ['unknown_level', /"level" is "friendly"/],
    ['number_level', /"level" is a number/],
    ['word_deny', /"deny" is a string/],
    ['extra_key', /unknown key "dny"; did you mean "deny"/],
    ['undefined', /no answer for this device \(give the entry point a default/],
  ] as const) {
    assertDenied(await hostile(name), 'engine-answer-wrong', words);
  }
});

test('an answer that raises the level changes nothing', async () => {
  assert.deepEqual(await hostile('raise'), decision());
  assert.equal((await hostile('undefined', { serial: 'defined' }))?.level, 'limited');
});

test('what an engine says is made harmless and short', async () => {
  assert.match((await hostile('escape'))?.detail ?? '', /: \\u\{1b\}\[2J\\u\{1b\}\]0;owned\\u\{7\} \\u\{202e\}$/);
  assert.ok(((await hostile('long_reason'))?.detail.length ?? 0) < 400);
  assertDenied(await hostile('huge_reason'), 'engine-crashed', /answer is too large/);
});

test('rules that contradict each other, and built-ins that a policy does not get, deny', async () => {
  assertDenied(await hostile('conflict'), 'engine-crashed', /conflict/);
  assertDenied(await hostile('clock'), 'engine-crashed', /time\.now_ns/);
  assertDenied(await hostile('printing'), 'engine-crashed', /internal\.print/);
});

test('Rego that outgrows its memory denies; so does Rego that takes too long', async () => {
  assertDenied(await hostile('grow'), 'engine-crashed', /malloc/);
  const slow = await hostile('slow', { serial: 'slow' }, { timeout: 20, memory: 1 << 30 });
  assertDenied(slow, 'engine-slow', /no answer within 20 ms \(raise external\.timeout-ms/);
  assert.equal((await hostile('slow', { serial: 'quick' }))?.level, 'limited');
});

test('code that loops for ever, traps, or points outside its memory denies', async () => {
  assert.equal((await handmade({ evaluate: i32(ANSWER) }))?.level, 'limited');
  // The trial run at the start meets the loop first; it must not hold us either.
  const looping = bundleWith(moduleOf({ evaluate: [...LOOP, 0x00] }));
  const started = await openBundle(looping, { entrypoint: 'hostile/x', verify: null, startTimeout: 400 });
  assert.ok(!started.ok);
  assert.equal(started.error.code, 'engine-not-started');
  // Loops only when asked about a device: the input is longer than {}.
  const longInput = [0x20, 4, ...i32(10), 0x4a, 0x04, 0x40, ...LOOP, 0x0b, ...i32(ANSWER)];
  assertDenied(await handmade({ evaluate: longInput }, { timeout: 50 }), 'engine-slow', /no answer within 50 ms/);
  assertDenied(await handmade({ evaluate: [0x00] }), 'engine-crashed', /unreachable/);
  const past = [0x20, 4, ...i32(10), 0x4a, 0x04, 0x7f, ...i32(0x7fff0000), 0x05, ...i32(ANSWER), 0x0b];
  assertDenied(await handmade({ evaluate: past }, { timeout: 50 }), 'engine-slow', /no answer within 50 ms/);
});

test('answers that are no result set deny', async () => {
  for (const [answer, words] of [
    ['{', /JSON/],
    ['', /JSON/],
    ['{}', /not a result set/],
    ['[{}]', /not a result set/],
    ['[{"result":{}},{"result":{"deny":true}}]', /not a result set/],
    ['7', /not a result set/],
    ['[]', /no answer for this device/],
  ] as const) {
    const denied = await handmade({ evaluate: i32(ANSWER), answer });
    assert.equal(denied?.reason, 'external-failed', answer);
    assert.match(denied.detail, words);
  }
});

test('memory cannot be grown past the limit, nor can a start that never ends hold us', async () => {
  // Grows by 64 pages until that is refused, then answers where it got no more than 512, and traps where it got more.
  const grow = [0x03, 0x40, ...i32(64), 0x40, 0, ...i32(-1), 0x47, 0x0d, 0, 0x0b];
  const eat = [...grow, 0x3f, 0, ...i32(512), 0x4a, 0x04, 0x40, 0x00, 0x0b, ...i32(ANSWER)];
  assert.equal((await handmade({ evaluate: eat }, { memory: 32 << 20 }))?.level, 'limited');
  assertDenied(await handmade({ evaluate: eat }, { memory: 64 << 20 }), 'engine-crashed', /unreachable/);
  const options = { entrypoint: 'hostile/x', verify: null, startTimeout: 400 } as const;
  const never = await openBundle(bundleWith(moduleOf({ evaluate: i32(ANSWER), start: LOOP })), options);
  assert.ok(!never.ok);
  assert.match(never.error.message, /no answer within 400 ms/);
  const broken = bundleWith(moduleOf({ evaluate: [0x20, 99] }));
  const refused = await openBundle(broken, { ...options, startTimeout: PATIENCE });
  assert.ok(!refused.ok);
  assert.equal(refused.error.code, 'engine-not-started');
});

test('a device that breaks the engine does not take the next one with it, until it happens too often', async () => {
  const devices = ['slow', 'ok', 'slow', 'slow', 'ok'].map((serial, i) => device({ id: `pci:${i}`, serial }));
  const options = { entrypoint: 'hostile/slow', timeout: 20, memory: 1 << 30 };
  const narrowed = await ask(vector('hostile.tar.gz'), { ...options }, devices);
  assert.deepEqual(
    [0, 2, 3].map((i) => narrowed[i]?.reason),
    Array(3).fill('external-failed'),
  );
  assert.match(narrowed[4]?.detail ?? '', /not asked: the external policy failed 3 times/);
  const sound = await ask(vector('hostile.tar.gz'), { entrypoint: 'hostile/conflict' }, [
    device({ id: 'pci:a' }),
    device({ id: 'pci:b', bus: 'usb' }),
  ]);
  assert.deepEqual(
    sound.map(({ reason }) => reason),
    ['external-failed', 'external-narrowed'].with(1, 'rule-matched'),
  );
});

test('an engine is not asked about what is disconnected anyway', async () => {
  const devices = [0, 1, 2].map((i) => device({ id: `pci:${i}` })); // each would be a conflict, and cost a thread
  const usb = device({ id: 'usb:1-1', bus: 'usb' });
  const decisions = [
    ...devices.map(({ id }) => decision({ device: id, level: 'disconnected', reason: 'default' })),
    decision({ device: usb.id }),
  ];
  const options = { entrypoint: 'hostile/conflict' };
  assert.deepEqual(await ask(vector('hostile.tar.gz'), options, [...devices, usb], decisions), decisions);
});

test('a device that the engine cannot see, or that says too much, is denied without being asked about', async () => {
  const engine = await openBundle(vector('narrow.tar.gz'), NARROW);
  assert.ok(engine.ok);
  const [gone] = await engine.value.narrow([decision({ device: 'pci:gone' })], inventory(device()), {});
  assertDenied(gone, 'engine-crashed', /not in the inventory/);
  const loud = device({ serial: 'x'.repeat(300_000) });
  assertDenied((await engine.value.narrow([decision()], inventory(loud), {}))[0], 'engine-crashed', /too long/);
  assert.deepEqual(await engine.value.narrow([decision()], inventory(device()), {}), [decision()]);
  await engine.value.close();
});

test('calls at the same time are answered one after the other, and a closed engine denies', async () => {
  const engine = await openBundle(vector('narrow.tar.gz'), NARROW);
  assert.ok(engine.ok);
  const many = await Promise.all(
    Array.from({ length: 20 }, (_, i) =>
      engine.value.narrow([decision()], inventory(device({ vendor: i % 2 === 0 ? 0x1234 : 0x15b3 })), {}),
    ),
  );
  assert.deepEqual(
    many.map(([one]) => one?.reason),
    Array.from({ length: 20 }, (_, i) => (i % 2 === 0 ? 'external-narrowed' : 'rule-matched')),
  );
  await engine.value.close();
  const [late] = await engine.value.narrow([decision()], inventory(device()), {});
  assertDenied(late, 'engine-closed', /closed/);
});

// --- the policy's `external` section ---

const folder = mkdtempSync(join(tmpdir(), 'airlock-external-'));
after(() => rmSync(folder, { recursive: true }));
const put = (name: string, bytes: Uint8Array) => writeFileSync(join(folder, name), bytes);
for (const name of ['narrow.tar.gz', 'narrow-es256.tar.gz', 'narrow-hs256.tar.gz', 'narrow-rs256-scope.tar.gz'])
  put(name, vector(name));
for (const name of ['es256.pub.pem', 'rs256.pub.pem', 'hs256.secret']) put(name, vector(name));

const at = { file: 'policy.yaml', line: 9, column: 1 };
const section = (more: Partial<OpaBundle>): OpaBundle => ({
  kind: 'opa',
  path: 'narrow.tar.gz',
  entrypoint: 'airlock/narrow',
  timeout: PATIENCE,
  at,
  ...more,
});

test('an engine as the policy names it: signed or not, its algorithm that of the key', async () => {
  for (const external of [
    section({}),
    section({ path: 'narrow-es256.tar.gz', verify: { key: 'es256.pub.pem' } }),
    section({ path: 'narrow-es256.tar.gz', verify: { key: join(folder, 'es256.pub.pem'), algorithm: 'ES256' } }),
    section({ path: 'narrow-hs256.tar.gz', verify: { key: 'hs256.secret' } }),
    section({ path: 'narrow-rs256-scope.tar.gz', verify: { key: 'rs256.pub.pem', scope: 'airlock' } }),
  ]) {
    const { engine, problem } = await openExternal(external, folder);
    assert.equal(problem, null);
    const [one] = await engine.narrow([decision()], inventory(device({ vendor: 0x1234 })), {});
    assert.equal(one?.reason, 'external-narrowed');
    await engine.close();
  }
});

test('an engine that cannot be opened denies all, and its problem stands at the policy', async () => {
  mkdirSync(join(folder, 'folder'));
  put('broken.tar.gz', new Uint8Array([1, 2, 3]));
  assert.equal(spawnSync('mkfifo', [join(folder, 'pipe')]).status, 0);
  for (const [external, code] of [
    [section({ path: 'missing.tar.gz' }), 'external-file-unreadable'],
    [section({ path: 'folder' }), 'external-file-unreadable'],
    [section({ path: 'pipe' }), 'external-file-unreadable'],
    [section({ path: 'narrow-es256.tar.gz', verify: { key: 'missing.pem' } }), 'external-file-unreadable'],
    [section({ path: 'broken.tar.gz' }), 'bundle-unreadable'],
    [section({ verify: { key: 'es256.pub.pem' } }), 'bundle-unsigned'],
    [section({ path: 'narrow-es256.tar.gz' }), 'bundle-key-missing'],
    [section({ path: 'narrow-es256.tar.gz', verify: { key: 'rs256.pub.pem' } }), 'bundle-signature-invalid'],
    [
      section({ path: 'narrow-hs256.tar.gz', verify: { key: 'hs256.secret', algorithm: 'HS512' } }),
      'bundle-key-malformed',
    ],
    [section({ entrypoint: 'airlock/allow' }), 'bundle-entrypoint-missing'],
  ] as const) {
    const { engine, problem } = await openExternal(external, folder);
    assert.equal(problem?.code, code, JSON.stringify(problem));
    assert.deepEqual(problem?.at, at);
    assertDenied((await engine.narrow([decision()], inventory(device()), {}))[0], code, /./);
  }
});

test('an engine that nobody closes does not keep a program from ending', () => {
  const source = `
    import { readFileSync } from 'node:fs';
    import { openBundle } from '@airlock/policy/external/node-opa.ts';
    const bytes = readFileSync(${JSON.stringify(join(folder, 'narrow.tar.gz'))});
    const engine = await openBundle(bytes, { entrypoint: 'airlock/narrow', verify: null });
    console.log(engine.ok);`;
  const ended = spawnSync(process.execPath, ['--input-type=module', '-e', source], {
    cwd: import.meta.dirname,
    encoding: 'utf8',
    timeout: 30_000,
  });
  assert.deepEqual([ended.status, ended.stdout, ended.stderr], [0, 'true\n', '']);
});
