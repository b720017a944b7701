/** What is wrong with a policy that is well-formed: pure, over the policy and what is known of where it will run. */
import type { Inventory } from '@airlock/core/device.ts';
import {
  IDENTITY_TIERS,
  isConnected,
  LEVEL_CEILING,
  levelRank,
  lowerLevel,
  type TrustLevel,
  tierRank,
} from '@airlock/core/level.ts';
import { nearest } from '@airlock/core/nearest.ts';
import type { Position, Problem } from '@airlock/core/result.ts';
import { LINUX_ALWAYS_ACCEPTS, VIRTIO_TYPES } from '@airlock/core/virtio.ts';
import { contradiction, covers, onlyVirtual } from './cover.ts';
import { observe } from './platform.ts';
import { CARRIED_OUT, NOTICED, type Policy, type Rule, VIOLATIONS } from './policy.ts';

/** `error`: the policy does not do what it says. `warning`: it likely does not do what was meant. `note`: good to know. */
export type Severity = 'error' | 'warning' | 'note';

/** All findings that `checkPolicy` can make; docs/policy.md explains each. */
export const FINDINGS = {
  'rule-unreachable': 'An earlier rule matches everything that this one matches.',
  'match-contradictory': 'No device can meet all of the match.',
  'matches-everything': 'A rule without conditions connects every device.',
  'default-connects': 'Devices that no rule matches are connected.',
  'level-above-tier': 'The tier that the rule asks for cannot carry its level.',
  'otherwise-above-tier': 'The tier that is left for otherwise cannot carry its level.',
  'grant-without-effect': 'The grant is not above what the rule gives anyway.',
  'boot-critical-unknown': 'A boot-critical name is the id of no rule.',
  'boot-critical-denied': 'A boot-critical rule disconnects, or can.',
  'boot-critical-none': 'Devices are disconnected by default and nothing is boot-critical.',
  'reference-missing': 'A file of trust anchors or reference values is named and not there.',
  'reference-unused': 'A file of trust anchors or reference values is there, and no rule names it.',
  'reference-not-read': 'A rule that can never decide is all that names this file.',
  'requirement-not-attested': 'Anchors, measurements and the version of SPDM are only known of attested devices.',
  'platform-does-not-hold': 'What the platform section requires does not hold on this machine.',
  'attestation-not-held-here': 'What the machine’s evidence must state is held by the verifier, not on the machine.',
  'hotplug-not-held': 'On this kernel a hot-plugged PCI function binds before Airlock can act.',
  'level-not-enforceable': 'This kernel has no way to give a device this level.',
  'features-checked-late': 'The features can only be checked after a driver was bound.',
  'protect-without-effect': 'The protection does not go with the type of device.',
  'virtual-functions-come-late': 'Virtual functions are made after the gate has looked, so they count as hot-plugged.',
  'external-unusable': 'The external engine cannot be opened, so that it denies every device.',
  'external-unsigned': 'The bundle of the external engine is used without a signature.',
  'violation-not-noticed': 'Nothing in this version notices the violation.',
  'action-not-carried-out': 'This version cannot carry out the action.',
  'mode-not-enforcing': 'The policy only reports.',
} as const;
export type FindingCode = keyof typeof FINDINGS;

export interface Finding {
  readonly code: FindingCode;
  readonly severity: Severity;
  readonly message: string;
  readonly at?: Position;
  readonly hint?: string;
}

export interface CheckContext {
  /** The machine on which the policy is to run: its kernel and, for the IOMMU, its devices. */
  readonly machine?: Inventory;
  /** Names of the files beside the policy; absent when they could not be listed. */
  readonly beside?: readonly string[];
  /** What came of opening the external engine: null when all is well; absent when it was not tried. */
  readonly externalProblem?: Problem | null;
}

