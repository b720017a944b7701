/** Machines in memory for the audit's tests: a confidential VM in which nothing is wrong, and others made from it. */
import type { Device, Inventory } from '@airlock/core/device.ts';
import { ok } from '@airlock/core/result.ts';
import { observe } from '../src/audit/observe.ts';
import { type AuditReport, type JudgeOptions, judge } from '../src/audit/report.ts';
import { fakeCommands } from '../src/fake-commands.ts';
import { type FakeNode, fakeFiles } from '../src/fake-files.ts';

export interface MachineModel {
  tree: Record<string, FakeNode>;
  log: string | null;
  inventory: Inventory | null;
}

export const RELEASE = '7.2.12+deb13-amd64';

const MOUNTS = [
  '21 1 253:1 / / rw,relatime shared:1 - ext4 /dev/mapper/root rw',
  '22 21 0:21 / /proc rw - proc proc rw',
  '23 21 0:22 / /sys rw - sysfs sysfs rw',
  '24 23 0:7 / /sys/kernel/security rw - securityfs securityfs rw',
  '25 23 0:8 / /sys/kernel/debug rw - debugfs debugfs rw',
  '26 23 0:9 / /sys/kernel/config rw - configfs configfs rw',
  '27 21 0:5 / /dev rw - devtmpfs udev rw',
  '28 21 0:23 / /run rw - tmpfs tmpfs rw',
];

export const mountinfo = (...more: string[]) => `${[...MOUNTS, ...more].join('\n')}\n`;

export const LOG = [
  '[    0.000000] Linux version 7.2.12+deb13-amd64 (debian-kernel@lists.debian.org)',
  '[    0.000000] Hypervisor detected: KVM',
  '[    0.310000] Memory Encryption Features active: AMD SEV SEV-ES SEV-SNP',
  '[    0.320000] software IO TLB: mapped [mem 0x77e00000-0x7be00000] (64MB)',
  '',
].join('\n');

const FLAGS = 'fpu vme rdrand rdseed hypervisor smep smap';

export const CPUINFO = `processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: ${FLAGS}\n\n`;

export function virtio(name: string, type: string, more: Partial<Device> = {}): Device {
  return {
    id: `pci:0000:00:0${name.length}.0`,
    bus: 'virtio',
    transport: 'pci',
    location: '0000:00:03.0',
    path: '/sys/devices/pci0000:00/0000:00:03.0',
    nodes: [
      { bus: 'pci', name: '0000:00:03.0', driver: 'virtio-pci' },
      { bus: 'virtio', name, driver: `virtio_${type}` },
    ],
    type,
    features: { negotiated: ['VERSION_1', 'ACCESS_PLATFORM'] },
    status: 0xf,
    interfaces: [],
    faults: [],
    ...more,
  };
}

/** A disk, encrypted with integrity (cryptsetup 2.8's names), on a virtio disk. */
export const DISK: Record<string, FakeNode> = {
  '/sys/class/block/vda': { link: '../../devices/pci0000:00/0000:00:03.0/virtio1/block/vda' },
  '/sys/class/block/vda2': { link: '../../devices/pci0000:00/0000:00:03.0/virtio1/block/vda/vda2' },
  '/sys/class/block/dm-0': { link: '../../devices/virtual/block/dm-0' },
  '/sys/class/block/dm-1': { link: '../../devices/virtual/block/dm-1' },
  '/sys/devices/pci0000:00/0000:00:03.0/virtio1/block/vda/dev': '254:0\n',
  '/sys/devices/pci0000:00/0000:00:03.0/virtio1/block/vda/vda2/dev': '254:2\n',
  '/sys/devices/pci0000:00/0000:00:03.0/virtio1/block/vda/vda2/partition': '2\n',
  '/sys/devices/virtual/block/dm-0/dev': '253:0\n',
  '/sys/devices/virtual/block/dm-0/dm/uuid': 'CRYPT-SUBDEV-ef0561fda2cf4f8eb9fd729f4cd3e0c7-root_dif\n',
  '/sys/devices/virtual/block/dm-0/dm/name': 'root_dif\n',
  '/sys/devices/virtual/block/dm-0/slaves/vda2': { link: '../../../../pci0000:00/0000:00:03.0/virtio1/block/vda/vda2' },
  '/sys/devices/virtual/block/dm-1/dev': '253:1\n',
  '/sys/devices/virtual/block/dm-1/dm/uuid': 'CRYPT-LUKS2-ef0561fda2cf4f8eb9fd729f4cd3e0c7-root\n',
  '/sys/devices/virtual/block/dm-1/dm/name': 'root\n',
  '/sys/devices/virtual/block/dm-1/slaves/dm-0': { link: '../../dm-0' },
};

