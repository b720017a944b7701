/** What operators' grants and blocks make of a verdict. */
import type { ReasonCode } from '@airlock/core/decision.ts';
import type { Device } from '@airlock/core/device.ts';
import { isConnected, LEVEL_CEILING, levelRank, lowerLevel, type TrustLevel } from '@airlock/core/level.ts';
import { NOTHING_PENDING, type Verdict } from './compile.ts';
import { type Grant, matchFingerprint } from './grant.ts';
import { judgeFeatures, type Phase } from './verdict.ts';

/** What differs from the verdict itself. */
export interface Granted {
  readonly level: TrustLevel;
  readonly reason: ReasonCode;
  readonly pending: readonly string[];
  readonly grantable: TrustLevel;
  /** In words; undefined where the verdict's own words hold. */
  readonly detail: string | undefined;
}

const SERIAL: readonly string[] = ['serial'];

/**
 * A block holds for whatever sits there; a grant only for the device that the operator looked at, and no grant passes
 * over the features of the rule that decided. `words` says the verdict.
 */
export function applyGrants(
  device: Device,
  verdict: Verdict,
  grantable: TrustLevel,
  grants: readonly Grant[],
  phase: Phase,
  words: (verdict: Verdict) => string,
): Granted {
  const { level, reason, pending } = verdict;
  let now: Granted = { level, reason, pending, grantable, detail: undefined };
  // While facts are pending the level is provisional: a grant waits for them as the rule does.
  if (verdict.pending.length === 0) {
    for (const grant of grants) {
      if (grant.kind === 'block') continue;
      const raised = raise(device, verdict, grantable, grant, phase, words);
      // One that a feature forbids is said, where no other grant counts.
      if (raised !== undefined && (levelRank(raised.level) > levelRank(now.level) || now.detail === undefined)) {
        now = raised;
      }
    }
  }
  for (const grant of grants) {
    if (grant.kind !== 'block') continue;
    const blocked = lowerLevel(grant.level, now.level);
    now = { ...now, level: blocked, reason: 'operator-blocked', detail: `an operator blocked it at ${blocked}` };
  }
  return now;
}

/** Undefined where the grant is for another device, or raises nothing. */
function raise(
  device: Device,
  verdict: Verdict,
  grantable: TrustLevel,
  grant: Grant,
  phase: Phase,
  words: (verdict: Verdict) => string,
): Granted | undefined {
  const level = lowerLevel(lowerLevel(grant.level, grantable), LEVEL_CEILING[verdict.tier]);
  if (levelRank(level) <= levelRank(verdict.level)) return undefined;
  const { matches, unknown } = matchFingerprint(grant.fingerprint, device);
  // The serial number alone may be unknown, and no longer than until a driver is bound.
  const owed = matches === 'unknown';
  if (matches === false || (owed && unknown.some((field) => field !== 'serial'))) return undefined;
  if (owed && phase === 'after-bind') {
    const detail = `${words(verdict)}; an operator's grant is for a device that shows a serial number, this one does not`;
    return { ...verdict, grantable, detail };
  }
  const features = verdict.rule?.rule.features;
  const wanted: Verdict = { ...verdict, level };
  const judged = features === undefined ? wanted : judgeFeatures(features, device, phase === 'before-bind', wanted);
  if (!isConnected(judged.level)) {
    return {
      level: judged.level,
      reason: judged.reason,
      pending: NOTHING_PENDING,
      grantable: 'disconnected',
      detail: `an operator granted it, but ${words(judged)}`,
    };
  }
  const limit = level === grant.level ? '' : `, asked for ${grant.level}`;
  const pending = owed ? [...SERIAL, ...judged.pending] : judged.pending;
  const waits = pending.length === 0 ? '' : `; provisional until ${pending.join(', ')} can be seen`;
  return {
    level: pending.length === 0 ? level : lowerLevel(level, 'limited'),
    reason: 'operator-granted',
    pending,
    grantable,
    detail: `an operator raised it from ${verdict.level} to ${level}${limit}${waits}`,
  };
}
