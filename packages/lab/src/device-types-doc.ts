/** docs/device-types.md, from what happened in real runs. Pure. */
import type { KernelSeries } from './cache.ts';
import { type CaseOutcome, DEVICE_TRANSPORTS, type DeviceTransport } from './device-bench.ts';

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
- **vhost-user**: QEMU is the PCI function (\`vhost-user-test-device-pci\`, which takes any type, plugged in after boot). What
  is not done there was not looked into further. For vsock QEMU has a front-end of its own, with which
  \`packages/lab/test/devices-serve-linux.ts\` holds the same.

Every device is plugged into a running guest, used, and (except for plain) unplugged. Warnings that the kernel logged
meanwhile are in the table.
`;

const TAIL = `
## What a model does not do

- **balloon** changes no memory: pages that it is given stay in the VMM's memory, and are only counted.
- **gpu** is 2D without blobs. Its requests name the guest's memory themselves, so it needs a transport that shows that.
- **pmem**: every access of the guest is a message (some 80 µs); there is no mapping of the file into the guest.
- **memory** has no memory of its own: the VMM must have some at the address, which the guest does not use otherwise (here
  1 GiB, of which \`mem=512M\` leaves the upper half).
- **iommu** keeps domains and mappings and answers for them, but translates for nobody: vfio-user has no message with which
  a device could translate for others. Linux attaches endpoints only where a VIOT table names them, which QEMU makes only for
  its own IOMMU.
- **sound**, the lines of warnings: Linux's virtio_snd is thought to give its rings back before it resets the device, so that
  a device which still asks for notifications there writes into memory that is somebody else's. Not settled yet.
- **sound** plays in its time into a WAV file and records silence. **crypto** is AES-CBC only.
- **rpmb, scmi, i2c, gpio, rtc, can, spi**: no kernel of Debian's has their driver; a driver in memory tests them
  (\`packages/device/test/\`).
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
  const warned = outcome.warnings.length === 0 ? '' : ` **(${outcome.warnings.length} lines of warnings)**`;
  if (!outcome.done.ok)
    return `**not done**${outcome.driver === null ? ': no driver bound' : ` with ${outcome.driver}`}${warned}`;
  return `${outcome.driver}: ${outcome.done.value}${warned}`;
}
