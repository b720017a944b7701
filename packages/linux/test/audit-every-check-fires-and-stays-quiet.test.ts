import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CHECKS } from '../src/audit/catalogue.ts';
import type { FakeNode } from '../src/fake-files.ts';
import {
  audit,
  CPUINFO,
  LOG,
  type MachineModel,
  mountinfo,
  outcome,
  RELEASE,
  snpGuest,
  virtio,
} from './audit-machines.ts';

type Change = (machine: MachineModel) => void;

const set =
  (files: Record<string, FakeNode>): Change =>
  (machine) =>
    void Object.assign(machine.tree, files);

const logs =
  (text: string): Change =>
  (machine) => {
    machine.log = text;
  };

const cmdline = (text: string) => set({ '/proc/cmdline': `${text}\n` });

const devices =
  (...list: ReturnType<typeof virtio>[]): Change =>
  (machine) => {
    if (machine.inventory !== null) machine.inventory = { ...machine.inventory, devices: list };
  };

const without = (...features: string[]) => ({
  features: { negotiated: ['VERSION_1', 'ACCESS_PLATFORM'].filter((name) => !features.includes(name)) },
});
const negotiates = (...features: string[]) => ({
  features: { negotiated: ['VERSION_1', 'ACCESS_PLATFORM', ...features] },
});

const SWAP_HEAD = 'Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n';
const swapOn = (device: string, type = 'partition') =>
  set({ '/proc/swaps': `${SWAP_HEAD}${device}                               ${type}\t1048572\t0\t-2\n` });
/** A second LUKS device, without integrity, on its own disk. */
const PLAIN_LUKS: Record<string, FakeNode> = {
  '/sys/class/block/vdb': { link: '../../devices/pci0000:00/0000:00:04.0/virtio2/block/vdb' },
  '/sys/class/block/dm-2': { link: '../../devices/virtual/block/dm-2' },
  '/sys/devices/pci0000:00/0000:00:04.0/virtio2/block/vdb/dev': '254:16\n',
  '/sys/devices/virtual/block/dm-2/dev': '253:2\n',
  '/sys/devices/virtual/block/dm-2/dm/uuid': 'CRYPT-LUKS2-00000000000000000000000000000000-data\n',
  '/sys/devices/virtual/block/dm-2/dm/name': 'data\n',
  '/sys/devices/virtual/block/dm-2/slaves/vdb': { link: '../../../pci0000:00/0000:00:04.0/virtio2/block/vdb' },
};

const asKind =
  (line: string): Change =>
  (machine) => {
    machine.log = LOG.replace('Memory Encryption Features active: AMD SEV SEV-ES SEV-SNP', line);
    delete machine.tree['/sys/devices/system/cpu/sev/vmpl'];
  };

const all =
  (...changes: Change[]): Change =>
  (machine) => {
    for (const change of changes) change(machine);
  };

