import assert from 'node:assert/strict';
import { test } from 'node:test';
import { reportText } from '../src/audit/text.ts';
import { audit, snpGuest } from './audit-machines.ts';

async function text(change: Record<string, string>, verbose = false): Promise<string> {
  const machine = snpGuest();
  Object.assign(machine.tree, change);
  return reportText(await audit(machine), { colour: false, columns: 100, verbose });
}

test('a finding shows its evidence first, then why, fix and reference, below its severity', async () => {
  const out = await text({ '/proc/swaps': 'Filename Type Size Used Priority\n/dev/vda2 partition 1 0 -2\n' });
  assert.ok(
    out.includes(`
CRITICAL
  Memory is swapped to a disk in the clear  [swap-unencrypted]
    | /proc/swaps: /dev/vda2: vda2 > vda
    why What the CPU keeps encrypted in memory is handed to the disk, and so to the host, as it is;
        keys included.
    fix swapoff -a and remove the entry from /etc/fstab; zram stays in encrypted memory.
    see Intel TDX Linux Guest Kernel Security Specification, "Storage protection"
`),
    out,
  );
});

test('worst first', async () => {
  const out = await text({
    '/proc/sys/kernel/panic_on_oops': '0\n',
    '/proc/swaps': 'Filename Type Size Used Priority\n/dev/vda2 partition 1 0 -2\n',
    '/proc/consoles': 'hvc0 -W- (EC p) 229:0\n',
  });
  const order = ['CRITICAL', 'MEDIUM', 'LOW'].map((heading) => out.indexOf(`\n${heading}\n`));
  assert.ok(
    order.every((at, i) => at > (order[i - 1] ?? 0)),
    out,
  );
});

test('what passed is shown when asked for, never otherwise', async () => {
  assert.ok(!(await text({})).includes('PASSED'));
  const out = await text({}, true);
  assert.match(out, /^ {2}lockdown-off +\/sys\/kernel\/security\/lockdown: none \[integrity\] confidentiality$/m);
});

test('many devices do not fill the screen, and no line is longer than it must be', async () => {
  const slots = Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`/sys/bus/pci/slots/${i}/power`, '1\n']));
  const out = await text(slots);
  assert.match(out, /\.\.\. and \d+ more \(--json lists them\)/);
  assert.ok(out.split('\n').length < 40, out);
  for (const line of out.split('\n')) assert.ok(line.length <= 100 || !line.trim().includes(' '), line);
});
