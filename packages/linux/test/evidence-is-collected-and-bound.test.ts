import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fail, ok } from '@airlock/core/result.ts';
import { appraiseMachine } from '@airlock/evidence/machine/appraise.ts';
import { bindingDigests, deviceNonce } from '@airlock/evidence/machine/binding.ts';
import { readBundle, writeBundle } from '@airlock/evidence/machine/bundle.ts';
import { nodeCrypto } from '@airlock/evidence/node-crypto.ts';
import { must } from '../../evidence/test/support/authority.ts';
import { nvidiaDevice, nvidiaRoots } from '../../evidence/test/support/nvidia-device.ts';
import { signReport, snpMachine } from '../../evidence/test/support/snp-machine.ts';
import { type CollectInput, collectEvidence } from '../src/attest/collect.ts';
import { quoteTpm } from '../src/attest/tpm-quote.ts';
import { readTsmReport, TSM_REPORTS } from '../src/attest/tsm-report.ts';
import { type FakeFiles, type FakeNode, fakeFiles } from '../src/fake-files.ts';
import { fakeTpm, handsWith } from './support/fake-tpm.ts';

const crypto = nodeCrypto();
const NONCE = new Uint8Array(32).fill(0x42);
const ENTRY = `${TSM_REPORTS}/airlock-1`;
const machine = snpMachine();

/** Configfs with SEV-SNP behind it. */
function snpKernel({ generations = [1], empty = false, more = {} as Record<string, FakeNode> } = {}) {
  const files = fakeFiles({ '/sys/kernel/config/tsm/report/.keep': '', ...more });
  const steps = [...generations];
  let generation = 0;
  files.onWrite(`${ENTRY}/inblob`, (data) => {
    generation += steps.shift() ?? 1;
    files.tree.set(`${ENTRY}/generation`, `${generation}\n`);
    const report = machine.report.bytes.slice();
    report.set(Buffer.from(data, 'latin1').subarray(0, 64), 0x50);
    files.tree.set(`${ENTRY}/outblob`, empty ? '' : signReport(report, machine.keys.vcek));
    return ok(undefined);
  });
  return { files, folders: foldersOf(files) };
}

function foldersOf(files: FakeFiles) {
  const made: string[] = [];
  return {
    made,
    async make(path: string) {
      if (!files.tree.has('/sys/kernel/config/tsm/report/.keep')) return fail('file-missing', `${path}: ENOENT`);
      made.push(path);
      files.tree.set(`${path}/generation`, '0\n');
      files.tree.set(`${path}/provider`, 'sev_guest\n');
      files.tree.set(`${path}/inblob`, '');
      files.tree.set(`${path}/auxblob`, new Uint8Array());
      return ok(undefined);
    },
    async remove(path: string) {
      for (const key of [...files.tree.keys()]) if (key.startsWith(`${path}/`)) files.tree.delete(key);
      return ok(undefined);
    },
  };
}

const collect = (input: Partial<CollectInput> & Pick<CollectInput, 'files' | 'hands'>) =>
  collectEvidence({ crypto, nonce: NONCE, devices: [], entry: 'airlock-1', ...input });

test('a report, a quote and a device are collected and accepted as one machine', async () => {
  const { files, folders } = snpKernel();
  const tpm = fakeTpm();
  const gpu = nvidiaDevice();
  const evidence = gpu.answer(deviceNonce(crypto, NONCE));
  const devices = [
    { name: '0000:01:00.0', kind: 'nvidia' as const, evidence, certificates: gpu.certificates, interface: null },
  ];
  const { bundle, looked } = await collect({ files, hands: handsWith(tpm, folders), devices });
  assert.deepEqual(
    looked.filter(({ status }) => status === 'failed'),
    [],
  );
  const report = appraiseMachine(
    must(readBundle(writeBundle(bundle))),
    machine.certificates.map((certificate) => ({ item: { kind: 'certificate', certificate }, source: 'chain' })),
    {
      ...{ crypto, asOf: Date.parse('2026-01-01'), nonce: NONCE, trustedKeys: [tpm.spki] },
      ...{ roots: [...machine.roots, ...nvidiaRoots], allowed: new Set(['nvidia.reference']) },
    },
  );
  assert.deepEqual(
    report.checks.filter(({ status }) => status === 'failed'),
    [],
  );
  assert.equal(report.verdict, 'accepted');
  assert.deepEqual(
    report.devices.map(({ tier }) => tier),
    ['attested'],
  );
  assert.deepEqual(
    [...files.tree.keys()].filter((key) => key.startsWith(ENTRY)),
    [],
  );
  assert.ok(tpm.closed);
  assert.ok(tpm.codes.includes(0x165), 'the key is dropped again');
});