/** What makes each check speak, on a guest on which it is silent. `quiet` where the guest itself is not the best case. */
const CASES: Record<string, { fires: Change; quiet?: Change }> = {
  'memory-not-encrypted': {
    fires: (machine) => {
      delete machine.tree['/sys/devices/system/cpu/sev/vmpl'];
      machine.log = LOG.replace(/.*Memory Encryption.*\n/, '');
    },
  },
  'sev-without-integrity': { fires: asKind('Memory Encryption Features active: AMD SEV SEV-ES') },
  'td-debug': {
    fires: all(
      set({ '/proc/cpuinfo': CPUINFO.replace('hypervisor', 'hypervisor tdx_guest') }),
      logs(`${LOG}[    0.1] tdx: Attributes: DEBUG SEPT_VE_DISABLE\n`),
    ),
    quiet: all(
      set({ '/proc/cpuinfo': CPUINFO.replace('hypervisor', 'hypervisor tdx_guest') }),
      logs(`${LOG}[    0.1] tdx: Attributes: SEPT_VE_DISABLE\n`),
    ),
  },
  'swiotlb-disabled': { fires: cmdline('root=/dev/x swiotlb=65536,noforce') },
  'swiotlb-exhausted': {
    fires: logs(`${LOG}[    9.9] virtio_blk virtio1: swiotlb buffer is full (sz: 4096 bytes), total 32768 (slots)\n`),
  },
  'virtio-without-access-platform': { fires: devices(virtio('virtio0', 'net', without('ACCESS_PLATFORM'))) },
  'virtio-legacy': { fires: devices(virtio('virtio0', 'net', without('VERSION_1'))) },
  'virtio-packed-ring': { fires: devices(virtio('virtio0', 'net', negotiates('RING_PACKED'))) },
  'virtio-indirect-descriptors': { fires: devices(virtio('virtio0', 'net', negotiates('INDIRECT_DESC'))) },
  'virtio-needs-reset': { fires: devices(virtio('virtio0', 'net', { status: 0x4f })) },
  'virtio-mmio': { fires: devices(virtio('virtio0', 'net', { transport: 'mmio' })) },
  'unhardened-virtio-device': { fires: devices(virtio('virtio0', 'balloon')) },
  'emulated-pci-device': {
    fires: devices(
      virtio('virtio0', 'storage', {
        bus: 'pci',
        transport: null,
        class: 0x010802,
        nodes: [{ bus: 'pci', name: '0000:00:05.0', driver: 'nvme' }],
      }),
    ),
    quiet: devices(
      virtio('virtio0', 'bridge', {
        bus: 'pci',
        transport: null,
        class: 0x060400,
        nodes: [{ bus: 'pci', name: '0000:00:01.0', driver: 'pcieport' }],
      }),
      virtio('virtio0', 'storage', {
        bus: 'pci',
        transport: null,
        class: 0x010802,
        nodes: [{ bus: 'pci', name: '0000:00:05.0', driver: null }],
      }),
    ),
  },
  'unhardened-virtio-driver': { fires: set({ '/sys/bus/virtio/drivers/virtio_balloon/bind': '' }) },
  'unhardened-driver-built-in': {
    fires: set({ [`/lib/modules/${RELEASE}/modules.builtin`]: 'kernel/drivers/virtio/virtio_mmio.ko\n' }),
  },
  'driver-before-gate': {
    fires: set({ [`/lib/modules/${RELEASE}/modules.builtin`]: 'kernel/drivers/virtio/virtio_pci.ko\n' }),
  },
  'unneeded-driver-loaded': { fires: set({ '/proc/modules': 'e1000 163840 0 - Live 0x0\n' }) },
  'autoprobe-open': { fires: set({ '/sys/bus/virtio/drivers_autoprobe': '1\n' }) },
  'pci-hotplug-open': { fires: set({ '/sys/bus/pci/slots/1/power': '0\n' }) },
  'usb-authorized-by-default': { fires: set({ '/sys/bus/usb/devices/usb1/authorized_default': '1\n' }) },
  'thunderbolt-open': { fires: set({ '/sys/bus/thunderbolt/devices/domain0/security': 'none\n' }) },
  'module-loading-open': { fires: set({ '/proc/sys/kernel/modules_disabled': '0\n' }) },
  'swap-unencrypted': {
    fires: swapOn('/dev/vda2'),
    quiet: all(swapOn('/dev/zram0'), set({ '/sys/class/block/zram0/dev': '252:0\n' })),
  },
  'swap-without-integrity': { fires: all(set(PLAIN_LUKS), swapOn('/dev/dm-2')), quiet: swapOn('/dev/mapper/root') },
  'hibernation-unencrypted': {
    fires: set({ '/sys/power/disk': '[platform] shutdown\n', '/sys/power/resume': '254:2\n' }),
    quiet: set({ '/sys/power/disk': '[platform] shutdown\n', '/sys/power/resume': '253:1\n' }),
  },
  'disk-unencrypted': {
    fires: set({ '/proc/self/mountinfo': mountinfo('40 21 254:2 / /srv rw - xfs /dev/vda2 rw') }),
  },
  'disk-without-integrity': {
    fires: all(
      set(PLAIN_LUKS),
      set({ '/proc/self/mountinfo': mountinfo('40 21 253:2 / /srv rw - xfs /dev/mapper/data rw') }),
    ),
  },
  'boot-partition-open': {
    fires: set({ '/proc/self/mountinfo': mountinfo('40 21 254:2 / /boot rw - ext4 /dev/vda2 rw') }),
    quiet: set({ '/proc/self/mountinfo': mountinfo('40 21 253:1 / /boot rw - ext4 /dev/mapper/root rw') }),
  },
  'host-shared-folder': {
    fires: set({ '/proc/self/mountinfo': mountinfo('40 21 0:44 / /mnt rw - virtiofs share rw') }),
  },
  'console-on-host': { fires: set({ '/proc/consoles': 'ttyS0                -W- (EC  p a)    4:64\n' }) },
  'login-on-host-console': {
    fires: set({ '/run/systemd/generator/getty.target.wants/serial-getty@hvc0.service': '' }),
  },
  'autologin-on-host-console': {
    fires: set({
      '/etc/systemd/system/serial-getty@ttyS0.service.d/autologin.conf':
        '[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root %I $TERM\n',
    }),
    quiet: set({
      '/etc/systemd/system/serial-getty@ttyS0.service.d/speed.conf': '[Service]\nExecStart=-/sbin/agetty 115200 %I\n',
    }),
  },
  'early-console': { fires: cmdline('earlyprintk=serial,ttyS0 quiet') },
  'sysrq-from-host': {
    fires: set({ '/proc/consoles': 'hvc0                 -W- (EC p  )  229:0\n', '/proc/sys/kernel/sysrq': '1\n' }),
    quiet: set({ '/proc/consoles': 'hvc0                 -W- (EC p  )  229:0\n', '/proc/sys/kernel/sysrq': '0\n' }),
  },
  'host-credentials': {
    fires: set({
      '/sys/firmware/dmi/entries/11-0/raw': new Uint8Array([
        11,
        5,
        0,
        1,
        1,
        ...new TextEncoder().encode('io.systemd.credential:passwd.hashed-password.root=hunter2'),
        0,
        0,
      ]),
    }),
  },
  'host-provisioning': {
    fires: set({ '/sys/firmware/qemu_fw_cfg/by_key/40/name': 'opt/com.coreos/config\n' }),
    quiet: set({ '/sys/firmware/qemu_fw_cfg/by_key/40/name': 'opt/ovmf/X-PciMmio64Mb\n' }),
  },
  'fw-cfg-open': { fires: set({ '/sys/firmware/qemu_fw_cfg/by_key/40/name': 'bootorder\n' }) },
  'acpi-table-overridden': { fires: set({ '/proc/sys/kernel/tainted': '256\n' }) },
  'acpi-tables-unexpected': { fires: set({ '/sys/firmware/acpi/tables/SSDT1': '' }) },
  'lockdown-off': { fires: set({ '/sys/kernel/security/lockdown': '[none] integrity confidentiality\n' }) },
  'modules-unsigned': {
    fires: set({
      '/sys/kernel/security/lockdown': '[none] integrity confidentiality\n',
      '/proc/sys/kernel/modules_disabled': '0\n',
    }),
  },
  'kernel-tainted-by-code': {
    fires: set({ '/proc/sys/kernel/tainted': `${2 ** 12 + 2 ** 13}\n` }),
    quiet: set({ '/proc/sys/kernel/tainted': `${2 ** 9 + 2 ** 7}\n` }),
  },
  'command-line-weakens': {
    fires: cmdline('root=/dev/x rd.break'),
    quiet: cmdline('root=/dev/x init=/lib/systemd/systemd -- rd.break'),
  },
  'command-line-not-hardened': { fires: cmdline('root=/dev/x pci=noearly mce=off') },
  'no-panic-on-oops': { fires: set({ '/proc/sys/kernel/panic_on_oops': '0\n' }) },
  'cpu-vulnerable': {
    fires: set({
      '/sys/devices/system/cpu/vulnerabilities/mds': 'Vulnerable: Clear CPU buffers attempted, no microcode\n',
    }),
  },
  'cpu-mitigation-unknown': {
    fires: set({ '/sys/devices/system/cpu/vulnerabilities/srbds': 'Unknown: Dependent on hypervisor status\n' }),
  },
  'kexec-open': {
    fires: set({
      '/sys/kernel/security/lockdown': '[none] integrity confidentiality\n',
      '/proc/sys/kernel/kexec_load_disabled': '0\n',
    }),
  },
  'crash-kernel-loaded': { fires: set({ '/sys/kernel/kexec_crash_loaded': '1\n' }) },
  'suid-core-dumps': {
    fires: set({ '/proc/sys/fs/suid_dumpable': '1\n' }),
    quiet: set({ '/proc/sys/fs/suid_dumpable': '2\n' }),
  },
  'iommu-absent': { fires: (machine) => void delete machine.tree['/sys/kernel/iommu_groups/0/type'] },
  'iommu-passthrough': { fires: set({ '/sys/kernel/iommu_groups/0/type': 'identity\n' }) },
  'iommu-lazy': { fires: set({ '/sys/kernel/iommu_groups/0/type': 'DMA-FQ\n' }) },
  'iommu-switched-off': { fires: cmdline('intel_iommu=off') },
  'clock-from-host': {
    fires: set({ '/sys/devices/system/clocksource/clocksource0/current_clocksource': 'kvm-clock\n' }),
  },
  'entropy-from-host': { fires: set({ '/sys/class/misc/hw_random/rng_current': 'virtio_rng.0\n' }) },
  'entropy-only-from-host': {
    fires: all(
      set({ '/sys/class/misc/hw_random/rng_current': 'virtio_rng.0\n' }),
      cmdline('root=/dev/x random.trust_cpu=off'),
    ),
    quiet: set({ '/sys/class/misc/hw_random/rng_current': 'virtio_rng.0\n' }),
  },
  'cpu-random-not-trusted': { fires: set({ '/proc/cpuinfo': CPUINFO.replace('rdrand', '') }) },
  'bootloader-seed-trusted': {
    fires: cmdline('root=/dev/x'),
    quiet: all(
      cmdline('root=/dev/x'),
      set({ [`/boot/config-${RELEASE}`]: '# CONFIG_RANDOM_TRUST_BOOTLOADER is not set\n' }),
    ),
  },
  'attestation-missing': { fires: (machine) => void delete machine.tree['/dev/sev-guest'] },
  'device-attestation-missing': { fires: (machine) => void delete machine.tree['/sys/class/tsm/tsm0/uevent'] },
};

