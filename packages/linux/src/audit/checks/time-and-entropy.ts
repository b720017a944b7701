/** Clocks and random numbers that the host supplies. */
import { commandLine, isOn, option, optionEvidence } from '../command-line.ts';
import { type Evidence, evidence } from '../evidence.ts';
import { type Check, found, notApplicable, passed, REFERENCES, unknown, verdictOf } from '../finding.ts';
import { cpuFlags } from '../machine.ts';
import { fact } from '../reading.ts';

const CLOCK = '/sys/devices/system/clocksource/clocksource0/current_clocksource';
/** Clocks that are read from the CPU itself; all others the host computes or emulates. */
const OWN_CLOCKS: readonly string[] = ['tsc', 'arch_sys_counter', 'tod', 'riscv_clocksource'];
const RNG = '/sys/class/misc/hw_random/rng_current';
/** CONFIG_RANDOM_TRUST_BOOTLOADER went away in 6.11; it is always on since. */
const ALWAYS_TRUSTED_SINCE = [6, 11] as const;

function atLeast(release: string | null, [major, minor]: readonly [number, number]): boolean {
  const match = /^(\d{1,3})\.(\d{1,4})/.exec(release ?? '');
  if (match === null) return false;
  const seen = [Number(match[1]), Number(match[2])] as const;
  return seen[0] > major || (seen[0] === major && seen[1] >= minor);
}

