/** Things that happen, one JSON line each, in /run/airlock and on `airlock watch`. */
import type { Decision } from './decision.ts';
import type { Outcome, Step } from './plan.ts';
import type { Problem } from './result.ts';

export type EventBody =
  | { readonly kind: 'gate-started'; readonly mode: string; readonly policy: string | null; readonly kernel: string }
  | { readonly kind: 'policy-problem'; readonly problem: Problem }
  | {
      readonly kind: 'device-added' | 'device-removed' | 'device-changed';
      readonly device: string;
      readonly what: string;
    }
  | { readonly kind: 'decided'; readonly decision: Decision }
  | { readonly kind: 'step'; readonly step: Step; readonly outcome: Outcome }
  | { readonly kind: 'enforced'; readonly device: string; readonly outcomes: readonly Outcome[] }
  | {
      readonly kind: 'operator';
      readonly verb: string;
      readonly device: string;
      readonly until: string | null;
      readonly result: string;
    }
  | {
      readonly kind: 'violation';
      readonly device: string;
      readonly rule: string;
      readonly detail: string;
      /** Its name in a policy's `on` section, where it has one. */
      readonly violation?: string;
      /** What the policy answers it with; a `response` follows for each but `log`. */
      readonly answer?: readonly string[];
    }
  | {
      readonly kind: 'response';
      readonly device: string;
      readonly violation: string;
      readonly action: string;
      readonly outcome: Outcome;
    }
  | { readonly kind: 'handed-over'; readonly to: string; readonly milliseconds: number }
  | {
      readonly kind: 'agent-started';
      readonly mode: string;
      /** False: it only watches. */
      readonly enforcing: boolean;
      readonly policy: readonly string[];
      /** Where it hears of changes: `netlink`, `polling`. */
      readonly uevents: string;
    }
  /** A device was asked to prove who it is. */
  | {
      readonly kind: 'attested';
      readonly device: string;
      readonly tier: string;
      /** `answered`; `silent`: no whole answer in time; `unasked`: this machine could not ask. */
      readonly way: 'answered' | 'silent' | 'unasked';
      /** How it went, in words. */
      readonly because: string;
      readonly milliseconds: number;
    }
  /** Learning is over. */
  | { readonly kind: 'mode-changed'; readonly mode: string; readonly enforcing: boolean; readonly because: string }
  | { readonly kind: 'agent-stopped'; readonly because: string };

/** `at` is milliseconds since boot for the gate (it has no trustworthy clock), since 1970 for the agent. */
export type Event = EventBody & { readonly at: number; readonly sequence: number };
