/** Lines on which the host reads and types. */
import { commandLine, optionEvidence } from '../command-line.ts';
import { type Evidence, evidence } from '../evidence.ts';
import { type Check, notApplicable, passed, REFERENCES, unknown, type Verdict, verdictOf } from '../finding.ts';
import { type Fact, fact, names, type Observations } from '../reading.ts';

const CONSOLES = '/proc/consoles';
const SYSRQ = '/proc/sys/kernel/sysrq';
/** Terminals whose other end is with the host: serial lines, virtio and hypervisor consoles. */
const HOST_LINE = /^(ttyS|ttyAMA|ttyUL|ttysclp|sclp_line|hvc|hvsi|xvc|vport)\d/;
const GETTY_FOLDERS: readonly string[] = [
  '/etc/systemd/system/getty.target.wants',
  '/run/systemd/generator/getty.target.wants',
  '/etc/systemd/system/multi-user.target.wants',
];
const DROP_IN = /^\/(?:etc|run)\/systemd\/system\/(serial-getty|console-getty)(@[\w-]*)?\.service\.d\/[^/]+\.conf$/;

/** Names of the kernel's consoles that the host sees, or why that is not known. */
function hostConsoles(observations: Observations): { table: Fact; lines: Evidence[] } {
  const table = fact(observations, CONSOLES);
  const lines =
    table.state === 'read'
      ? table.text
          .split('\n', 32)
          .filter((line) => HOST_LINE.test(line))
          .map((line) => evidence(CONSOLES, line.replace(/\s+/g, ' ')))
      : [];
  return { table, lines };
}

function logins(observations: Observations): Evidence[] {
  const units = GETTY_FOLDERS.flatMap((folder) => {
    const wants = names(observations, folder);
    return wants.state === 'listed'
      ? wants.names
          .filter((name) => HOST_LINE.test(/^serial-getty@(.+)\.service$/.exec(name)?.[1] ?? ''))
          .map((name) => evidence(`${folder}/${name}`, 'enabled'))
      : [];
  });
  const inittab = fact(observations, '/etc/inittab');
  const lines =
    inittab.state === 'read'
      ? inittab.text
          .split('\n', 256)
          .filter((line) => !line.startsWith('#') && /getty/.test(line) && /\b(ttyS|ttyAMA|hvc)\d/.test(line))
          .map((line) => evidence('/etc/inittab', line))
      : [];
  return [...units, ...lines];
}

function autologins(observations: Observations): Evidence[] {
  return Object.entries(observations.files).flatMap(([path, reading]) => {
    if (!DROP_IN.test(path) || reading.state !== 'read') return [];
    const line = reading.text.split('\n', 256).find((one) => /^ExecStart=.*(--autologin|\s-a)\s/.test(one));
    return line === undefined ? [] : [evidence(path, line)];
  });
}

/** Where logins are set up; a tree without systemd and inittab says nothing about them. */
function loginsAreKnown(observations: Observations): boolean {
  return [...GETTY_FOLDERS, '/etc/systemd/system'].some((folder) => names(observations, folder).state === 'listed');
}

function loginVerdict(observations: Observations, seen: readonly Evidence[], nothing: string): Verdict {
  if (seen.length === 0 && !loginsAreKnown(observations) && fact(observations, '/etc/inittab').state !== 'read') {
    return unknown('/etc/systemd/system', 'neither systemd nor inittab is here');
  }
  return verdictOf(seen, [evidence('/etc/systemd/system', nothing)]);
}

export const consoleChecks: readonly Check[] = [
  {
    id: 'console-on-host',
    area: 'console',
    title: 'The kernel writes its log to a console of the host',
    severity: 'medium',
    elsewhere: null,
    looksAt: [CONSOLES],
    why: 'Everything printed there (addresses, device names, panics with registers, what programs write to /dev/console) can be read by the host.',
    fix: 'Remove console=ttyS*, hvc* from the kernel command line; read the log over ssh.',
    reference: REFERENCES.intelVirtio,
    run: (observations) => {
      const { table, lines } = hostConsoles(observations);
      if (table.state === 'unknown') return table;
      return verdictOf(lines, [
        evidence(CONSOLES, table.state === 'read' && table.text !== '' ? table.text : 'no console'),
      ]);
    },
  },
  {
    id: 'login-on-host-console',
    area: 'console',
    title: 'A login waits on a console of the host',
    severity: 'high',
    elsewhere: null,
    looksAt: ['/etc/systemd/system/getty.target.wants', '/run/systemd/generator/getty.target.wants', '/etc/inittab'],
    why: 'The host can try passwords there, and reads every key that somebody types, passwords included.',
    fix: 'systemctl mask serial-getty@ttyS0.service serial-getty@hvc0.service; the generator makes one for each console= on the command line.',
    reference: REFERENCES.intelVirtio,
    run: (observations) => loginVerdict(observations, logins(observations), 'no serial-getty'),
  },
  {
    id: 'autologin-on-host-console',
    area: 'console',
    title: 'A console of the host is logged in without a password',
    severity: 'critical',
    elsewhere: 'medium',
    looksAt: ['/etc/systemd/system/serial-getty@*.service.d/*.conf'],
    why: 'Whoever holds the other end of the line has a shell in this machine.',
    fix: 'Remove the drop-in that passes --autologin to agetty, and mask the unit.',
    reference: REFERENCES.intelVirtio,
    run: (observations) => loginVerdict(observations, autologins(observations), 'no drop-in with --autologin'),
  },
  {
    id: 'early-console',
    area: 'console',
    title: 'An early boot console is on',
    severity: 'low',
    elsewhere: null,
    looksAt: ['/proc/cmdline'],
    why: 'earlyprintk and earlycon drive a port of the host before any hardening is up; Intel allows the serial ports for debugging only.',
    fix: 'Remove earlyprintk= and earlycon from the kernel command line.',
    reference: REFERENCES.intelCommandLine,
    run: (observations) => {
      const line = commandLine(observations);
      if (line.state === 'unknown') return line;
      const options = ['earlyprintk', 'earlycon'];
      const on = line.options.some(({ name }) => options.includes(name));
      return verdictOf(on ? [optionEvidence(line, options)] : [], [optionEvidence(line, options)]);
    },
  },
  {
    id: 'sysrq-from-host',
    area: 'console',
    title: 'The host can give SysRq commands over a console',
    severity: 'medium',
    elsewhere: null,
    looksAt: [SYSRQ, CONSOLES],
    why: 'A break on a serial line, or Ctrl-O on hvc, followed by a letter dumps registers and memory use to that console, kills processes or restarts the VM, as far as the mask allows.',
    fix: 'sysctl kernel.sysrq=0 (and no sysrq_always_enabled on the command line).',
    reference: 'Documentation/admin-guide/sysrq.rst',
    run: (observations) => {
      const mask = fact(observations, SYSRQ);
      if (mask.state === 'unknown') return mask;
      if (mask.state === 'absent') return passed(evidence(SYSRQ, 'absent: built without it'));
      if (mask.text === '0') return passed(evidence(SYSRQ, '0'));
      const { table, lines } = hostConsoles(observations);
      if (table.state === 'unknown') return table;
      return lines.length === 0
        ? notApplicable('no console of the host')
        : verdictOf([evidence(SYSRQ, mask.text), ...lines], []);
    },
  },
];
