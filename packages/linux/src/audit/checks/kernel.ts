/** What the kernel lets root, modules and its command line do. */

import { commandLine, option, optionEvidence, words } from '../command-line.ts';
import { type Evidence, evidence } from '../evidence.ts';
import { type Check, found, notApplicable, passed, REFERENCES, unknown, verdictOf } from '../finding.ts';
import { LOCKDOWN, lockdownOf } from '../lockdown.ts';
import { type Fact, fact, names } from '../reading.ts';

const SIG_ENFORCE = '/sys/module/module/parameters/sig_enforce';
const VULNERABILITIES = '/sys/devices/system/cpu/vulnerabilities';

/** A sysctl that must have one of these values. */
function sysctl(path: string, good: (value: string) => boolean, absent: string): Check['run'] {
  return (observations) => {
    const value: Fact = fact(observations, path);
    if (value.state === 'unknown') return value;
    if (value.state === 'absent') return passed(evidence(path, `absent: ${absent}`));
    if (!/^\d{1,10}$/.test(value.text)) return unknown(path, 'not a number');
    return good(value.text) ? passed(evidence(path, value.text)) : found(evidence(path, value.text));
  };
}

/** Bits of /proc/sys/kernel/tainted that say something of code that nobody signed. */
const CODE_TAINTS: readonly (readonly [number, string])[] = [
  [1, 'F module was force loaded'],
  [3, 'R module was force unloaded'],
  [10, 'C staging driver'],
  [12, 'O out-of-tree module'],
  [13, 'E unsigned module'],
];

/** Options that open the machine to whoever sits at its console, or take a protection away. */
const WEAKENING: readonly { name: string; when: (value: string | undefined) => boolean }[] = [
  { name: 'init', when: (value) => /(^|\/)(ba|da|a|z)?sh$/.test(value ?? '') },
  { name: 'rdinit', when: (value) => /(^|\/)(ba|da|a|z)?sh$/.test(value ?? '') },
  { name: 'rd.break', when: () => true },
  { name: 'rd.shell', when: (value) => value === undefined || value === '1' },
  { name: 'break', when: () => true },
  { name: 'systemd.debug_shell', when: (value) => value === undefined || !/^(0|no|false|off)$/.test(value) },
  { name: 'systemd.unit', when: (value) => /^(rescue|emergency|debug)/.test(value ?? '') },
  { name: 'single', when: (value) => value === undefined },
  { name: 'kgdboc', when: () => true },
  { name: 'kgdbwait', when: () => true },
  { name: 'nosmep', when: () => true },
  { name: 'nosmap', when: () => true },
  { name: 'nokaslr', when: () => true },
  { name: 'noccfilter', when: () => true },
  { name: 'tdx_disable_filter', when: () => true },
  { name: 'module.sig_enforce', when: (value) => /^[0nN]/.test(value ?? '1') },
];