test('every check of the catalogue has its cases, and no case is left over', () => {
  assert.deepEqual(
    CHECKS.map(({ id }) => id),
    [...new Set(CHECKS.map(({ id }) => id))],
  );
  assert.deepEqual(Object.keys(CASES).sort(), CHECKS.map(({ id }) => id).sort());
});

test('a hardened SEV-SNP guest gives no finding, and everything was really looked at', async () => {
  const report = await audit(snpGuest());
  assert.deepEqual(
    report.findings.map(({ id, evidence }) => [id, evidence]),
    [],
  );
  assert.deepEqual(report.notChecked, []);
  assert.deepEqual(
    report.notApplicable.map(({ id }) => id),
    ['td-debug', 'emulated-pci-device', 'boot-partition-open', 'sysrq-from-host'],
  );
  assert.equal(report.machine.confidential, 'sev-snp');
});

for (const [id, { fires, quiet }] of Object.entries(CASES)) {
  test(`${id} is found where it is so`, async () => {
    const machine = snpGuest();
    fires(machine);
    const report = await audit(machine, { asConfidential: true });
    assert.equal(outcome(report, id), 'found', JSON.stringify(report.notChecked.find((one) => one.id === id)));
    const finding = report.findings.find((one) => one.id === id);
    assert.ok(finding !== undefined && finding.evidence.length > 0);
    for (const { path, value } of finding.evidence) assert.ok(path !== '' && value !== '', `${path}: ${value}`);
  });

  test(`${id} is not found where it is not so`, async () => {
    const machine = snpGuest();
    quiet?.(machine);
    const report = await audit(machine);
    const ended = outcome(report, id);
    // Where nothing of the kind is there, there is nothing to pass.
    const without = quiet === undefined || id === 'emulated-pci-device';
    assert.ok(ended === 'passed' || (without && ended === 'not-applicable'), ended);
  });
}

test('a credential that the host hands in is named, and its value is never shown', async () => {
  const machine = snpGuest();
  CASES['host-credentials']?.fires(machine);
  const report = JSON.stringify(await audit(machine));
  assert.ok(report.includes('io.systemd.credential:passwd.hashed-password.root'));
  assert.ok(!report.includes('hunter2'));
});
