/** How the machine stands, whether that is good or bad: one line for each question that an auditor asks first. */
import { lockdownOf } from './lockdown.ts';
import { CONFIDENTIAL_NAMES, type Machine } from './machine.ts';
import { type Fact, fact, kernelLog, names, type Observations } from './reading.ts';

export interface PostureLine {
  readonly name: string;
  /** `not known (why)` where it could not be read. */
  readonly value: string;
}

export function postureOf(observations: Observations, machine: Machine): PostureLine[] {
  return [
    { name: 'memory encryption', value: memoryEncryption(machine) },
    { name: 'bounce buffers', value: bounceBuffers(observations) },
    { name: 'IOMMU', value: iommu(observations) },
    { name: 'lockdown', value: lockdown(observations) },
    { name: 'module signatures', value: moduleSignatures(observations) },
    { name: 'clock', value: plain(fact(observations, CLOCK), 'none') },
    { name: 'hardware random', value: plain(fact(observations, RNG), 'none') },
  ];
}

const CLOCK = '/sys/devices/system/clocksource/clocksource0/current_clocksource';
const RNG = '/sys/class/misc/hw_random/rng_current';
const GROUPS = '/sys/kernel/iommu_groups';

function plain(seen: Fact, absent: string): string {
  if (seen.state === 'unknown') return `not known (${seen.because})`;
  return seen.state === 'absent' ? absent : seen.text.slice(0, 60);
}

function memoryEncryption({ confidential }: Machine): string {
  if (confidential === 'unknown') return 'not known';
  return confidential === 'none' ? 'none against the host' : CONFIDENTIAL_NAMES[confidential];
}

function bounceBuffers(observations: Observations): string {
  const mode = observations.inventory?.kernel.swiotlb ?? 'mode not known';
  const slots = fact(observations, '/sys/kernel/debug/swiotlb/io_tlb_nslabs');
  if (slots.state === 'read' && /^\d{1,10}$/.test(slots.text)) return `${mode}, ${Number(slots.text) / 512} MiB`;
  const log = kernelLog(observations);
  const mapped =
    log.state === 'read' ? /software IO TLB: mapped .{1,80} \((\d{1,7})MB\)/.exec(log.text)?.[1] : undefined;
  return `${mode}, ${mapped === undefined ? 'size not known' : `${mapped} MiB`}`;
}

function iommu(observations: Observations): string {
  const groups = names(observations, GROUPS);
  if (groups.state === 'unknown') return `not known (${groups.because})`;
  if (groups.state === 'absent' || groups.names.length === 0) return 'none';
  const counts = new Map<string, number>();
  for (const name of groups.names) {
    const type = fact(observations, `${GROUPS}/${name}/type`);
    const word = type.state === 'read' ? (MODES[type.text] ?? 'of unknown type') : 'of unknown type';
    counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  return [...counts].map(([word, count]) => `${count} groups ${word}`).join(', ');
}

const MODES: Readonly<Record<string, string>> = {
  DMA: 'strict',
  'DMA-FQ': 'lazy',
  identity: 'passed through',
  auto: 'auto',
};

function lockdown(observations: Observations): string {
  const seen = lockdownOf(observations);
  return seen.state === 'unknown' ? `not known (${seen.because})` : seen.mode;
}

function moduleSignatures(observations: Observations): string {
  if (fact(observations, '/proc/modules').state === 'absent') return 'no modules in this kernel';
  const seen = fact(observations, '/sys/module/module/parameters/sig_enforce');
  if (seen.state !== 'read') return plain(seen, 'not in this kernel');
  return seen.text.startsWith('Y') ? 'enforced' : 'not enforced';
}