/** Findings in the order of the policy's text. */
export function checkPolicy(policy: Policy, context: CheckContext = {}): Finding[] {
  const dead = unreachable(policy);
  const findings = [
    ...dead.findings,
    ...policy.rules.flatMap((rule) => checkLevels(rule)),
    ...policy.rules.flatMap((rule) => checkKind(rule)),
    ...checkVirtual(policy),
    ...checkAttestation(policy),
    ...checkDefaults(policy),
    ...checkBootCritical(policy, dead.rules),
    ...checkReferences(policy, dead.rules, context.beside),
    ...(context.machine === undefined ? [] : checkMachine(policy, context.machine)),
    ...checkAnswers(policy),
    ...checkExternal(policy, context.externalProblem),
  ];
  const place = (finding: Finding) =>
    finding.at === undefined ? [Number.MAX_SAFE_INTEGER, 0] : [policy.files.indexOf(finding.at.file), finding.at.line];
  return findings.sort((a, b) => {
    const [x = 0, y = 0] = place(a);
    const [u = 0, v = 0] = place(b);
    return x - u || y - v;
  });
}

function unreachable(policy: Policy): { findings: Finding[]; rules: ReadonlySet<string> } {
  const findings: Finding[] = [];
  const rules = new Set<string>();
  for (const [index, rule] of policy.rules.entries()) {
    const why = contradiction(rule.match, policy);
    if (why !== undefined) {
      rules.add(rule.id);
      findings.push({
        code: 'match-contradictory',
        severity: 'error',
        message: `rule ${rule.id} can never match: ${why}`,
        at: rule.at,
      });
      continue;
    }
    const earlier = policy.rules.slice(0, index).find((one) => !rules.has(one.id) && covers(one.match, rule.match));
    if (earlier === undefined) continue;
    rules.add(rule.id);
    findings.push({
      code: 'rule-unreachable',
      severity: 'error',
      message: `rule ${rule.id} can never decide: ${earlier.id} (line ${earlier.at.line}) matches everything that it matches`,
      at: rule.at,
      hint: `move it before ${earlier.id}, or make ${earlier.id} narrower`,
    });
  }
  return { findings, rules };
}

function checkLevels(rule: Rule): Finding[] {
  const findings: Finding[] = [];
  const asked = rule.require?.identity;
  const enough = IDENTITY_TIERS.find((tier) => levelRank(LEVEL_CEILING[tier]) >= levelRank(rule.level)) ?? 'bound';
  const matched = rule.match.identity?.map((one) => one.tier).sort((a, b) => tierRank(a) - tierRank(b))[0];
  const floor = [asked, matched].reduce((a, b) => (b && (!a || tierRank(b) > tierRank(a)) ? b : a) ?? a, undefined);
  if (levelRank(rule.level) > levelRank(LEVEL_CEILING[floor ?? 'location'])) {
    const gets = LEVEL_CEILING[floor ?? 'location'];
    findings.push({
      code: 'level-above-tier',
      severity: asked === undefined ? 'warning' : 'error',
      message: `rule ${rule.id} says ${rule.level}; a device whose identity is ${floor ?? 'only claimed'} gets ${gets} at most`,
      at: rule.at,
      hint: `require: { identity: ${enough} } says what ${rule.level} needs`,
    });
  }
  const { roots, measurements, spdm } = rule.require ?? {};
  if (rule.otherwise !== undefined && asked !== undefined && !roots && !measurements && !spdm) {
    const below = IDENTITY_TIERS[tierRank(asked) - 1] ?? 'location';
    if (levelRank(rule.otherwise.level) > levelRank(LEVEL_CEILING[below])) {
      findings.push({
        code: 'otherwise-above-tier',
        severity: 'error',
        message: `rule ${rule.id}: otherwise says ${rule.otherwise.level}, but below ${asked} the most is ${LEVEL_CEILING[below]}`,
        at: rule.at,
      });
    }
  }
  if ((roots ?? measurements ?? spdm) && (asked === undefined || tierRank(asked) < tierRank('attested'))) {
    findings.push({
      code: 'requirement-not-attested',
      severity: 'warning',
      message: `rule ${rule.id} names anchors, measurements or a version of SPDM, which are known of attested devices only`,
      at: rule.at,
      hint: 'add identity: attested (or bound) to require',
    });
  }
  const least = rule.otherwise?.level ?? (rule.require === undefined ? rule.level : 'disconnected');
  if (rule.grant !== undefined && levelRank(rule.grant) <= levelRank(least)) {
    findings.push({
      code: 'grant-without-effect',
      severity: 'warning',
      message: `rule ${rule.id}: grant ${rule.grant} is not above what the rule gives anyway`,
      at: rule.at,
    });
  }
  return findings;
}

