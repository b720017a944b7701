import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { CHECKS } from '../src/audit/catalogue.ts';
import { observe } from '../src/audit/observe.ts';
import { judge } from '../src/audit/report.ts';
import { reportText } from '../src/audit/text.ts';
import { fakeCommands } from '../src/fake-commands.ts';
import { type FakeNode, fakeFiles } from '../src/fake-files.ts';
import { audit, mountinfo, outcome, snpGuest } from './audit-machines.ts';

const READABLE = Object.entries(snpGuest().tree)
  .filter(([, node]) => typeof node === 'string')
  .map(([path]) => path);

/** Every check ended once, whatever was read. */
function assertWhole(report: ReturnType<typeof judge>): void {
  const ended = [report.findings, report.passed, report.notChecked, report.notApplicable].flat().map(({ id }) => id);
  assert.deepEqual(ended.sort(), CHECKS.map(({ id }) => id).sort());
  const text = reportText(report, { colour: false, columns: 80, verbose: true });
  assert.ok(/^[\x20-\x7e\n]*$/.test(text), 'only printable ASCII reaches the terminal');
}

const hostile = fc.oneof(
  fc.uint8Array({ maxLength: 300 }),
  fc.string({ maxLength: 300 }),
  fc.constantFrom(
    '\n'.repeat(5000),
    ' '.repeat(5000),
    '0',
    '-1',
    '999999999999999999999',
    '\x1b[2J',
    '[[[',
    '"',
    '\\x',
  ),
  fc.constantFrom<FakeNode>(
    { fails: 'file-denied' },
    { fails: 'file-timeout' },
    { fails: 'file-io' },
    { link: 'self' },
  ),
);

test('arbitrary content in every observed file never throws, and every check still ends once', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.constantFrom(...READABLE), hostile), { maxLength: 12 }),
      fc.string({ maxLength: 200 }),
      async (changes, log) => {
        const machine = snpGuest();
        for (const [path, node] of changes) machine.tree[path] = node;
        const observations = await observe(fakeFiles(machine.tree), {
          commands: fakeCommands({ dmesg: () => ({ stdout: log }) }),
        });
        assertWhole(judge(observations, { asConfidential: true }));
      },
    ),
    { numRuns: 150 },
  );
});

test('the same bytes in every file at once', async () => {
  await fc.assert(
    fc.asyncProperty(hostile, async (node) => {
      const tree = Object.fromEntries(Object.keys(snpGuest().tree).map((path) => [path, node]));
      assertWhole(judge(await observe(fakeFiles(tree)), { asConfidential: true }));
    }),
    { numRuns: 60 },
  );
});

test('names that no kernel gives, in every folder', async () => {
  const machine = snpGuest();
  for (const folder of [
    '/sys/class/block',
    '/sys/bus/virtio/drivers',
    '/dev',
    '/sys/kernel/iommu_groups',
    '/sys/class/tsm',
  ]) {
    for (const name of ['\x1b[31mred', '__proto__', 'constructor', 'a\nb', 'x'.repeat(300)]) {
      machine.tree[`${folder}/${name}/dev`] = '1:1\n';
    }
  }
  assertWhole(await audit(machine));
});

test('where every read is refused, nothing is found and nothing passes', async () => {
  const refused: FakeNode = { fails: 'file-denied' };
  const tree = Object.fromEntries(Object.keys(snpGuest().tree).map((path) => [path, refused]));
  const report = judge(await observe(fakeFiles(tree)), { asConfidential: true });
  const reads = ['lockdown-off', 'swap-unencrypted', 'command-line-weakens', 'no-panic-on-oops', 'clock-from-host'];
  for (const id of reads) assert.equal(outcome(report, id), 'not-checked', id);
  assert.ok(report.notChecked.some(({ because }) => because === 'needs root'));
});

test('nothing at all: no finding but none', async () => {
  const report = judge(await observe(fakeFiles({})), { asConfidential: true });
  assert.deepEqual(report.findings, []);
});

/** The checks whose evidence is that one file. */
const BY_FILE: Record<string, readonly string[]> = {
  '/sys/kernel/security/lockdown': ['lockdown-off'],
  '/proc/swaps': ['swap-unencrypted', 'swap-without-integrity'],
  '/proc/self/mountinfo': ['disk-unencrypted', 'host-shared-folder'],
  '/proc/consoles': ['console-on-host'],
  '/proc/sys/kernel/tainted': ['kernel-tainted-by-code', 'acpi-table-overridden'],
  '/proc/sys/kernel/panic_on_oops': ['no-panic-on-oops'],
  '/sys/kernel/kexec_crash_loaded': ['crash-kernel-loaded'],
  '/proc/sys/fs/suid_dumpable': ['suid-core-dumps'],
  '/proc/cmdline': ['command-line-weakens', 'early-console', 'iommu-switched-off'],
  '/sys/class/misc/hw_random/rng_current': ['entropy-from-host'],
  '/sys/devices/system/clocksource/clocksource0/current_clocksource': ['clock-from-host'],
  '/sys/bus/virtio/drivers_autoprobe': ['autoprobe-open'],
  '/sys/bus/usb/devices/usb1/authorized_default': ['usb-authorized-by-default'],
};

for (const [path, ids] of Object.entries(BY_FILE)) {
  for (const code of ['file-denied', 'file-timeout', 'file-too-large', 'file-io']) {
    test(`${path}: ${code} is neither a finding nor a pass`, async () => {
      const machine = snpGuest();
      machine.tree[path] = { fails: code };
      machine.log = null;
      const report = await audit(machine);
      for (const id of ids) assert.equal(outcome(report, id), 'not-checked', id);
    });
  }
}

test('files without end are not read to their end', async () => {
  const machine = snpGuest();
  machine.tree['/proc/consoles'] = 'ttyS0 -W- 4:64\n'.repeat(20_000);
  machine.tree['/proc/modules'] = 'e1000 1 0 - Live 0x0\n'.repeat(100_000);
  machine.tree['/proc/self/mountinfo'] = mountinfo(
    ...Array.from({ length: 4000 }, (_, i) => `9 1 9:${i} / /m${i} rw - ext4 /dev/x rw`),
  );
  const report = await audit(machine);
  assert.equal(outcome(report, 'console-on-host'), 'not-checked');
  assert.equal(outcome(report, 'unneeded-driver-loaded'), 'not-checked');
  assertWhole(report);
});

test('a mount table that is none is not read as an empty one', async () => {
  const machine = snpGuest();
  machine.tree['/proc/self/mountinfo'] = new Uint8Array(2000).fill(0xfe);
  const report = await audit(machine);
  for (const id of ['host-shared-folder', 'disk-unencrypted', 'fw-cfg-open']) {
    assert.equal(outcome(report, id), 'not-checked', id);
  }
});
