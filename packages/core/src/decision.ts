/** What a policy says of one device, with its reasons. */
import type { IdentityTier, TrustLevel } from './level.ts';

/** Where a rule stands. */
export interface RuleReference {
  readonly id: string;
  readonly file: string;
  readonly line: number;
}

/** Why a decision is what it is; each code is explained in docs/policy.md. */
export const REASON_CODES = [
  'rule-matched', // a rule matched and everything it requires holds
  'otherwise', // a rule matched, a requirement failed, its `otherwise` level holds
  'requirement-failed', // a rule matched, a requirement failed, no `otherwise`
  'default', // no rule matched
  'tier-ceiling', // the rule grants more than the identity tier can carry; lowered to the ceiling
  'feature-forbidden', // a forbidden feature is negotiated, or offered and Linux would accept it
  'feature-missing', // a required feature is not offered or not negotiated
  'fact-unknown', // a rule that could forbid the device depends on a fact that could not be read
  'platform-requirement-failed', // the policy's platform section does not hold
  'bus-forbidden', // the policy's platform section forbids this bus, transport or hot-plug
  'external-narrowed', // the external engine lowered the level
  'external-failed', // the external engine was wrong, slow or crashed: denied
  'operator-granted', // an operator's grant within what the rule allows
  'operator-blocked', // an operator's block
  'withheld', // it misbehaved, and the policy's `on` section keeps it out until it goes away or an operator revokes that
  'fallback-boot-critical', // no usable policy: built-in fallback for what the machine needs to boot
  'fallback-denied', // no usable policy: everything else
] as const;
export type ReasonCode = (typeof REASON_CODES)[number];

/** One fact that the decision rests on. */
export interface DecisionInput {
  /** `type`, `vendor`, `features.offered`, `identity`, `platform.swiotlb` */
  readonly field: string;
  readonly value: unknown;
  /** What the rule asked for, in the policy's own words. */
  readonly wanted?: string;
  readonly holds: boolean | 'unknown';
}

/** One thing that, were it otherwise, would have led to another level. */
export interface DecisionChange {
  /** The rule that would then decide, or null for the default. */
  readonly rule: RuleReference | null;
  readonly level: TrustLevel;
  /** What would have to differ: `revision is 1, rule asks for >=2`. */
  readonly needs: readonly string[];
}

export interface Decision {
  readonly device: string;
  readonly level: TrustLevel;
  /** The rule that decided; null for the default, the platform section and fallbacks. */
  readonly rule: RuleReference | null;
  readonly reason: ReasonCode;
  readonly detail: string;
  readonly tier: IdentityTier;
  readonly inputs: readonly DecisionInput[];
  readonly changes: readonly DecisionChange[];
  /**
   * Facts that are seen only once a driver is bound and that could still change this decision. While this is not
   * empty the level is provisional: bind, look, decide again.
   */
  readonly pending: readonly string[];
  /** Only these drivers may be bound, when the rule names any. */
  readonly drivers?: readonly string[];
  readonly features?: { readonly require: readonly string[]; readonly forbid: readonly string[] };
  readonly protect?: Protection;
  /** How far an operator may raise this device without a change of policy. */
  readonly grantable: TrustLevel;
}

/** What must stand between a device that is not trusted and the data that passes through it. */
export interface Protection {
  readonly disk?: { readonly encryption: string; readonly integrity: string | null };
  readonly network?: string;
}