const DISKS: readonly number[] = [VIRTIO_TYPES.block, VIRTIO_TYPES.scsi, VIRTIO_TYPES.pmem];
const NETWORKS: readonly number[] = [VIRTIO_TYPES.net];

/** User space makes virtual functions, and the gate looks before there is any. */
function checkVirtual(policy: Policy): Finding[] {
  const late = policy.platform.forbid.some(({ name }) => name === 'hotplug');
  return policy.rules.flatMap((rule): Finding[] => {
    if (!onlyVirtual(rule.match) || !isConnected(rule.level)) return [];
    if (!late && rule.match.hotplugged !== false) return [];
    const because = late ? 'the platform section forbids what is hot-plugged' : 'it asks for hotplugged: false';
    return [
      {
        code: 'virtual-functions-come-late',
        severity: 'warning',
        message: `rule ${rule.id} is of virtual functions, which come after the gate has looked; ${because}`,
        at: rule.at,
      },
    ];
  });
}

function checkKind(rule: Rule): Finding[] {
  const findings: Finding[] = [];
  const types = rule.match.type;
  const allVirtio = types?.every((type) => type.virtio !== undefined) === true;
  for (const protect of [rule.protect, rule.otherwise?.protect]) {
    const wrong =
      protect?.disk !== undefined && allVirtio && !types.some((type) => DISKS.includes(type.virtio ?? 0))
        ? 'disk'
        : protect?.network !== undefined && allVirtio && !types.some((type) => NETWORKS.includes(type.virtio ?? 0))
          ? 'network'
          : undefined;
    if (wrong === undefined) continue;
    findings.push({
      code: 'protect-without-effect',
      severity: 'warning',
      message: `rule ${rule.id}: protect ${wrong} does not go with type ${types?.map((type) => type.name).join(', ') ?? ''}`,
      at: rule.at,
    });
  }
  if (rule.features !== undefined && isConnected(rule.level)) {
    const carried = rule.match.transport;
    const unreadable = carried !== undefined && !carried.includes('pci');
    const own = rule.features.forbid.filter((name) => !LINUX_ALWAYS_ACCEPTS.includes(name));
    if (unreadable || own.length > 0) {
      findings.push({
        code: 'features-checked-late',
        severity: 'note',
        message: unreadable
          ? `rule ${rule.id}: what a device offers cannot be read over ${carried.join(', ')}; its features are checked once a driver is bound`
          : `rule ${rule.id}: whether ${own.join(', ')} is used is the driver's choice; it is checked once the driver is bound`,
        at: rule.at,
      });
    }
  }
  if (Object.keys(rule.match).length === 0 && isConnected(rule.level)) {
    findings.push({
      code: 'matches-everything',
      severity: 'warning',
      message: `rule ${rule.id} connects every device that no earlier rule decided`,
      at: rule.at,
    });
  }
  return findings;
}

function checkDefaults(policy: Policy): Finding[] {
  const findings: Finding[] = [];
  const at: Position = { file: policy.files[0] ?? '', line: 1, column: 1 };
  if (isConnected(policy.default) && policy.mode === 'enforce') {
    findings.push({
      code: 'default-connects',
      severity: 'warning',
      message: `devices that no rule matches get ${policy.default}`,
      at,
      hint: 'default: disconnected',
    });
  }
  if (policy.mode !== 'enforce') {
    findings.push({
      code: 'mode-not-enforcing',
      severity: 'note',
      message: `mode ${policy.mode}: decisions are reported, no device is touched`,
      at,
    });
  }
  if (policy.bootCritical.length === 0 && !isConnected(policy.default) && policy.mode === 'enforce') {
    findings.push({
      code: 'boot-critical-none',
      severity: 'note',
      message: 'no rule is boot-critical, so nothing watches over the devices that the machine needs to boot',
      at,
      hint: 'name the rule of the root disk in boot-critical',
    });
  }
  return findings;
}

