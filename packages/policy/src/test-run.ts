/** Runs the cases of a test file against a policy, and tells which rules they exercise. */
import type { Decision } from '@airlock/core/decision.ts';
import type { Device, Inventory, KernelFacts } from '@airlock/core/device.ts';
import type { CompiledPolicy } from './compile.ts';
import { decide } from './decide.ts';
import type { PolicyTest, PolicyTests } from './test-file.ts';

export interface CaseResult {
  readonly test: PolicyTest;
  /** Absent when the device that the case names is not in the inventory. */
  readonly decision?: Decision;
  /** What came out otherwise than expected: `level is disconnected, expected limited`. Empty: passed. */
  readonly wrong: readonly string[];
}

export interface TestRun {
  readonly cases: readonly CaseResult[];
  /** Rule ids by how many cases they decided; rules that no case reaches are there with 0. `default` too. */
  readonly coverage: ReadonlyMap<string, number>;
}

const KERNEL: KernelFacts = {
  release: '7.2.0',
  arch: 'x86_64',
  confidential: 'sev-snp',
  autoprobe: {},
  modulesDisabled: false,
  lockdown: 'integrity',
  swiotlb: 'force',
  cmdline: '',
};

/** Without an inventory the cases play in a confidential VM (SEV-SNP) with swiotlb and lockdown, unless they say else. */
export function runTests(policy: CompiledPolicy, tests: PolicyTests, recorded?: Inventory): TestRun {
  const coverage = new Map<string, number>(policy.rules.map((rule) => [rule.rule.id, 0]));
  coverage.set('default', 0);
  const kernel = { ...(recorded?.kernel ?? KERNEL), ...tests.kernel };
  const cases = tests.cases.map((test): CaseResult => {
    const device =
      typeof test.device === 'string' ? recorded?.devices.find((one) => one.id === test.device) : test.device;
    if (device === undefined) {
      const where = recorded === undefined ? 'the test file names no inventory' : 'it is not in the inventory';
      return { test, wrong: [`no device ${String(test.device)}: ${where}`] };
    }
    const decision = decideOne(policy, device, kernel, recorded, test);
    if (decision === undefined) return { test, wrong: ['no decision'] };
    const id = decision.rule?.id ?? 'default';
    if (decision.rule !== null || decision.reason === 'default' || decision.reason === 'tier-ceiling') {
      coverage.set(id, (coverage.get(id) ?? 0) + 1);
    }
    return { test, decision, wrong: compare(decision, test) };
  });
  return { cases, coverage };
}

function decideOne(
  policy: CompiledPolicy,
  device: Device,
  kernel: KernelFacts,
  recorded: Inventory | undefined,
  test: PolicyTest,
): Decision | undefined {
  const others = recorded?.devices.filter((one) => one.id !== device.id) ?? [];
  const claims = test.claim === undefined ? {} : { [device.id]: { ...test.claim, device: device.id } };
  return decide(policy, { version: 1, kernel, devices: [device, ...others] }, claims, { phase: test.phase })[0];
}

function compare(decision: Decision, { expect }: PolicyTest): string[] {
  const wrong: string[] = [];
  const check = (what: string, is: string, expected: string | undefined) => {
    if (expected !== undefined && is !== expected) wrong.push(`${what} is ${is}, expected ${expected}`);
  };
  check('level', decision.level, expect.level);
  check('rule', decision.rule?.id ?? 'default', expect.rule);
  check('reason', decision.reason, expect.reason);
  if (expect.pending !== undefined) {
    const sorted = (list: readonly string[]) => (list.length === 0 ? 'nothing' : [...list].sort().join(', '));
    check('pending', sorted(decision.pending), sorted(expect.pending));
  }
  return wrong;
}
