/**
 * An engine beside Airlock's own, whose verdicts can only be lower. It never learns more than the inventory holds and
 * never decides alone: it sees what the native rules decided and may take some of it away.
 */
import type { Claims } from '@airlock/core/claim.ts';
import type { Decision } from '@airlock/core/decision.ts';
import type { Inventory } from '@airlock/core/device.ts';
import type { Problem } from '@airlock/core/result.ts';
import { refuseDecision } from './narrow.ts';

export interface ExternalEngine {
  /** For people: `opa airlock/narrow` */
  readonly name: string;
  /**
   * The same decisions in the same order, each as it was or lower (`external-narrowed`, `external-failed`). Never
   * rejects and never takes longer than its limits: what the engine fails to answer is denied. Engines are asked only
   * about devices that would be connected.
   */
  narrow(decisions: readonly Decision[], inventory: Inventory, claims: Claims): Promise<Decision[]>;
  close(): Promise<void>;
}

/** Stands in for an engine that could not be opened: denies whatever would be connected, and says why. */
export function refusingEngine(name: string, problem: Problem): ExternalEngine {
  return {
    name,
    narrow: async (decisions) => decisions.map((decision) => refuseDecision(decision, problem)),
    close: async () => {},
  };
}