function checkBootCritical(policy: Policy, dead: ReadonlySet<string>): Finding[] {
  const findings: Finding[] = [];
  for (const { name, at } of policy.bootCritical) {
    if (name.includes(':')) continue;
    const index = policy.rules.findIndex((rule) => rule.id === name);
    const rule = policy.rules[index];
    if (rule === undefined) {
      const near = nearest(
        name,
        policy.rules.map((one) => one.id),
      );
      findings.push({
        code: 'boot-critical-unknown',
        severity: 'error',
        message: `boot-critical names ${name}, and no rule has that id`,
        at,
        ...(near === undefined ? {} : { hint: `did you mean ${near}?` }),
      });
      continue;
    }
    const denied = (severity: Severity, why: string, hint?: string) =>
      findings.push({
        code: 'boot-critical-denied',
        severity,
        message: `boot-critical rule ${name} ${why}`,
        at: rule.at,
        ...(hint === undefined ? {} : { hint }),
      });
    if (dead.has(name)) denied('error', 'can never decide');
    else if (!isConnected(rule.level)) denied('error', 'disconnects its devices');
    if (rule.require !== undefined && !isConnected(rule.otherwise?.level ?? 'disconnected')) {
      denied('error', 'disconnects a device that does not prove what it requires', 'add otherwise: { level: limited }');
    }
    if (rule.features !== undefined) {
      denied('note', 'disconnects a device with the wrong features; the machine does not boot then');
    }
    const before = policy.rules
      .slice(0, index)
      .find((one) => !isConnected(one.level) && !dead.has(one.id) && mayOverlap(one, rule));
    if (before !== undefined) {
      denied('warning', `comes after ${before.id}, which disconnects and may match the same device`);
    }
  }
  if (policy.bootCritical.length > 0 && policy.platform.require.length > 0) {
    findings.push({
      code: 'boot-critical-denied',
      severity: 'note',
      message: 'where the platform section does not hold, boot-critical devices are disconnected too',
      at: policy.platform.require[0]?.at ?? { file: policy.files[0] ?? '', line: 1, column: 1 },
    });
  }
  return findings;
}

/** False only when some key keeps the two apart. */
function mayOverlap(a: Rule, b: Rule): boolean {
  const apart = <T>(x: readonly T[] | undefined, y: readonly T[] | undefined, key: (one: T) => unknown) =>
    x !== undefined && y !== undefined && !x.some((one) => y.some((other) => key(one) === key(other)));
  const itself = (one: unknown) => one;
  return !(
    apart(a.match.bus, b.match.bus, itself) ||
    apart(a.match.transport, b.match.transport, itself) ||
    apart(a.match.type, b.match.type, (type) => type.virtio ?? type.name) ||
    apart(a.match.vendor, b.match.vendor, itself) ||
    apart(a.match.device, b.match.device, itself) ||
    apart(a.match.serial, b.match.serial, itself) ||
    apart(a.match.function, b.match.function, itself) ||
    (a.match.hotplugged !== undefined && b.match.hotplugged !== undefined && a.match.hotplugged !== b.match.hotplugged)
  );
}

function checkReferences(policy: Policy, dead: ReadonlySet<string>, beside: readonly string[] | undefined): Finding[] {
  if (beside === undefined) return [];
  const findings: Finding[] = [];
  const named = new Map<string, Rule[]>();
  for (const rule of policy.rules) {
    for (const name of [...(rule.require?.roots ?? []), ...(rule.require?.measurements ?? [])]) {
      named.set(name, [...(named.get(name) ?? []), rule]);
    }
  }
  for (const [name, rules] of named) {
    const first = rules[0];
    if (first === undefined) continue;
    if (!beside.includes(name)) {
      const near = nearest(name, beside);
      findings.push({
        code: 'reference-missing',
        severity: 'error',
        message: `rule ${first.id} names ${name}, which is not beside the policy`,
        at: first.at,
        ...(near === undefined ? {} : { hint: `did you mean ${near}?` }),
      });
    } else if (rules.every((rule) => dead.has(rule.id))) {
      findings.push({
        code: 'reference-not-read',
        severity: 'warning',
        message: `${name} is named only by rules that can never decide`,
        at: first.at,
      });
    }
  }
  const key = policy.external?.verify?.key;
  for (const name of beside) {
    if (!/\.(pem|crt|corim)$/.test(name) || named.has(name) || name === key || key?.endsWith(`/${name}`)) continue;
    findings.push({
      code: 'reference-unused',
      severity: 'warning',
      message: `${name} is beside the policy, and no rule names it`,
      hint: 'name it in roots or measurements, or remove it',
    });
  }
  return findings;
}

function checkAttestation({ platform: { attestation } }: Policy): Finding[] {
  if (attestation === undefined) return [];
  return [
    {
      code: 'attestation-not-held-here',
      severity: 'note',
      message: 'platform.attestation is held by airlock verify --policy: neither gate nor agent decides anything by it',
      at: attestation.at,
    },
  ];
}