export const timeAndEntropyChecks: readonly Check[] = [
  {
    id: 'clock-from-host',
    area: 'time-and-entropy',
    title: 'The host says what time it is',
    severity: 'medium',
    elsewhere: null,
    looksAt: [CLOCK],
    why: 'kvm-clock, the page of Hyper-V, acpi_pm and hpet are read from the host: it can stop, rewind or stretch time under certificates, tokens and timeouts.',
    fix: 'no-kvmclock on the command line, so that the TSC is used (TDX; SEV-SNP with Secure TSC), and time of day from an authenticated server (NTS).',
    reference: REFERENCES.intelTime,
    run: (observations, machine) => {
      if (machine.virtual === false) return notApplicable('not a virtual machine');
      const clock = fact(observations, CLOCK);
      if (clock.state !== 'read') return unknown(CLOCK, clock.state === 'unknown' ? clock.because : 'not there');
      const seen = evidence(CLOCK, clock.text);
      return OWN_CLOCKS.includes(clock.text) ? passed(seen) : found(seen);
    },
  },
  {
    id: 'entropy-from-host',
    area: 'time-and-entropy',
    title: 'The kernel takes random numbers from the host',
    severity: 'low',
    elsewhere: null,
    looksAt: [RNG],
    why: 'virtio-rng hands in bytes that the host knows, through a driver that is not among the hardened ones. Beside RDRAND they do no good.',
    fix: 'Have the VMM offer no entropy device, or let no rule of the policy match type: entropy.',
    reference: REFERENCES.intelRandomness,
    run: (observations) => {
      const current = fact(observations, RNG);
      if (current.state === 'unknown') return current;
      if (current.state === 'absent') return passed(evidence(RNG, 'absent: no hardware generator'));
      return current.text.startsWith('virtio_rng')
        ? found(evidence(RNG, current.text))
        : passed(evidence(RNG, current.text));
    },
  },
  {
    id: 'entropy-only-from-host',
    area: 'time-and-entropy',
    title: 'All that seeds the random numbers comes from the host',
    severity: 'critical',
    elsewhere: null,
    looksAt: [RNG, '/proc/cpuinfo', '/proc/cmdline'],
    why: 'The CPU has no generator, or the kernel was told not to credit it, and a virtio-rng is there instead: the host may know every key that is made.',
    fix: 'Use a CPU model with RDRAND and RDSEED, and random.trust_cpu=y; take virtio-rng away.',
    reference: REFERENCES.intelRandomness,
    run: (observations, machine) => {
      if (machine.arch !== 'x86') return notApplicable('x86 instructions');
      const current = fact(observations, RNG);
      const cpu = fact(observations, '/proc/cpuinfo');
      const line = commandLine(observations);
      if (current.state === 'unknown') return current;
      if (cpu.state !== 'read') return unknown('/proc/cpuinfo', 'not readable');
      if (line.state === 'unknown') return line;
      const lacks = !cpuFlags(cpu.text).has('rdrand');
      const refused = isOn(option(line, 'random.trust_cpu')) === false;
      const fromHost = current.state === 'read' && current.text.startsWith('virtio_rng');
      const why = lacks ? evidence(cpu.path, 'flags: no rdrand') : optionEvidence(line, ['random.trust_cpu']);
      const device = evidence(RNG, current.state === 'read' ? current.text : 'absent');
      return (lacks || refused) && fromHost
        ? found(device, why)
        : passed(device, lacks || refused ? why : evidence(cpu.path, 'flags: rdrand'));
    },
  },
  {
    id: 'cpu-random-not-trusted',
    area: 'time-and-entropy',
    title: 'The kernel does not credit the random numbers of the CPU',
    severity: 'medium',
    elsewhere: null,
    looksAt: ['/proc/cmdline', '/proc/cpuinfo'],
    why: 'Without RDRAND and RDSEED the kernel seeds itself from interrupts and devices, whose timing and bytes the host chooses.',
    fix: 'random.trust_cpu=y on the command line, on a CPU model that has RDRAND and RDSEED.',
    reference: REFERENCES.intelRandomness,
    run: (observations, machine) => {
      if (machine.arch !== 'x86') return notApplicable('x86 instructions');
      const cpu = fact(observations, '/proc/cpuinfo');
      const line = commandLine(observations);
      if (cpu.state !== 'read') return unknown('/proc/cpuinfo', 'not readable');
      const flags = cpuFlags(cpu.text);
      const wrong: Evidence[] = [];
      if (!flags.has('rdrand')) wrong.push(evidence('/proc/cpuinfo', 'flags: no rdrand'));
      if (line.state === 'read') {
        const refused = isOn(option(line, 'random.trust_cpu')) === false || option(line, 'nordrand') !== undefined;
        if (refused) wrong.push(optionEvidence(line, ['random.trust_cpu', 'nordrand']));
      } else if (wrong.length === 0) return line;
      return verdictOf(wrong, [evidence('/proc/cpuinfo', `flags: rdrand${flags.has('rdseed') ? ' rdseed' : ''}`)]);
    },
  },
  {
    id: 'bootloader-seed-trusted',
    area: 'time-and-entropy',
    title: 'The kernel credits a random seed that the boot loader hands in',
    severity: 'low',
    elsewhere: null,
    looksAt: ['/proc/cmdline', '/boot/config-RELEASE'],
    why: 'The seed may come from the VMM (setup_data, device tree), which then knows it, and the kernel takes its pool for filled.',
    fix: 'random.trust_bootloader=n on the command line.',
    reference: REFERENCES.intelCommandLine,
    run: (observations, machine) => {
      const line = commandLine(observations);
      if (line.state === 'unknown') return line;
      const said = optionEvidence(line, ['random.trust_bootloader']);
      const on = isOn(option(line, 'random.trust_bootloader'));
      if (on !== undefined) return on ? found(said) : passed(said);
      const places = [`/boot/config-${machine.release}`, `/lib/modules/${machine.release}/config`];
      const config = places.map((path) => fact(observations, path)).find(({ state }) => state === 'read');
      if (config?.state === 'read') {
        const set = /^(# )?CONFIG_RANDOM_TRUST_BOOTLOADER[ =].*$/m.exec(config.text);
        if (set !== null) {
          const seen = evidence(config.path, set[0]);
          return set[1] === undefined ? found(said, seen) : passed(said, seen);
        }
      }
      return atLeast(machine.release, ALWAYS_TRUSTED_SINCE)
        ? found(said, evidence('/proc/sys/kernel/osrelease', `${machine.release}: trusts it unless told otherwise`))
        : unknown(places[0] ?? '', 'not there: the default of this kernel is not known');
    },
  },
];
