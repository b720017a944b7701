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

test('a machine that attests nothing says what was looked for', async () => {
  const files = fakeFiles({ '/sys/bus/pci/devices/0000:00:01.0/doe_features/0001:01': '' });
  const { bundle, looked } = await collect({ files, hands: handsWith(null, foldersOf(files)) });
  assert.deepEqual(bundle.vm, []);
  assert.deepEqual(
    looked.map(({ status }) => status),
    ['absent', 'absent', 'absent'],
  );
  assert.match(looked[2]?.detail ?? '', /speak SPDM and were not asked: 0000:00:01.0/);
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