function checkMachine(policy: Policy, machine: Inventory): Finding[] {
  const findings: Finding[] = [];
  const { release } = machine.kernel;
  for (const { name, at } of policy.platform.require) {
    const { holds, value, wanted } = observe(name, machine);
    if (holds) continue;
    findings.push({
      code: 'platform-does-not-hold',
      severity: 'error',
      message: `${name} does not hold on ${release || 'this kernel'} (${String(value)}, needed ${wanted}): every device would be disconnected`,
      at,
    });
  }
  const version = kernelVersion(release);
  const hotplug = policy.platform.forbid.find((one) => one.name === 'hotplug');
  const careful = policy.rules.find((rule) => rule.match.hotplugged === false);
  if (version !== undefined && version < 7 && policy.modules.disableLoading === 'never' && (hotplug ?? careful)) {
    findings.push({
      code: 'hotplug-not-held',
      severity: 'warning',
      message: `Linux ${release} binds a hot-plugged PCI function (not virtio) to a driver that is loaded, before Airlock can act`,
      at: hotplug?.at ?? careful?.at ?? { file: policy.files[0] ?? '', line: 1, column: 1 },
      hint: 'modules: { disable-loading: after-gate } leaves only the drivers that the gate loaded; the agent unbinds the rest',
    });
  }
  for (const rule of policy.rules) {
    const highest = [rule.level, rule.otherwise?.level ?? 'disconnected'].reduce((a: TrustLevel, b) =>
      lowerLevel(a, b) === a ? b : a,
    );
    if (levelRank(highest) < levelRank('link')) continue;
    const why =
      highest === 'tcb'
        ? 'no kernel up to 7.3 lets a guest accept a device into its private memory (TSM lock and accept are not merged)'
        : version !== undefined && version < 6.019
          ? 'link encryption needs Linux 6.19'
          : undefined;
    if (why === undefined) continue;
    findings.push({
      code: 'level-not-enforceable',
      severity: 'warning',
      message: `rule ${rule.id} says ${highest}: ${why}`,
      at: rule.at,
    });
  }
  return findings;
}

/** 6.12.117 → 6.012; 7.2 → 7.002. */
function kernelVersion(release: string): number | undefined {
  const match = /^([0-9]{1,3})\.([0-9]{1,3})/.exec(release);
  return match ? Number(match[1]) + Number(match[2]) / 1000 : undefined;
}

/** What is asked for when a device misbehaves, and will not happen. */
function checkAnswers(policy: Policy): Finding[] {
  return VIOLATIONS.flatMap((violation): Finding[] => {
    const at = policy.onAt[violation];
    const findings: Finding[] = [];
    if (policy.on[violation] !== undefined && !NOTICED.includes(violation)) {
      findings.push({
        code: 'violation-not-noticed',
        severity: 'warning',
        message: `on ${violation}: nothing in this version notices it, so nothing will be done about it`,
        ...(at === undefined ? {} : { at }),
        hint: `this version notices ${NOTICED.join(', ')}`,
      });
    }
    for (const action of new Set(policy.on[violation])) {
      if (CARRIED_OUT.includes(action)) continue;
      findings.push({
        code: 'action-not-carried-out',
        severity: 'warning',
        message: `on ${violation}: this version cannot carry out ${action}`,
        ...(at === undefined ? {} : { at }),
        hint: `it can ${CARRIED_OUT.join(', ')}`,
      });
    }
    return findings;
  });
}

function checkExternal(policy: Policy, problem: Problem | null | undefined): Finding[] {
  const external = policy.external;
  if (external === undefined) return [];
  const findings: Finding[] = [];
  if (problem) {
    findings.push({
      code: 'external-unusable',
      severity: 'error',
      message: `every device would be denied: ${problem.message} (${problem.code})`,
      at: external.at,
      ...(problem.hint === undefined ? {} : { hint: problem.hint }),
    });
  }
  if (external.verify === undefined) {
    findings.push({
      code: 'external-unsigned',
      severity: 'warning',
      message: `${external.path} is used without a signature`,
      at: external.at,
      hint: 'verify: { key: ... } demands one',
    });
  }
  return findings;
}
