/** Native decision + what an external engine said = decision, never higher than the native one. Pure. */
import type { Claim } from '@airlock/core/claim.ts';
import type { Decision } from '@airlock/core/decision.ts';
import type { Device, KernelFacts } from '@airlock/core/device.ts';
import { isConnected, levelRank, lowerLevel, TRUST_LEVELS, type TrustLevel } from '@airlock/core/level.ts';
import { nearest } from '@airlock/core/nearest.ts';
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';

/** What an engine is given, as JSON: for Rego this is `input`. */
export interface ExternalInput {
  readonly device: Device;
  readonly decision: Pick<Decision, 'level' | 'reason' | 'tier'> & { readonly rule: string | null };
  /** What is known of who the device is; null when nothing beyond what it says. */
  readonly claim: Claim | null;
  readonly kernel: KernelFacts;
}

/** What an engine may answer. `level` is the most it allows; `deny` is the level `disconnected`. */
export interface ExternalAnswer {
  readonly level: TrustLevel | null;
  readonly reason: string | null;
}

const ANSWER_KEYS = ['level', 'deny', 'reason'] as const;
/** Longer words of an engine are cut: they stand in logs and on terminals. */
const REASON_LIMIT = 300;

export function externalInput(
  decision: Decision,
  device: Device,
  claim: Claim | undefined,
  kernel: KernelFacts,
): ExternalInput {
  const { level, reason, tier } = decision;
  return { device, decision: { level, rule: decision.rule?.id ?? null, reason, tier }, claim: claim ?? null, kernel };
}

/** `{level?: string, deny?: boolean, reason?: string}` and nothing else. Code: `engine-answer-wrong`. */
export function readAnswer(value: unknown): Result<ExternalAnswer> {
  if (value === undefined) {
    return fail('engine-answer-wrong', 'the engine has no answer for this device', {
      hint: 'give the entry point a default: default narrow := {}',
    });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return wrong(`the answer is ${kindOf(value)}, not an object`);
  }
  const answer = value as Readonly<Record<string, unknown>>;
  for (const key of Object.keys(answer)) {
    if ((ANSWER_KEYS as readonly string[]).includes(key)) continue;
    const near = nearest(key, ANSWER_KEYS);
    return wrong(`the answer has the unknown key "${printable(key)}"${near ? `; did you mean "${near}"?` : ''}`);
  }
  const level = Object.hasOwn(answer, 'level') ? answer['level'] : undefined;
  const deny = Object.hasOwn(answer, 'deny') ? answer['deny'] : undefined;
  const reason = Object.hasOwn(answer, 'reason') ? answer['reason'] : undefined;
  if (deny !== undefined && typeof deny !== 'boolean') return wrong(`"deny" is ${kindOf(deny)}, not true or false`);
  if (reason !== undefined && typeof reason !== 'string') return wrong(`"reason" is ${kindOf(reason)}, not text`);
  const known = TRUST_LEVELS.find((candidate) => candidate === level);
  if (level !== undefined && known === undefined) {
    return wrong(`"level" is ${typeof level === 'string' ? `"${printable(level)}"` : kindOf(level)}`);
  }
  return ok({
    level: deny === true ? 'disconnected' : (known ?? null),
    reason: reason === undefined ? null : printable(reason),
  });
}

/**
 * The decision as it was when the answer allows at least as much, else lowered with the reason `external-narrowed`. The
 * operator's way up (`grantable`) is lowered with it.
 */
export function narrowDecision(decision: Decision, answer: ExternalAnswer, engine: string): Decision {
  if (answer.level === null || levelRank(answer.level) >= levelRank(decision.level)) return decision;
  const because = answer.reason === null ? 'it gives no reason' : answer.reason;
  return {
    ...lowered(decision, answer.level, `${engine} allows at most ${answer.level}: ${because}`),
    reason: 'external-narrowed',
    inputs: [...decision.inputs, { field: 'external', value: answer.level, wanted: decision.level, holds: false }],
  };
}

/** Denied with the reason `external-failed`; a decision that connects nothing stays as it is. */
export function refuseDecision(decision: Decision, problem: Problem): Decision {
  if (!isConnected(decision.level)) return decision;
  const hint = problem.hint === undefined ? '' : ` (${problem.hint})`;
  return {
    ...lowered(decision, 'disconnected', `${problem.message}${hint} [${problem.code}]`),
    reason: 'external-failed',
    inputs: [...decision.inputs, { field: 'external', value: problem.code, wanted: 'an answer', holds: 'unknown' }],
  };
}

function lowered(decision: Decision, level: TrustLevel, detail: string): Decision {
  return {
    ...decision,
    level,
    detail,
    changes: [
      { rule: decision.rule, level: decision.level, needs: ['the external policy does not narrow it'] },
      ...decision.changes,
    ],
    // A denial is final: there is nothing left to look at once nothing is bound.
    pending: isConnected(level) ? decision.pending : [],
    grantable: lowerLevel(decision.grantable, level),
  };
}

function wrong(message: string): Result<never> {
  return fail('engine-answer-wrong', message, { hint: 'answers are {"level": …, "deny": true|false, "reason": …}' });
}

function kindOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'a list';
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`;
}

/** Letters, digits, punctuation and spaces; anything that could steer a terminal or turn text around as `\u{…}`. */
export function printable(text: string): string {
  const cut = text.length > REASON_LIMIT ? `${text.slice(0, REASON_LIMIT)}…` : text;
  return cut.replace(
    /[^\p{L}\p{M}\p{N}\p{P}\p{S} ]/gu,
    (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`,
  );
}
