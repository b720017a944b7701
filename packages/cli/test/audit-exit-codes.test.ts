import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { CHECKS } from '@airlock/linux/audit/catalogue.ts';
import { run } from '../src/main.ts';
import { fakeContext } from './fake-context.ts';

const MOUNTS = [
  '21 1 0:2 / / rw - rootfs rootfs rw',
  '22 21 0:21 / /proc rw - proc proc rw',
  '23 21 0:22 / /sys rw - sysfs sysfs rw',
  '',
].join('\n');

/** A folder that stands for a TDX guest with nothing wrong in what is there. */
function machine(t: TestContext, more: Readonly<Record<string, string>> = {}): string {
  const root = mkdtempSync(join(tmpdir(), 'airlock-audit-'));
  t.after(() => rmSync(root, { recursive: true }));
  const files = {
    '/proc/cpuinfo': 'processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu rdrand rdseed hypervisor tdx_guest\n',
    '/proc/cmdline': 'mce=off pci=noearly,nommconf random.trust_bootloader=n\n',
    '/proc/self/mountinfo': MOUNTS,
    '/proc/swaps': 'Filename\tType\tSize\tUsed\tPriority\n',
    '/sys/bus/pci/drivers_autoprobe': '0\n',
    '/sys/class/tsm/tsm0/uevent': '',
    '/sys/kernel/iommu_groups/0/type': 'DMA\n',
    '/dev/tdx_guest': '',
    ...more,
  };
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return root;
}

async function audit(...args: readonly string[]) {
  const context = fakeContext();
  const code = await run(context, ['audit', ...args]);
  return { code, out: context.out(), err: context.err() };
}

test('exit 0 and a plain sentence where nothing is found', async (t) => {
  const { code, out, err } = await audit('--root', machine(t));
  assert.equal(code, 0, out);
  assert.equal(err, '');
  assert.match(out, /^confidential VM +yes, Intel TDX$/m);
  assert.match(out, /^Nothing found; \d+ passed, \d+ not checked, \d+ not applicable\./m);
});

test('exit 1 for a finding at --fail-on or above, 0 below it', async (t) => {
  const root = machine(t, { '/sys/bus/pci/drivers_autoprobe': '1\n' });
  assert.equal((await audit('--root', root)).code, 1);
  assert.equal((await audit('--root', root, '--fail-on', 'medium')).code, 1);
  assert.equal((await audit('--root', root, '--fail-on', 'high')).code, 0);
  assert.equal((await audit('--root', root, '--fail-on', 'never')).code, 0);
});

test('--json is one value with every check in it once', async (t) => {
  const { code, out } = await audit('--root', machine(t, { '/sys/bus/pci/drivers_autoprobe': '1\n' }), '--json');
  assert.equal(code, 1);
  const report = JSON.parse(out);
  assert.equal(report.machine.confidential, 'tdx');
  const ended = [report.findings, report.passed, report.notChecked, report.notApplicable].flat();
  assert.deepEqual(ended.map(({ id }) => id).sort(), CHECKS.map(({ id }) => id).sort());
  const [finding] = report.findings;
  assert.deepEqual(
    [finding.id, finding.severity, finding.evidence],
    ['autoprobe-open', 'medium', [{ path: '/sys/bus/pci/drivers_autoprobe', value: '1' }]],
  );
});

test('colour only on a terminal', async (t) => {
  const root = machine(t, { '/sys/bus/pci/drivers_autoprobe': '1\n' });
  const terminal = fakeContext({ terminal: true });
  await run(terminal, ['audit', '--root', root]);
  assert.ok(terminal.out().includes('\x1b['));
  assert.ok(!(await audit('--root', root)).out.includes('\x1b'));
});

test('exit 3 where nothing can be read, 2 for wrong use', async (t) => {
  const empty = mkdtempSync(join(tmpdir(), 'airlock-audit-'));
  t.after(() => rmSync(empty, { recursive: true }));
  assert.equal((await audit('--root', empty)).code, 3);
  assert.match((await audit('--root', empty)).err, /neither \/proc nor \/sys could be read/);
  assert.equal((await audit('--root', join(empty, 'missing'))).code, 3);
  assert.equal((await audit('--fail-on', 'hihg')).code, 2);
  assert.equal((await audit('everything')).code, 2);
});

test('--list names every check', async () => {
  const { code, out } = await audit('--list');
  assert.equal(code, 0);
  for (const { id } of CHECKS) assert.ok(out.includes(id), id);
});
