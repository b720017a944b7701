/** docs/kernels.md, from reports of real runs. Pure. */
import type { AttemptResult } from './attempts.ts';
import type { DeviceLine, LabReport } from './report.ts';

const HEAD = `# What was seen on each kernel

Written by \`tools/kernels-doc.ts\` from real runs of \`airlock lab up --compare\` with policies/lab.yaml: Debian's kernels
in QEMU, every driver read from the guest's own sysfs with busybox. Run it again to write it again; the guest tests in
packages/lab/test hold the same on every \`make test\`.
`;

const TAIL = `
## How to read it

- **Without the gate** is the same machine, the same kernel and the same modules, with an init that does what udev does:
  a driver for whatever appears.
- **Root in the guest** is no adversary that Airlock promises to hold: root can stop the agent and write to sysfs as it
  likes. The attempts show what an operator's slip or a careless script does, and how soon it is undone.
- **Bound for a moment**: the kernel lets root do it, the agent hears of it and takes it back. The time is the guest's,
  under emulation, from the end of the attempt. What a device did meanwhile, it did.
- On 6.1 and 6.12 \`drivers_autoprobe\` = 0 does not keep a hot-plugged or rescanned PCI function from being bound to a
  driver that is loaded; on 7.2 it does. What the gate can do about it there is to load no driver that no rule needs, and
  to say that the rest is not enforceable; the agent unbinds what was bound all the same.
- 6.12 and 7.2 have virtio, virtio_pci and virtio_console built in: these devices are live before the first program
  runs. The gate unbinds them first and binds again what the policy allows. Before the gate they could already talk to
  the kernel; a kernel whose drivers are modules (6.1, or \`initcall_blacklist=virtio_console_init\`) is the cure.
- No kernel lets user space choose what virtio features a driver negotiates: what the policy forbids is seen after the
  driver is bound, and the device is unbound again.
`;

/** `reports` in the order of the columns. */
export function kernelsDocument(reports: readonly LabReport[]): string {
  const row = (name: string, cell: (report: LabReport) => string) =>
    `| ${name} | ${reports.map((report) => cell(report).replaceAll('|', '\\|')).join(' | ')} |`;
  const pci = (report: LabReport) => report.devices.filter(({ id }) => id.startsWith('pci:'));
  const table = (head: string, rows: readonly string[]) => [
    `| ${head} | ${reports.map(({ kernel }) => kernel.series).join(' | ')} |`,
    `|---|${reports.map(() => '---|').join('')}`,
    ...rows,
  ];
  const attempts = reports[0]?.attempts.map(({ id, title }) => ({ id, title })) ?? [];
  const machine = [...new Set(reports.flatMap((report) => report.machine.map(({ property }) => property)))];
  const ids = [...new Set(reports.flatMap((report) => report.devices.map(({ id }) => id)))];
  const device = (report: LabReport, id: string) => report.devices.find((line) => line.id === id);
  const name = (id: string) => {
    const line = reports.map((report) => device(report, id)).find((found) => found !== undefined);
    return `${line?.name ?? id}${line?.origin === 'hotplug' ? ' (plugged in)' : ''}`;
  };
  return `${[
    HEAD,
    ...table('', [
      row('Release', ({ kernel }) => kernel.release),
      row('The policy holds', ({ held }) => (held ? 'yes' : '**no**')),
      row('PCI functions with a driver, without the gate', (report) => count(pci(report), ({ without }) => without)),
      row('With the gate and the agent', (report) => count(pci(report), ({ driver }) => driver)),
      row(
        'The gate took (emulated, shared machine)',
        ({ gateMilliseconds }) => `${(gateMilliseconds / 1000).toFixed(1)} s`,
      ),
    ]),
    '\n## Root in the guest, on every denied PCI function\n',
    ...table(
      'Attempt',
      attempts.map(({ id, title }) =>
        row(title, (report) => attemptWords(report.attempts.find((attempt) => attempt.id === id))),
      ),
    ),
    '\n## What holds of the machine as a whole\n',
    ...table(
      'Property',
      machine.map((property) =>
        row(property, (report) => {
          const outcome = report.machine.find((one) => one.property === property);
          if (outcome === undefined) return '-';
          return `${outcome.status}${outcome.because === undefined ? '' : `: ${outcome.because}`}`;
        }),
      ),
    ),
    '\n## Device by device: driver with the gate / without it\n',
    ...table(
      'Device',
      ids.map((id) =>
        row(name(id), (report) => {
          const line = device(report, id);
          return line === undefined ? 'not there' : `${driverWords(line)} / ${line.without ?? '-'}`;
        }),
      ),
    ),
    TAIL,
  ].join('\n')}`;
}

function count(devices: readonly DeviceLine[], driver: (device: DeviceLine) => string | null | undefined): string {
  return `${devices.filter((device) => typeof driver(device) === 'string').length} of ${devices.length}`;
}

function attemptWords(attempt: AttemptResult | undefined): string {
  if (attempt === undefined) return '-';
  if (attempt.left.length > 0) return `**${attempt.left.length} of ${attempt.tried} stay bound**`;
  if (attempt.bound.length === 0) return 'nothing was bound';
  return `${attempt.bound.length} of ${attempt.tried} bound for a moment, taken back within ${((attempt.settledMilliseconds ?? 0) / 1000).toFixed(1)} s`;
}

function driverWords(line: DeviceLine): string {
  const driver = line.driver ?? '-';
  return line.status === 'enforced' ? driver : `${driver} (${line.status})`;
}
