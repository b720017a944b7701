import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { nvidiaDevice } from '../../evidence/test/support/nvidia-device.ts';
import { run } from '../src/main.ts';
import { fakeContext } from './fake-context.ts';

const folder = mkdtempSync(join(tmpdir(), 'airlock-collect-'));
after(() => rmSync(folder, { recursive: true }));
const NONCE = '5a'.repeat(32);
const collect = async (...args: readonly string[]) => {
  const at = fakeContext({ cwd: folder });
  const code = await run(at, ['evidence', 'collect', '--root', 'machine', ...args]);
  return { code, out: at.out(), err: at.err() };
};
const place = (path: string, content: string | Uint8Array) => {
  const whole = join(folder, 'machine', path);
  mkdirSync(join(whole, '..'), { recursive: true });
  writeFileSync(whole, content);
};
place('sys/bus/pci/devices/.keep', '');

function listOf(names: readonly string[]): string {
  return JSON.stringify(
    names.map((name) => {
      const gpu = nvidiaDevice(name);
      return {
        arch: 'HOPPER',
        certificate: Buffer.from(gpu.certificates).toString('base64'),
        evidence: Buffer.from(gpu.answer(Buffer.from(NONCE, 'hex'))).toString('base64'),
        nonce: NONCE,
      };
    }),
  );
}

test('a machine with nothing says what it looked for, each by its place, and exits with 3', async () => {
  const { code, err, out } = await collect('--nonce', NONCE);
  assert.equal(code, 3);
  assert.equal(out, '');
  for (const what of [
    'devices that speak SPDM',
    'NVIDIA GPUs and switches',
    'report of SEV-SNP, TDX or CCA',
    'TPM quote',
  ])
    assert.ok(err.includes(`- ${what}`), what);
  const json = await collect('--nonce', NONCE, '--json');
  const lines = json.err.split('\n').filter((line) => line.startsWith('{'));
  assert.deepEqual(
    lines.map((line) => JSON.parse(line).status),
    ['absent', 'absent', 'absent', 'absent'],
  );
});

test('the file of NVIDIA’s tool gives every device in it, each with its own chain and a name of its own', async () => {
  writeFileSync(join(folder, 'gpus.json'), listOf(['GH100 A', 'GH100 B']));
  const { err, code } = await collect(
    '--nonce',
    NONCE,
    '--device-evidence',
    'gpus.json',
    '--device',
    'front=one.json',
  ).catch((error: unknown) => ({ code: -1, err: String(error) }));
  assert.equal(code, 2);
  assert.match(err, /one\.json: no such file/);
  writeFileSync(join(folder, 'one.json'), listOf(['GH100 C']));
  const both = await collect('--nonce', NONCE, '--device', 'gpu0=one.json', '--device-evidence', 'gpus.json');
  assert.equal(both.code, 3, 'nothing here attests the VM');
  assert.match(both.err, /gpu0: given: evidence of kind nvidia\n.*gpu1: given.*\n.*gpu2: given/);
  const two = await collect('--nonce', NONCE, '--device', 'x=gpus.json');
  assert.deepEqual([two.code, /2 devices; --device-evidence takes them all/.test(two.err)], [2, true]);
});

test('what is no device’s evidence is refused with the option that named it', async () => {
  writeFileSync(join(folder, 'noise'), 'hello');
  for (const [args, said] of [
    [['--device-evidence', 'noise'], /--device-evidence noise: no evidence/],
    [['--device-evidence', 'missing'], /--device-evidence missing: no such file/],
    [['--device', 'noise'], /--device noise: NAME=FILE/],
    [['--nonce', 'xyz'], /--nonce: 8 to 64 bytes in hex/],
    [['more'], /takes no argument/],
  ] as const) {
    const refused = await collect(...args);
    assert.equal(refused.code, 2);
    assert.match(refused.err, said);
  }
});

test('NVIDIA’s devices of the machine are named with their nonce, and not when their evidence was given', async () => {
  place('sys/bus/pci/devices/0000:41:00.0/vendor', '0x10de\n');
  place('sys/bus/pci/devices/0000:41:00.0/class', '0x030200\n');
  const asked = await collect('--nonce', NONCE);
  assert.match(
    asked.err,
    new RegExp(`0000:41:00\\.0: they answer NVIDIA's own tool alone; ask them there with nonce ${NONCE}`),
  );
  const given = await collect('--nonce', NONCE, '--device-evidence', 'gpus.json');
  assert.doesNotMatch(given.err, /own tool alone/);
  const printed = await collect('--nonce', NONCE, '--device-nonce');
  assert.deepEqual([printed.code, printed.out], [0, `${NONCE}\n`]);
});

test('a mailbox that nothing answers behind is told, and holds nobody for long', async () => {
  const config = new Uint8Array(4096);
  config.set([0x36, 0x1b, 0x10, 0x00, 0, 0, 0x10, 0], 0);
  config.set([0x2e, 0, 1, 0], 0x100);
  place('sys/bus/pci/devices/0000:00:0a.0/config', config);
  const before = readFileSync(join(folder, 'machine/sys/bus/pci/devices/0000:00:0a.0/config'));
  const none = await collect('--nonce', NONCE, '--no-devices');
  assert.match(none.err, /0000:00:0a\.0: speaks SPDM and was not asked/);
  assert.deepEqual(readFileSync(join(folder, 'machine/sys/bus/pci/devices/0000:00:0a.0/config')), before);
});
