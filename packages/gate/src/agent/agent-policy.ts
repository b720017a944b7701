/** Which policy the agent goes by, and in which mode. */
import { asciiText } from '@airlock/core/bytes.ts';
import type { Inventory } from '@airlock/core/device.ts';
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import type { Files } from '@airlock/linux/files.ts';
import { decodePolicy } from '@airlock/policy/decode.ts';
import { unpackDocuments } from '@airlock/policy/document.ts';
import { MODES, type Mode, type Policy } from '@airlock/policy/policy.ts';
import { fallbackDecisions } from '../fallback.ts';
import type { Judge } from './judge.ts';
import { STATE } from './state.ts';

export interface AgentPolicy {
  /** Null: there is a policy, but it cannot be used; what is built in counts. */
  readonly policy: Policy | null;
  /** As it was asked for; learning may be over. */
  readonly mode: Mode;
  readonly problems: readonly Problem[];
}

const POLICY_LIMIT = 16 * 1024 * 1024;

/**
 * The measured policy that the gate used, in the mode that the gate ran in. Where the gate could not use its policy the
 * agent does not either: the built-in fallback goes on. Code: `agent-without-policy` when no gate ran.
 */
export async function readGatePolicy(files: Files): Promise<Result<AgentPolicy>> {
  const bytes = await files.read(STATE.policy, POLICY_LIMIT);
  if (!bytes.ok && bytes.error.code === 'file-missing') {
    return fail('agent-without-policy', 'no policy: none was named, and no gate left one in /run/airlock', {
      hint: 'airlock agent run --policy FILE',
    });
  }
  const gateMode = await readGateMode(files);
  const broken = (problems: readonly Problem[]): Result<AgentPolicy> =>
    ok({ policy: null, mode: gateMode ?? 'enforce', problems });
  if (!bytes.ok) return broken([bytes.error]);
  const text = utf8Text(bytes.value);
  if (text === undefined) return broken([{ code: 'policy-unusable', message: `${STATE.policy}: not UTF-8` }]);
  const documents = unpackDocuments(text);
  if (!documents.ok) return broken([documents.error]);
  if (documents.value.length === 0) {
    return broken([
      { code: 'policy-unusable', message: 'the gate could not use its policy; the built-in fallback counts' },
    ]);
  }
  const { policy, problems } = decodePolicy(documents.value);
  if (policy === undefined) {
    return broken([{ code: 'policy-unusable', message: `${STATE.policy} has errors` }, ...problems]);
  }
  return ok({ policy, mode: gateMode ?? policy.mode, problems });
}

/** The mode in gate.json, which may differ from the policy's own (`gate initrd --mode`); undefined without one. */
async function readGateMode(files: Files): Promise<Mode | undefined> {
  const bytes = await files.read(STATE.gate, 1024 * 1024);
  if (!bytes.ok) return undefined;
  try {
    const value: unknown = JSON.parse(asciiText(bytes.value));
    const mode: unknown = typeof value === 'object' && value !== null ? Reflect.get(value, 'mode') : undefined;
    return MODES.find((known) => known === mode);
  } catch {
    return undefined;
  }
}

/** The built-in fallback as a judge: grants raise nothing, blocks still hold. */
export function judgeByFallback(why: string): Judge {
  return async (inventory: Inventory, grants) => {
    const blocked = new Set(grants.filter(({ kind }) => kind === 'block').map(({ device }) => device));
    const decisions = fallbackDecisions(inventory, why).map((decision) =>
      blocked.has(decision.device)
        ? ({
            ...decision,
            level: 'disconnected',
            reason: 'operator-blocked',
            detail: 'an operator blocked it',
          } as const)
        : decision,
    );
    return { 'before-bind': decisions, 'after-bind': decisions, seen: decisions };
  };
}

function utf8Text(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    return undefined;
  }
}
