import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { issueDer, revokeDer, signer } from '../../evidence/test/support/authority.ts';
import { snpMachine } from '../../evidence/test/support/snp-machine.ts';
import { run } from '../src/main.ts';
import type { Context } from '../src/verb.ts';

const root = signer('Root');
const folder = mkdtempSync(join(tmpdir(), 'airlock-collateral-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
const save = (name: string, bytes: Uint8Array | string) => writeFileSync(join(folder, name), bytes);
save('root.der', issueDer({ subject: root, issuer: root, authority: {}, from: '2024-01-01', to: '2034-01-01' }));
save('again.der', readFileSync(join(folder, 'root.der')));
save('list.crl', revokeDer({ issuer: root, from: '2025-01-01', to: '2025-06-01' }));
save('report.bin', snpMachine().report.bytes);
save('notes.txt', 'nothing of the sort');

async function airlock(...args: string[]) {
  const [out, err]: [string[], string[]] = [[], []];
  const context: Context = {
    stdout: (text) => void out.push(text),
    stderr: (text) => void err.push(text),
    ...{ terminal: false, columns: 120, env: {}, cwd: folder, readStdin: async () => '' },
    signal: new AbortController().signal,
  };
  const code = await run(context, args);
  return { code, out: out.join(''), err: err.join('') };
}

test('a bundle holds collateral once, leaves out and names the rest, and shows what expires first', async () => {
  const made = await airlock(
    'collateral',
    'bundle',
    'root.der',
    'again.der',
    'list.crl',
    'report.bin',
    'notes.txt',
    '--out',
    'c.json',
  );
  assert.equal(made.code, 0);
  assert.match(made.err, /again\.der: left out: the same/);
  assert.match(made.err, /report\.bin: left out: evidence/);
  assert.match(made.err, /notes\.txt: left out/);
  const shown = await airlock('collateral', 'show', 'c.json', '--as-of', '2025-03-01');
  assert.equal(shown.code, 0);
  const lines = shown.out.split('\n');
  assert.match(lines[1] ?? '', /^92 days +2025-01-01 +2025-06-01 +revocation list of Root/);
  assert.match(shown.out, /revocation list of Root expires first, on 2025-06-01/);
});

test('what is not valid on the date is a finding', async () => {
  await airlock('collateral', 'bundle', '.', '--out', 'd.json');
  const late = await airlock('collateral', 'show', 'd.json', '--as-of', '2025-06-02');
  assert.equal(late.code, 1);
  assert.match(late.out, /^expired /m);
  assert.equal((await airlock('collateral', 'show', 'd.json', '--as-of', '2024-12-31')).code, 1);
  const json = await airlock('collateral', 'show', 'd.json', '--json', '--as-of', '2025-03-01');
  const items = (JSON.parse(json.out) as { items: { until: string }[] }).items;
  assert.deepEqual(
    items.map(({ until }) => until),
    ['2025-06-01', '2034-01-01'],
  );
});

test('verify takes a bundle; one whose contents were changed is refused', async () => {
  await airlock('collateral', 'bundle', 'root.der', '--out', 'e.json');
  const text = readFileSync(join(folder, 'e.json'), 'utf8');
  const verified = await airlock('verify', 'report.bin', '--collateral', 'e.json', '--as-of', '2025-03-01');
  assert.equal(verified.code, 1);
  assert.doesNotMatch(verified.err, /collateral/);
  save('bad.json', text.replace('"data": "MII', '"data": "MIJ'));
  const bad = await airlock('verify', 'report.bin', '--collateral', 'bad.json');
  assert.equal(bad.code, 2);
  assert.match(bad.err, /digest is another/);
});

test('wrong use is told', async () => {
  assert.equal((await airlock('collateral', 'bundle', 'root.der')).code, 2);
  assert.equal((await airlock('collateral', 'bundle', 'nothere', '--out', 'x.json')).code, 2);
  assert.equal((await airlock('collateral', 'bundle', 'notes.txt', '--out', 'x.json')).code, 1);
  assert.equal((await airlock('collateral', 'bundle', 'root.der', '--out', 'no/such/x.json')).code, 3);
  assert.equal((await airlock('collateral', 'show')).code, 2);
  assert.equal((await airlock('collateral', 'show', 'root.der')).code, 2);
  assert.equal((await airlock('collateral', 'show', '.', '--as-of', 'soon')).code, 2);
});
