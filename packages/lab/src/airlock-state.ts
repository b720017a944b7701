/** What the gate and the agent in the guest say of themselves: their files below /run/airlock, checked before use. */
import type { Decision } from '@airlock/core/decision.ts';
import { TRUST_LEVELS } from '@airlock/core/level.ts';
import type { Enforcement, Outcome } from '@airlock/core/plan.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { Guest } from './guest.ts';

export interface GateSummary {
  readonly mode: string;
  readonly milliseconds: number;
  readonly kernel: string;
  readonly problems: readonly { readonly code: string; readonly message: string }[];
  /** What holds, or not, of the machine as a whole. */
  readonly machine: readonly Outcome[];
}

/** gate.json. Codes: `guest-answer` (also when no gate ran), the guest's. */
export async function readGate(guest: Guest): Promise<Result<GateSummary>> {
  const value = await readJson(guest, '/run/airlock/gate.json');
  if (!value.ok) return value;
  const gate = value.value;
  if (!isRecord(gate) || typeof gate['mode'] !== 'string' || typeof gate['milliseconds'] !== 'number') {
    return fail('guest-answer', 'gate.json is not what the gate writes');
  }
  const problems = Array.isArray(gate['problems']) ? gate['problems'] : [];
  return ok({
    mode: gate['mode'],
    milliseconds: gate['milliseconds'],
    kernel: String(gate['kernel']),
    problems: problems
      .filter(isRecord)
      .map((problem) => ({ code: String(problem['code']), message: String(problem['message']) })),
    machine: Array.isArray(gate['machine']) ? gate['machine'].filter(isOutcome) : [],
  });
}

/** enforcement.json. Codes as above. */
export async function readEnforcement(guest: Guest): Promise<Result<readonly Enforcement[]>> {
  const value = await readJson(guest, '/run/airlock/enforcement.json');
  if (!value.ok) return value;
  return parseEnforcement(value.value);
}

export function parseEnforcement(value: unknown): Result<readonly Enforcement[]> {
  if (!Array.isArray(value)) return fail('guest-answer', 'enforcement.json is not a list');
  for (const entry of value) if (!isEnforcement(entry)) return fail('guest-answer', 'enforcement.json: a wrong entry');
  return ok(value.filter(isEnforcement));
}

function isEnforcement(value: unknown): value is Enforcement {
  return (
    isRecord(value) &&
    isDecision(value['decision']) &&
    isStatus(value['status']) &&
    Array.isArray(value['outcomes']) &&
    value['outcomes'].every(isOutcome)
  );
}

function isOutcome(value: unknown): value is Outcome {
  return isRecord(value) && typeof value['property'] === 'string' && isStatus(value['status']);
}

function isDecision(value: unknown): value is Decision {
  if (!isRecord(value)) return false;
  const rule = value['rule'];
  return (
    typeof value['device'] === 'string' &&
    typeof value['reason'] === 'string' &&
    typeof value['detail'] === 'string' &&
    TRUST_LEVELS.some((level) => level === value['level']) &&
    (rule === null || (isRecord(rule) && typeof rule['id'] === 'string'))
  );
}

function isStatus(value: unknown): boolean {
  return value === 'enforced' || value === 'not-enforceable' || value === 'failed';
}

async function readJson(guest: Guest, path: string): Promise<Result<unknown>> {
  const answer = await guest.run(`cat ${path}`);
  if (!answer.ok) return answer;
  if (answer.value.status !== 0) return fail('guest-answer', `the guest has no ${path}`);
  try {
    return ok(JSON.parse(answer.value.stdout));
  } catch {
    return fail('guest-answer', `${path} is not JSON`);
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
