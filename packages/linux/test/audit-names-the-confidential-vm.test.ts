import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  audit,
  CPUINFO,
  LOG,
  type MachineModel,
  mountinfo,
  outcome,
  plainGuest,
  snpGuest,
  virtio,
} from './audit-machines.ts';

const INTEL = CPUINFO.replace('AuthenticAMD', 'GenuineIntel');
const ARM = 'processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\n\n';
const IBM = 'vendor_id       : IBM/S390\n# processors    : 2\nfeatures\t: esan3 zarch\n';

async function machineOf(machine: MachineModel) {
  return (await audit(machine)).machine;
}

test('SEV-SNP: by the folder that the kernel makes in such guests only, without root', async () => {
  const machine = snpGuest();
  machine.log = null;
  const found = await machineOf(machine);
  assert.equal(found.confidential, 'sev-snp');
  assert.deepEqual(found.how, [{ path: '/sys/devices/system/cpu/sev', value: 'present' }]);
});

test('TDX: by the flag tdx_guest', async () => {
  const machine = plainGuest();
  machine.tree['/proc/cpuinfo'] = INTEL.replace('hypervisor', 'hypervisor tdx_guest');
  assert.equal((await machineOf(machine)).confidential, 'tdx');
});

test('a flag that only contains tdx_guest is not the flag', async () => {
  const machine = plainGuest();
  machine.tree['/proc/cpuinfo'] = INTEL.replace('hypervisor', 'hypervisor tdx_guest2 no_tdx_guest');
  assert.equal((await machineOf(machine)).confidential, 'none');
});

for (const [line, kind] of [
  ['Memory Encryption Features active: AMD SEV', 'sev'],
  ['Memory Encryption Features active: AMD SEV SEV-ES', 'sev-es'],
  ['Memory Encryption Features active: AMD SEV SEV-ES SEV-SNP', 'sev-snp'],
  ['Memory Encryption Features active: Intel TDX', 'tdx'],
  ['Hyper-V: Isolation Config: Group A 0x1, Group B 0xba2', 'sev-snp'],
  ['Hyper-V: Isolation Config: Group A 0x1, Group B 0xbe3', 'tdx'],
] as const) {
  test(`by the kernel log: ${line}`, async () => {
    const machine = plainGuest();
    machine.log = `${LOG.replace(/.*Memory Encryption.*\n/, '')}[    0.2] ${line}\n`;
    const found = await machineOf(machine);
    assert.equal(found.confidential, kind);
    assert.deepEqual(found.how, [{ path: 'kernel log', value: line }]);
  });
}

test('memory encryption of the host itself (SME) is no confidential VM', async () => {
  const machine = plainGuest();
  machine.tree['/proc/cpuinfo'] = CPUINFO.replace('hypervisor', 'sme sev sev_es sev_snp');
  machine.log = `${LOG.replace(/.*Memory Encryption.*\n/, '')}[    0.2] Memory Encryption Features active: AMD SME\n`;
  const found = await machineOf(machine);
  assert.equal(found.confidential, 'none');
  assert.equal(found.virtual, false);
});

test('what a program writes into the log in the middle of a line is not the kernel speaking', async () => {
  const machine = plainGuest();
  machine.log = `${LOG.replace(/.*Memory Encryption.*\n/, '')}[ 99.2] app: Memory Encryption Features active: AMD SEV\n`;
  assert.equal((await machineOf(machine)).confidential, 'none');
});

test('Secure Execution: prot_virt_guest, and its 0', async () => {
  const machine = plainGuest();
  machine.tree['/proc/cpuinfo'] = IBM;
  machine.tree['/sys/firmware/uv/prot_virt_guest'] = '1\n';
  assert.equal((await machineOf(machine)).confidential, 'secure-execution');
  machine.tree['/sys/firmware/uv/prot_virt_guest'] = '0\n';
  assert.equal((await machineOf(machine)).confidential, 'none');
});

test('CCA: the platform device, and newer kernels: an auxiliary one', async () => {
  const machine = plainGuest();
  machine.tree['/proc/cpuinfo'] = ARM;
  assert.equal((await machineOf(machine)).confidential, 'none');
  machine.tree['/sys/bus/auxiliary/devices/smccc.arm_cca_guest.0/uevent'] = '';
  assert.equal((await machineOf(machine)).confidential, 'cca');
  delete machine.tree['/sys/bus/auxiliary/devices/smccc.arm_cca_guest.0/uevent'];
  machine.tree['/sys/devices/platform/arm-cca-dev/uevent'] = '';
  assert.equal((await machineOf(machine)).confidential, 'cca');
});

test('an AMD guest whose log is not readable may be SEV: not known, and weighed in full', async () => {
  const machine = plainGuest();
  machine.log = null;
  const report = await audit(machine);
  assert.equal(report.machine.confidential, 'unknown');
  assert.equal(report.machine.judgedConfidential, true);
  assert.equal(outcome(report, 'memory-not-encrypted'), 'not-checked');
  assert.equal(outcome(report, 'sev-without-integrity'), 'not-checked');
});