/** A SEV-SNP guest as Airlock would have it. */
export function snpGuest(): MachineModel {
  return {
    log: LOG,
    inventory: {
      version: 1,
      kernel: {
        release: RELEASE,
        arch: 'x86_64',
        confidential: 'sev-snp',
        autoprobe: { pci: false, virtio: false },
        modulesDisabled: true,
        lockdown: 'integrity',
        swiotlb: 'force',
        cmdline: '',
      },
      devices: [virtio('virtio0', 'net'), virtio('virtio1', 'block')],
    },
    tree: {
      '/proc/cmdline':
        'BOOT_IMAGE=/vmlinuz root=/dev/mapper/root mce=off oops=panic pci=noearly,nommconf no-kvmclock random.trust_cpu=y random.trust_bootloader=n lockdown=integrity\n',
      '/proc/cpuinfo': CPUINFO,
      '/proc/self/mountinfo': mountinfo(),
      '/proc/consoles': 'tty0                 -WU (EC p  )    4:7\n',
      '/proc/swaps': 'Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n',
      '/proc/modules': 'virtio_net 98304 0 - Live 0x0000000000000000\nvirtio_blk 32768 2 - Live 0x0000000000000000\n',
      '/proc/sys/kernel/osrelease': `${RELEASE}\n`,
      '/proc/sys/kernel/tainted': '0\n',
      '/proc/sys/kernel/panic_on_oops': '1\n',
      '/proc/sys/kernel/modules_disabled': '1\n',
      '/proc/sys/kernel/kexec_load_disabled': '1\n',
      '/proc/sys/kernel/sysrq': '438\n',
      '/proc/sys/fs/suid_dumpable': '0\n',
      '/sys/kernel/kexec_crash_loaded': '0\n',
      '/sys/kernel/security/lockdown': 'none [integrity] confidentiality\n',
      '/sys/kernel/debug/swiotlb/io_tlb_nslabs': '32768\n',
      '/sys/kernel/iommu_groups/0/type': 'DMA\n',
      '/sys/module/module/parameters/sig_enforce': 'N\n',
      '/sys/power/state': 'freeze mem disk\n',
      '/sys/power/disk': '[disabled]\n',
      '/sys/bus/pci/drivers_autoprobe': '0\n',
      '/sys/bus/virtio/drivers_autoprobe': '0\n',
      '/sys/bus/virtio/drivers/virtio_net/bind': '',
      '/sys/bus/virtio/drivers/virtio_blk/bind': '',
      '/sys/bus/usb/devices/usb1/authorized_default': '0\n',
      '/sys/bus/usb/drivers_autoprobe': '0\n',
      '/sys/bus/thunderbolt/devices/domain0/security': 'user\n',
      '/sys/bus/pci/slots/1/address': '0000:00:01\n',
      '/sys/devices/system/cpu/sev/vmpl': '0\n',
      '/sys/devices/system/cpu/vulnerabilities/meltdown': 'Not affected\n',
      '/sys/devices/system/cpu/vulnerabilities/spectre_v1': 'Mitigation: usercopy/swapgs barriers\n',
      '/sys/devices/system/clocksource/clocksource0/current_clocksource': 'tsc\n',
      '/sys/class/misc/hw_random/rng_current': 'tpm-rng-0\n',
      '/sys/class/tsm/tsm0/uevent': '',
      '/sys/firmware/acpi/tables/APIC': '',
      '/sys/firmware/acpi/tables/DSDT': '',
      '/sys/firmware/acpi/tables/FACP': '',
      '/sys/firmware/dmi/entries/11-0/raw': 'no names here',
      '/dev/sev-guest': '',
      '/dev/null': '',
      '/etc/systemd/system/getty.target.wants/getty@tty1.service': '',
      [`/lib/modules/${RELEASE}/modules.builtin`]: 'kernel/fs/ext4/ext4.ko\n',
      ...DISK,
    },
  };
}

/** An ordinary virtual machine on the same host. */
export function plainGuest(): MachineModel {
  const machine = snpGuest();
  delete machine.tree['/sys/devices/system/cpu/sev/vmpl'];
  delete machine.tree['/dev/sev-guest'];
  machine.log = LOG.replace(/.*Memory Encryption.*\n/, '');
  return machine;
}

export async function audit(machine: MachineModel, options: JudgeOptions = {}): Promise<AuditReport> {
  const { tree, log, inventory } = machine;
  const commands = fakeCommands(log === null ? { dmesg: () => ({ status: 1 }) } : { dmesg: () => ({ stdout: log }) });
  const observations = await observe(fakeFiles(tree), {
    commands,
    ...(inventory === null ? {} : { inventory: ok(inventory) }),
  });
  return judge(observations, options);
}

/** How one check ended. */
export function outcome(
  report: AuditReport,
  id: string,
): 'found' | 'passed' | 'not-checked' | 'not-applicable' | 'lost' {
  const is = (one: { readonly id: string }) => one.id === id;
  if (report.findings.some(is)) return 'found';
  if (report.passed.some(is)) return 'passed';
  if (report.notChecked.some(is)) return 'not-checked';
  return report.notApplicable.some(is) ? 'not-applicable' : 'lost';
}