/** Configuration space with one DOE capability at 0x100. */
function withMailbox(): Uint8Array {
  const config = new Uint8Array(4096);
  config.set([0x36, 0x1b, 0x10, 0x00]);
  config.set([0x2e, 0, 1, 0], 0x100);
  return config;
}
const functionAt = (name: string, file: string) => `/sys/bus/pci/devices/${name}/${file}`;
const nothing = (files: FakeFiles) => ({ files, hands: handsWith(null, foldersOf(files)) });

test('a machine that attests nothing says what was looked for', async () => {
  const files = fakeFiles({});
  const { bundle, looked } = await collect(nothing(files));
  assert.deepEqual(bundle.vm, []);
  assert.deepEqual(
    looked.map(({ what, status }) => [what, status]),
    [
      ['devices that speak SPDM', 'absent'],
      ['NVIDIA GPUs and switches', 'absent'],
      ['report of SEV-SNP, TDX or CCA', 'absent'],
      ['TPM quote', 'absent'],
    ],
  );
});

test('functions with a mailbox for SPDM are asked with the device nonce, before the VM, whose report covers what they said', async () => {
  const { files, folders } = snpKernel({
    more: {
      [functionAt('0000:00:01.0', 'doe_features/0001:01')]: '',
      [functionAt('0000:00:02.0', 'config')]: withMailbox(),
      // The kernel says what its mailbox speaks, and that is something else.
      [functionAt('0000:00:03.0', 'doe_features/0001:00')]: '',
      [functionAt('0000:00:03.0', 'config')]: withMailbox(),
      [functionAt('0000:00:04.0', 'config')]: new Uint8Array(4096),
      [functionAt('0000:00:05.0', 'config')]: withMailbox(),
      [functionAt('0000:00:06.0', 'config')]: withMailbox(),
    },
  });
  const asked: string[] = [];
  const { bundle, looked } = await collect({
    ...{ files, hands: handsWith(null, folders) },
    askSpdm: async (name, nonce) => {
      asked.push(name);
      assert.deepEqual(nonce, deviceNonce(crypto, NONCE));
      if (name.endsWith('05.0')) return fail('doe-unsupported', 'its mailbox speaks no SPDM');
      if (name.endsWith('06.0')) return fail('link-timeout', 'no answer');
      return ok(new Uint8Array(Buffer.from(`evidence of ${name}`)));
    },
  });
  assert.deepEqual(asked, ['0000:00:01.0', '0000:00:02.0', '0000:00:05.0', '0000:00:06.0']);
  assert.deepEqual(
    bundle.devices.map(({ name, kind }) => [name, kind]),
    [
      ['0000:00:01.0', 'spdm'],
      ['0000:00:02.0', 'spdm'],
    ],
  );
  const own = looked.filter(({ what }) => what === 'device').map(({ status }) => status);
  assert.deepEqual(own, ['taken', 'taken', 'absent', 'failed']);
  const report = must(readBundle(writeBundle(bundle))).vm[0]?.bytes ?? new Uint8Array();
  assert.deepEqual(report.slice(0x50, 0x90), bindingDigests(crypto, NONCE, bundle.devices).reportData);
});

test('a device that was given is not asked again, nobody is asked without a hand, and only so many fit', async () => {
  const names = Array.from({ length: 70 }, (_, i) => `0000:00:${i.toString(16).padStart(2, '0')}.0`);
  const files = fakeFiles(Object.fromEntries(names.map((name) => [functionAt(name, 'doe_features/0001:01'), ''])));
  const given = {
    ...{ name: names[0] ?? '', kind: 'spdm' as const, evidence: Uint8Array.of(1) },
    ...{ certificates: new Uint8Array(), interface: null },
  };
  const mute = await collect({ ...nothing(files), devices: [given] });
  assert.equal(mute.bundle.devices.length, 1);
  assert.match(mute.looked[1]?.detail ?? '', /was not asked/);
  const asked: string[] = [];
  const all = await collect({
    ...nothing(files),
    devices: [given],
    askSpdm: async (name) => {
      asked.push(name);
      return ok(Uint8Array.of(asked.length));
    },
  });
  assert.deepEqual([all.bundle.devices.length, asked.length, asked.includes(given.name)], [64, 63, false]);
  assert.equal(all.looked.filter(({ detail }) => /64 devices are the most/.test(detail)).length, 6);
  assert.ok(readBundle(writeBundle(all.bundle)).ok);
});