test('a log that lost its beginning proves nothing', async () => {
  const machine = plainGuest();
  machine.log = '[ 8000.1] eth0: link is up\n';
  assert.equal((await machineOf(machine)).confidential, 'unknown');
});

test('a virtio device that works without ACCESS_PLATFORM proves that it is no SEV guest, from 6.0 on', async () => {
  const machine = plainGuest();
  machine.log = null;
  if (machine.inventory !== null) {
    machine.inventory = {
      ...machine.inventory,
      devices: [virtio('virtio0', 'net', { features: { negotiated: ['VERSION_1'] } })],
    };
  }
  assert.equal((await machineOf(machine)).confidential, 'none');
  machine.tree['/proc/sys/kernel/osrelease'] = '5.10.0-30-amd64\n';
  assert.equal((await machineOf(machine)).confidential, 'unknown');
});

test('an Intel guest without the flag is none, except where a Hyper-V paravisor may hide it', async () => {
  const machine = plainGuest();
  machine.log = null;
  machine.tree['/proc/cpuinfo'] = INTEL;
  assert.equal((await machineOf(machine)).confidential, 'none');
  machine.tree['/sys/class/dmi/id/sys_vendor'] = 'Microsoft Corporation\n';
  assert.equal((await machineOf(machine)).confidential, 'unknown');
});

test('a container without /sys: nothing is claimed, nothing is found by absence', async () => {
  const report = await audit({
    log: null,
    inventory: null,
    tree: {
      '/proc/cpuinfo': CPUINFO,
      '/proc/cmdline': 'quiet\n',
      '/proc/self/mountinfo': '600 500 0:90 / / rw - overlay overlay rw\n601 600 0:91 / /proc rw - proc proc rw\n',
      '/proc/sys/kernel/osrelease': '6.1.0-30-amd64\n',
      '/etc/hostname': 'c\n',
    },
  });
  assert.equal(report.machine.confidential, 'unknown');
  for (const id of [
    'autoprobe-open',
    'lockdown-off',
    'disk-unencrypted',
    'iommu-absent',
    'virtio-legacy',
    'cpu-vulnerable',
  ]) {
    assert.equal(outcome(report, id), 'not-checked', id);
  }
  for (const { evidence } of report.findings) {
    for (const { path } of evidence) assert.ok(!path.startsWith('/sys') || path.includes('config/tsm'), path);
  }
});

test('a masked /sys/firmware is not a machine without fw_cfg and ACPI', async () => {
  const machine = snpGuest();
  for (const path of Object.keys(machine.tree)) if (path.startsWith('/sys/firmware')) delete machine.tree[path];
  machine.tree['/proc/self/mountinfo'] = mountinfo('70 23 0:99 / /sys/firmware ro - tmpfs tmpfs ro');
  const report = await audit(machine);
  for (const id of ['fw-cfg-open', 'acpi-tables-unexpected', 'host-credentials']) {
    assert.equal(outcome(report, id), 'not-checked', id);
  }
  assert.match(report.notChecked.find(({ id }) => id === 'fw-cfg-open')?.because ?? '', /covered by tmpfs/);
});

test('bare metal: findings that matter in a confidential VM only are left out, the others are lowered', async () => {
  const machine = plainGuest();
  machine.tree['/proc/cpuinfo'] = CPUINFO.replace('hypervisor', '');
  machine.tree['/sys/kernel/security/lockdown'] = '[none] integrity confidentiality\n';
  machine.tree['/proc/consoles'] = 'ttyS0                -W- (EC  p a)    4:64\n';
  const report = await audit(machine);
  assert.equal(report.machine.virtual, false);
  assert.equal(outcome(report, 'console-on-host'), 'not-applicable');
  assert.equal(outcome(report, 'memory-not-encrypted'), 'not-applicable');
  const lockdown = report.findings.find(({ id }) => id === 'lockdown-off');
  assert.deepEqual([lockdown?.severity, lockdown?.lowered], ['low', true]);
  const weighed = await audit(machine, { asConfidential: true });
  assert.equal(weighed.findings.find(({ id }) => id === 'lockdown-off')?.severity, 'medium');
  assert.equal(outcome(weighed, 'console-on-host'), 'found');
});

test('lockdown without securityfs: the log tells, and only a whole log says none', async () => {
  const machine = snpGuest();
  const mounts = machine.tree['/proc/self/mountinfo'];
  machine.tree['/proc/self/mountinfo'] = typeof mounts === 'string' ? mounts.replace(/.*securityfs.*\n/, '') : '';
  delete machine.tree['/sys/kernel/security/lockdown'];
  assert.equal(outcome(await audit(machine), 'lockdown-off'), 'found');
  const whole = machine.log ?? '';
  machine.log = `${whole}[    0.1] Kernel is locked down from command line; see man kernel_lockdown.7\n`;
  assert.equal(outcome(await audit(machine), 'lockdown-off'), 'passed');
  machine.log = '[ 4000.2] eth0: up\n';
  assert.equal(outcome(await audit(machine), 'lockdown-off'), 'not-checked');
});