export const kernelChecks: readonly Check[] = [
  {
    id: 'lockdown-off',
    area: 'kernel',
    title: 'Kernel lockdown is off',
    severity: 'medium',
    elsewhere: 'low',
    looksAt: [LOCKDOWN, 'kernel log'],
    why: 'Root can write kernel memory, PCI configuration and ACPI tables, and load unsigned code: whoever becomes root once stays, below what any attestation sees.',
    fix: 'lockdown=integrity on the command line (lockdown=confidentiality also closes tracefs and BPF reads).',
    reference: REFERENCES.parameters,
    run: (observations) => {
      const lockdown = lockdownOf(observations);
      if (lockdown.state === 'unknown') return lockdown;
      return lockdown.on ? passed(lockdown.seen) : found(lockdown.seen);
    },
  },
  {
    id: 'modules-unsigned',
    area: 'kernel',
    title: 'The kernel loads modules that nobody signed',
    severity: 'medium',
    elsewhere: 'low',
    looksAt: [SIG_ENFORCE, LOCKDOWN, '/proc/modules'],
    why: 'A module that was changed on its disk, or built by whoever became root, runs as the kernel.',
    fix: 'module.sig_enforce=1 on the command line, or lockdown=integrity.',
    reference: 'Documentation/admin-guide/module-signing.rst',
    run: (observations) => {
      const modules = fact(observations, '/proc/modules');
      if (modules.state === 'absent') return passed(evidence(modules.path, 'absent: no module can be loaded'));
      const disabled = fact(observations, '/proc/sys/kernel/modules_disabled');
      if (disabled.state === 'read' && disabled.text === '1') return passed(evidence(disabled.path, '1'));
      const enforce = fact(observations, SIG_ENFORCE);
      if (enforce.state === 'unknown') return enforce;
      if (enforce.state === 'read' && /^[Y1]/.test(enforce.text)) return passed(evidence(SIG_ENFORCE, enforce.text));
      const lockdown = lockdownOf(observations);
      if (lockdown.state === 'unknown') return lockdown;
      if (lockdown.on) return passed(lockdown.seen);
      return found(
        evidence(SIG_ENFORCE, enforce.state === 'read' ? enforce.text : 'absent: built without signatures'),
        lockdown.seen,
      );
    },
  },
  {
    id: 'kernel-tainted-by-code',
    area: 'kernel',
    title: 'The kernel runs code that is not its own',
    severity: 'medium',
    elsewhere: 'low',
    looksAt: ['/proc/sys/kernel/tainted'],
    why: 'Out-of-tree, staging, unsigned or forced modules were loaded since boot; what they do was not reviewed with the kernel.',
    fix: 'Find them with: grep -E "\\(.*[OEFC].*\\)" /proc/modules; use the drivers of the kernel, or sign and measure your own.',
    reference: 'Documentation/admin-guide/tainted-kernels.rst',
    run: (observations) => {
      const tainted = fact(observations, '/proc/sys/kernel/tainted');
      if (tainted.state !== 'read' || !/^\d{1,15}$/.test(tainted.text)) {
        return unknown(tainted.path, tainted.state === 'unknown' ? tainted.because : 'not a number');
      }
      const mask = Number(tainted.text);
      const bits = CODE_TAINTS.filter(([bit]) => Math.floor(mask / 2 ** bit) % 2 === 1).map(([, name]) => name);
      return bits.length > 0
        ? found(evidence(tainted.path, `${mask}: ${bits.join(', ')}`))
        : passed(evidence(tainted.path, tainted.text));
    },
  },
  {
    id: 'command-line-weakens',
    area: 'kernel',
    title: 'The kernel command line opens a back door or switches a protection off',
    severity: 'high',
    elsewhere: 'medium',
    looksAt: ['/proc/cmdline', '/sys/module/kgdboc/parameters/kgdboc'],
    why: 'These options give a shell or a debugger before any login, or take away SMEP, SMAP, KASLR, module signatures or the device filter.',
    fix: 'Remove them, and measure or sign the command line so that the host cannot put them back.',
    reference: REFERENCES.parameters,
    run: (observations) => {
      const line = commandLine(observations);
      if (line.state === 'unknown') return line;
      const wrong = line.options
        .filter((one) => WEAKENING.some(({ name, when }) => name === one.name && when(one.value)))
        .map((one) => evidence('/proc/cmdline', one.text));
      const debugger_ = fact(observations, '/sys/module/kgdboc/parameters/kgdboc');
      if (debugger_.state === 'read' && debugger_.text !== '') wrong.push(evidence(debugger_.path, debugger_.text));
      return verdictOf(wrong, [evidence('/proc/cmdline', `${line.options.length} options, none of them`)]);
    },
  },
  {
    id: 'command-line-not-hardened',
    area: 'kernel',
    title: 'Subsystems that were not hardened are not switched off',
    severity: 'low',
    elsewhere: null,
    looksAt: ['/proc/cmdline'],
    why: 'Intel recommends mce=off, pci=noearly and pci=nommconf for its guests: code that reads what the host says, and that a guest does not need.',
    fix: 'Add mce=off pci=noearly,nommconf to the measured command line.',
    reference: REFERENCES.intelCommandLine,
    run: (observations, machine) => {
      if (machine.arch !== 'x86') return notApplicable('x86 options');
      const line = commandLine(observations);
      if (line.state === 'unknown') return line;
      const pci = words(line, 'pci');
      const missing = [
        ...(option(line, 'mce')?.value === 'off' ? [] : ['mce=off']),
        ...(pci.includes('noearly') ? [] : ['pci=noearly']),
        ...(pci.includes('nommconf') ? [] : ['pci=nommconf']),
      ];
      return missing.length > 0
        ? found(evidence('/proc/cmdline', `no ${missing.join(', ')}`))
        : passed(optionEvidence(line, ['mce', 'pci']));
    },
  },
  {
    id: 'no-panic-on-oops',
    area: 'kernel',
    title: 'The kernel goes on after an oops',
    severity: 'low',
    elsewhere: 'info',
    looksAt: ['/proc/sys/kernel/panic_on_oops'],
    why: 'An oops is often the first sign that a device or the host fed a driver something it did not expect. A kernel that goes on gives the attacker more tries.',
    fix: 'oops=panic on the command line, or sysctl kernel.panic_on_oops=1.',
    reference: REFERENCES.intelCommandLine,
    run: sysctl('/proc/sys/kernel/panic_on_oops', (value) => value !== '0', 'built without it'),
  },
  {
    id: 'cpu-vulnerable',
    area: 'kernel',
    title: 'Mitigations of CPU vulnerabilities are missing',
    severity: 'medium',
    elsewhere: 'medium',
    looksAt: [`${VULNERABILITIES}/*`],
    why: 'The kernel says of these that programs, or other VMs on the same core, can read memory that is not theirs.',
    fix: 'Remove mitigations=off and its kin from the command line; else newer microcode (in a VM: from whoever runs the host) and a newer kernel.',
    reference: 'Documentation/admin-guide/hw-vuln/index.rst',
    run: (observations) => {
      const list = names(observations, VULNERABILITIES);
      if (list.state !== 'listed')
        return unknown(VULNERABILITIES, list.state === 'unknown' ? list.because : 'not there');
      const wrong: Evidence[] = [];
      let fine = 0;
      for (const name of list.names) {
        const value = fact(observations, `${VULNERABILITIES}/${name}`);
        if (value.state !== 'read') continue;
        if (/^(KVM: )?Vulnerable/.test(value.text)) wrong.push(evidence(value.path, value.text));
        else fine++;
      }
      if (wrong.length + fine === 0) return unknown(VULNERABILITIES, 'nothing in it was readable');
      const line = commandLine(observations);
      if (wrong.length > 0 && line.state === 'read' && option(line, 'mitigations')?.value === 'off') {
        wrong.push(optionEvidence(line, ['mitigations']));
      }
      return verdictOf(wrong, [evidence(VULNERABILITIES, `${fine} looked at, none "Vulnerable"`)]);
    },
  },
  {
    id: 'cpu-mitigation-unknown',
    area: 'kernel',
    title: 'Whether the CPU is mitigated depends on the host',
    severity: 'info',
    elsewhere: 'info',
    looksAt: [`${VULNERABILITIES}/*`],
    why: 'The kernel cannot see the microcode below it and says so.',
    fix: 'Take it from the attestation report: the verifier should ask for a minimum TCB version.',
    reference: 'Documentation/admin-guide/hw-vuln/index.rst',
    run: (observations) => {
      const list = names(observations, VULNERABILITIES);
      if (list.state !== 'listed')
        return unknown(VULNERABILITIES, list.state === 'unknown' ? list.because : 'not there');
      const open: Evidence[] = [];
      for (const name of list.names) {
        const value = fact(observations, `${VULNERABILITIES}/${name}`);
        if (value.state === 'read' && /^Unknown/.test(value.text)) open.push(evidence(value.path, value.text));
      }
      return verdictOf(open, [evidence(VULNERABILITIES, 'none "Unknown"')]);
    },
  },
  {
    id: 'kexec-open',
    area: 'kernel',
    title: 'Root can start another kernel that nobody measured',
    severity: 'low',
    elsewhere: 'info',
    looksAt: ['/proc/sys/kernel/kexec_load_disabled', LOCKDOWN],
    why: 'kexec replaces the measured kernel by any other, and the launch measurement stays the same.',
    fix: 'sysctl kernel.kexec_load_disabled=1, or lockdown=integrity, which takes signed kernels only.',
    reference: 'Documentation/admin-guide/sysctl/kernel.rst',
    run: (observations, machine) => {
      const lockdown = lockdownOf(observations);
      if (lockdown.state === 'known' && lockdown.on) return passed(lockdown.seen);
      return sysctl(
        '/proc/sys/kernel/kexec_load_disabled',
        (value) => value !== '0',
        'built without kexec',
      )(observations, machine);
    },
  },
  {
    id: 'crash-kernel-loaded',
    area: 'kernel',
    title: 'A crash kernel waits to write memory to a disk',
    severity: 'medium',
    elsewhere: 'info',
    looksAt: ['/sys/kernel/kexec_crash_loaded'],
    why: 'The host can make the VM panic. kdump then writes all of memory to where it was told to, often a disk in the clear.',
    fix: 'Switch kdump off, or let it write to an encrypted disk or over ssh only.',
    reference: 'Documentation/admin-guide/kdump/kdump.rst',
    run: sysctl('/sys/kernel/kexec_crash_loaded', (value) => value === '0', 'built without it'),
  },
  {
    id: 'suid-core-dumps',
    area: 'kernel',
    title: 'Programs that changed their user leave core dumps',
    severity: 'low',
    elsewhere: 'low',
    looksAt: ['/proc/sys/fs/suid_dumpable', '/proc/sys/kernel/core_pattern'],
    why: 'suid_dumpable=1 is for debugging: the memory of privileged programs, secrets included, lands in files that their caller can read.',
    fix: 'sysctl fs.suid_dumpable=0, or 2 with a core_pattern that pipes to a program.',
    reference: 'Documentation/admin-guide/sysctl/fs.rst',
    run: sysctl('/proc/sys/fs/suid_dumpable', (value) => value !== '1', 'built without core dumps'),
  },
];