test('NVIDIA’s devices are named with the nonce that they are to be asked with; others of that maker are not', async () => {
  const files = fakeFiles({
    [functionAt('0000:41:00.0', 'vendor')]: '0x10de\n',
    [functionAt('0000:41:00.0', 'class')]: '0x030200\n',
    [functionAt('0000:42:00.0', 'vendor')]: '0x10de\n',
    [functionAt('0000:42:00.0', 'class')]: '0x040300\n',
    [functionAt('../../etc', 'vendor')]: '0x10de\n',
  });
  const { looked } = await collect(nothing(files));
  const told = looked.find(({ what }) => what.startsWith('NVIDIA'))?.detail ?? '';
  assert.match(told, /^0000:41:00\.0: /);
  assert.ok(told.includes(Buffer.from(deviceNonce(crypto, NONCE)).toString('hex')));
});

test('a report is asked for again when somebody else wrote to the entry, and given up when that goes on', async () => {
  const data = bindingDigests(crypto, NONCE, []).reportData;
  const once = snpKernel({ generations: [2, 1] });
  assert.ok((await readTsmReport(once.files, once.folders, 'airlock-1', data)).ok);
  const always = snpKernel({ generations: [2, 2, 2] });
  const raced = await readTsmReport(always.files, always.folders, 'airlock-1', data);
  assert.ok(!raced.ok && raced.error.code === 'tsm-report-raced');
  assert.deepEqual(
    [...always.files.tree.keys()].filter((key) => key.startsWith(ENTRY)),
    [],
  );
  const deaf = snpKernel({ generations: [0] });
  const ignored = await readTsmReport(deaf.files, deaf.folders, 'airlock-1', data);
  assert.ok(!ignored.ok && ignored.error.code === 'tsm-report-refused');
  const short = await readTsmReport(once.files, once.folders, 'airlock-1', data.subarray(1));
  assert.ok(!short.ok);
});

test('a generation that is no number, and an empty report, are refused', async () => {
  for (const [name, value] of [
    ['generation', 'x'],
    ['outblob', ''],
    ['provider', { fails: 'file-denied' }],
  ] as const) {
    const { files, folders } = snpKernel({ empty: name === 'outblob' });
    const broken = {
      ...folders,
      async make(path: string) {
        const made = await folders.make(path);
        files.tree.set(`${path}/${name}`, value);
        return made;
      },
    };
    const report = await readTsmReport(files, broken, 'airlock-1', new Uint8Array(64));
    assert.equal(report.ok, false, name);
  }
});

test('Azure’s paravisor: its report comes from the TPM, its key makes the quote', async () => {
  const hcl = new Uint8Array(1300).fill(7);
  const tpm = fakeTpm({ nv: { 20971521: hcl }, handles: [0x81000003] });
  const files = fakeFiles({});
  const { bundle } = await collect({ files, hands: handsWith(tpm, foldersOf(files)) });
  assert.deepEqual(
    bundle.vm.map(({ name }) => name),
    ['azure-report', 'tpm-quote', 'tpm-key'],
  );
  assert.deepEqual(bundle.vm[0]?.bytes, hcl);
  assert.ok(!tpm.codes.includes(0x131));
});

test('a TPM that lies about sizes, refuses, or has no such bank gives a reason and no quote', async () => {
  const data = new Uint8Array(32);
  for (const twist of [
    (_: number, answer: Buffer) => answer.subarray(0, 5),
    (_: number, answer: Buffer) => Buffer.concat([answer, Buffer.from([0])]),
    (code: number, answer: Buffer) => (code === 0x158 ? Buffer.from('80010000000a00000101', 'hex') : answer),
    (code: number, answer: Buffer) =>
      code === 0x17e ? Buffer.concat([answer.subarray(0, 10), Buffer.alloc(answer.length - 10, 0xff)]) : answer,
    () => Buffer.alloc(8192),
    () => Buffer.alloc(0),
  ]) {
    const quote = await quoteTpm(fakeTpm({ twist }).exchange, data);
    assert.ok(!quote.ok);
    assert.match(quote.error.code, /^tpm-/);
  }
  const partial = await quoteTpm(fakeTpm({ bank: [0, 1, 2] }).exchange, data);
  assert.ok(!partial.ok && /not in its SHA-256 bank/.test(partial.error.message));
});

test('every byte of every answer may be wrong', async () => {
  const whole = fakeTpm();
  await quoteTpm(whole.exchange, new Uint8Array(32));
  for (const code of [0x131, 0x158, 0x17e]) {
    for (let at = 0; at < 220; at += 3) {
      const twist = (now: number, answer: Buffer) => {
        if (now === code && at < answer.length) answer[at] = (answer[at] ?? 0) ^ 0xff;
        return answer;
      };
      // Whatever comes of it, it comes: no loop, no exception, and what is refused has its code.
      const quote = await quoteTpm(fakeTpm({ twist }).exchange, new Uint8Array(32));
      if (!quote.ok) assert.match(quote.error.code, /^tpm-(refused|structure-invalid)$/);
    }
  }
});
