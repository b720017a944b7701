/** docs/device-types.md, from what happened in real runs. Pure. */
import type { KernelSeries } from './cache.ts';
import { type CaseOutcome, DEVICE_TRANSPORTS, type DeviceTransport } from './device-bench.ts';
import { KNOWN_LINES } from './kernel-log.ts';

/** All cases of one boot. */
export interface DeviceRun {
  readonly series: KernelSeries;
  readonly release: string;
  readonly transport: DeviceTransport;
  readonly outcomes: readonly CaseOutcome[];
}

const HEAD = `# Device types

Every type of device that \`airlock device serve\` knows, on Debian's kernels: which driver bound, and what was done with it.
This file is written by \`tools/node tools/device-types-doc.ts\` from real runs; \`packages/lab/src/device-cases.ts\` says
what is done, and how both sides are asked whether it was.

- **vfio-user**: the device is a PCI function whose capabilities and MSI-X table are its own process's
  (\`--transport vfio-user\`).
- **vfio-user plain**: QEMU emulates MSI-X for it (\`--plain\`). Devices stay plugged in: QEMU 11 aborts when such a function
  is unplugged.
- **vhost-user**: QEMU is the PCI function (\`vhost-user-test-device-pci\`, which takes any type, plugged in after boot).
- **vhost-user own**: QEMU is the PCI function, by the front-end that it has for that type.

Every device is plugged into a running guest, read by \`lspci -vvv -xxxx\` there, used, let go by its driver and taken
again, and (except for plain) unplugged. After each of these the kernel's log is looked at: a line at warning or worse is
shown here, as \`lines of warnings\`, unless it stands in the list below. \`make test-full\` holds all of it for both kinds
of vfio-user on three kernels and for both of vhost-user on 7.2 (\`packages/lab/test/every-type-over-*.full.ts\`),
\`make test\` for three types.

"No driver" is what the kernel's own configuration says: such a device is shown as a function, read by lspci, and nothing
binds it. On 7.2 the drivers of i2c, gpio, rtc, can and spi are built from the same kernel's source (its package
\`linux-source-7.2\`, with its headers and compiler: \`tools/debian-cache drivers\`); **Debian does not ship them**, and
their rows say so. \`packages/lab/test/missing-drivers-bind-7.2.full.ts\` holds those.
`;

const TAIL = `
## What the kernel says of any device of a type

Nothing else is let pass:

${KNOWN_LINES.map(({ type, line, reason }) => `- **${type ?? 'any'}**: \`${line.source.replaceAll('\\', '')}\`: ${reason}.`).join('\n')}

Of a driver that Debian does not ship:

- **spi** is never let go or unplugged above: Linux 7.2's \`spi-virtio\` has no \`remove\`, and the kernel follows the null
  pointer (\`BUG: kernel NULL pointer dereference\` in \`virtio_dev_remove\`) when its device goes, whoever made the device.

Two more that look like the device's doing, and are not:

- **crypto**, let go or unplugged while the kernel still tests the algorithm (the first fraction of a second after its
  driver bound): \`WARNING: crypto/algapi.c\` in \`crypto_unregister_alg\`. The driver takes an algorithm out of the kernel
  that is in use. QEMU's own \`virtio-crypto-pci\`, bound and let go at once on Linux 7.2, makes the same warning; the runs
  above wait until the test is over.
- **sound** on Linux 6.12: its driver gives the rings back before it resets the device (the other way round in 7.2, as the
  modules' code shows), so a device that goes on writing into its rings writes into somebody else's page. Ours writes
  nothing into a ring in which nothing happens: ten cards one after the other, each used, let go, taken again and
  unplugged, left no line in 6.12's log.

## What lspci shows

Each function of ours has Express, power management, MSI-X and VIRTIO's five vendor capabilities, six with a window of
shared memory. pciutils 3.13 has names for four of them and prints \`VirtIO: <unknown>\` for PCI_CFG and for shared memory,
of QEMU's own devices as of ours. No other line says that something was not understood.

## What QEMU's vhost-user front-ends ask for

- The whole configuration structure comes back when a driver wrote one byte of it (\`vhost-user-input-pci\`,
  \`vhost-user-test-device-pci\`): the driver's own fields are taken out of it.
- A driver that does not take ACCESS_PLATFORM where it is offered is refused, and Linux's balloon driver never takes it:
  the balloon does not offer it over vhost-user.
- Queues have a length of QEMU's choosing, 64 or 128. QEMU 11 ends in an assertion (\`memory_region_del_eventfd\`) when a
  back-end hangs up while queues are being set up.
- \`vhost-user-scsi-pci\` takes VIRTIO_SCSI_F_CHANGE whether it was offered or not.
- \`vhost-user-rtc-pci\` wants a second queue, for alarms.

## What a model does not do

- **balloon** changes no memory: pages that it is given stay in the VMM's memory, and are only counted.
- **gpu** is 2D without blobs. Its requests name the guest's memory themselves, so it needs a transport that shows that.
- **pmem**: every access of the guest is a message (some 80 µs); there is no mapping of the file into the guest.
- **memory** has no memory of its own: the VMM must have some at the address, which the guest does not use otherwise (here
  1 GiB, of which \`mem=512M\` leaves the upper half).
- **iommu** keeps domains and mappings and answers for them, but translates for nobody: vfio-user has no message with which
  a device could translate for others. Linux attaches endpoints only where a VIOT table names them, which QEMU makes only for
  its own IOMMU.
- **sound** plays in its time into a WAV file and records silence. **crypto** is AES-CBC only.
- **rtc** has no alarms and no cross timestamps. **rpmb** forgets its key with its process.
- **rpmb, scmi**: none of the three kernels has their driver. They were written after VIRTIO 1.4's text and, where there is
  one, Linux's header of the type; a driver in memory tests them
  (\`packages/device/test/buses-and-clocks-answer.test.ts\`, \`rpmb-frames-5.12.test.ts\`).
`;

/** Runs in any order; one that comes later takes the place of an earlier one of the same kernel and transport. */
export function deviceTypesDocument(runs: readonly DeviceRun[]): string {
  const kept = new Map(runs.map((run) => [`${run.series} ${run.transport}`, run]));
  const kernels = [...new Map([...kept.values()].map(({ series, release }) => [series, release]))].sort(
    ([a], [b]) =>
      Number(a.split('.')[0]) - Number(b.split('.')[0]) || Number(a.split('.')[1]) - Number(b.split('.')[1]),
  );
  const parts = DEVICE_TRANSPORTS.map((transport) => {
    const shown = kernels.flatMap(([series, release]) => {
      const run = kept.get(`${series} ${transport}`);
      return run === undefined ? [] : [{ series, release, run }];
    });
    if (shown.length === 0) return `## ${transport}\n\nNot run.\n`;
    const types = [...new Set(shown.flatMap(({ run }) => run.outcomes.map(({ type }) => type)))];
    const rows = types.map((type) => {
      const cells = shown.map(({ run }) => cell(run.outcomes.find((one) => one.type === type)));
      return `| ${type} | ${cells.map((text) => text.replaceAll('|', '\\|')).join(' | ')} |`;
    });
    return [
      `## ${transport}\n`,
      `| type | ${shown.map(({ series, release }) => `${series} (${release})`).join(' | ')} |`,
      `|---|${shown.map(() => '---|').join('')}`,
      ...rows,
      '',
    ].join('\n');
  });
  return `${HEAD}\n${parts.join('\n')}${TAIL}`;
}

function cell(outcome: CaseOutcome | undefined): string {
  if (outcome === undefined) return 'not run';
  if (outcome.excused !== null) return outcome.excused;
  const complained = outcome.listing?.complaints.length ?? 0;
  const warned = [
    outcome.warnings.length === 0 ? '' : ` **(${outcome.warnings.length} lines of warnings)**`,
    complained === 0 ? '' : ` **(lspci complains ${complained} times)**`,
  ].join('');
  if (!outcome.done.ok)
    return `**not done**${outcome.driver === null ? ': no driver bound' : ` with ${outcome.driver}`}${warned}`;
  const aside = outcome.aside ? ' (driver built from the same kernel’s source; Debian does not ship it)' : '';
  return `${outcome.driver}: ${outcome.done.value}${aside}${warned}`;
}
