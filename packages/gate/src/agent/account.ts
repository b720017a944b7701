/** What was said of each device: it is said again only when it is different. */
import type { Decision } from '@airlock/core/decision.ts';
import type { EventBody } from '@airlock/core/event.ts';
import type { Enforcement } from '@airlock/core/plan.ts';

export interface Account {
  /** Steps are repeated in every turn; said is only what came out differently than the last time. */
  tellStep(event: Extract<EventBody, { kind: 'step' }>, firstTurn: boolean): void;
  /** What was decided on a device, and what became of it. */
  tellEnforcement(enforcement: Enforcement): void;
  /** The device went away, or another is there. */
  forget(device: string): void;
}

/** `earlier`: decisions by device that were told before this program started. */
export function startAccount(earlier: ReadonlyMap<string, Decision>, note: (event: EventBody) => void): Account {
  const decided = new Map([...earlier].map(([id, decision]) => [id, decisionKey(decision)]));
  const outcomes = new Map<string, string>();
  const steps = new Map<string, string>();

  return {
    tellStep(event, firstTurn) {
      const { step, outcome } = event;
      const key = `${'device' in step ? step.device : ''} ${JSON.stringify(step)}`;
      const lasting = step.kind === 'bind' || step.kind === 'unbind' || step.kind === 'remove';
      const result = `${outcome.status} ${outcome.because ?? ''}`;
      // What an agent finds at its start as the gate left it is nothing new.
      const asLeft =
        firstTurn &&
        outcome.status === 'enforced' &&
        (step.kind === 'autoprobe-off'
          ? earlier.size > 0
          : (step.kind === 'pin' || step.kind === 'virtual-autoprobe-off') && earlier.has(step.device));
      const repeated = asLeft || steps.get(key) === result;
      if (steps.size > 4096) steps.clear();
      steps.set(key, result);
      // What binds or unbinds and worked did something each time.
      if (!repeated || (lasting && outcome.status === 'enforced')) note(event);
    },
    tellEnforcement({ decision, outcomes: now }) {
      const key = decisionKey(decision);
      const isNew = decided.get(decision.device) !== key;
      if (isNew) note({ kind: 'decided', decision });
      decided.set(decision.device, key);
      const said = JSON.stringify(now.map((outcome) => [outcome.property, outcome.status]));
      if (isNew || (outcomes.get(decision.device) ?? said) !== said) {
        note({ kind: 'enforced', device: decision.device, outcomes: now });
      }
      outcomes.set(decision.device, said);
    },
    forget(device) {
      for (const memory of [decided, outcomes]) memory.delete(device);
      for (const key of steps.keys()) if (key.startsWith(`${device} `)) steps.delete(key);
    },
  };
}

function decisionKey({ level, rule, reason, detail }: Decision): string {
  return JSON.stringify([level, rule?.id ?? null, reason, detail]);
}
