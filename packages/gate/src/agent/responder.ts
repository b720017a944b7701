/**
 * Carries out what the policy's `on` section asks for. An offence is told and answered once, until it is over; what is
 * done goes through the same plan, apply and read back as everything else, and each answer leaves an event with what
 * became of it.
 */
import type { Decision } from '@airlock/core/decision.ts';
import type { Device, Inventory } from '@airlock/core/device.ts';
import type { EventBody } from '@airlock/core/event.ts';
import { isConnected } from '@airlock/core/level.ts';
import type { Enforcement, Outcome, Step } from '@airlock/core/plan.ts';
import type { Problem } from '@airlock/core/result.ts';
import type { Policy, Violation } from '@airlock/policy/policy.ts';
import { applyPlan, type Hands } from '../apply.ts';
import type { Conduct } from './conduct.ts';
import { loadHolds, saveHolds } from './hold-store.ts';
import { addHold, HOLDS_LIMIT, type Hold, makeHold, outlivesDeparture, withheld } from './holds.ts';
import type { Offence } from './offence.ts';
import { powerOff } from './power.ts';
import { carriedBy, RESETS_WITHIN_MS, type Response, respond } from './respond.ts';

export interface ResponderParts {
  readonly hands: Hands;
  readonly on: Policy['on'];
  readonly conduct: Conduct;
  /** The program that switches the machine off; null where none may be run. */
  readonly powerOff: readonly string[] | null;
  readonly wait: (milliseconds: number) => Promise<void>;
  readonly note: (event: EventBody) => void;
  readonly incarnation: (device: Device) => Promise<string | undefined>;
  /** The device was reset: what it showed and was refused for is over. */
  readonly anew: (device: string) => void;
}

export interface Responder {
  readonly holds: readonly Hold[];
  /** Holds could not be written down, or not all. */
  readonly problem: Problem | null;
  /** Is there an offence that was told and not answered yet? */
  readonly waiting: boolean;
  /** Reads what an agent before this one held. The problem is that of the file. */
  begin(boot: string | null, earlier: ReadonlyMap<string, Decision>): Promise<Problem | null>;
  /** Tells an offence and puts it down to be answered, unless it was already and goes on. `answered` false: only tells. */
  file(offence: Offence, how?: { readonly when?: string; readonly answered?: boolean }): void;
  /** These are over. */
  clear(device: string, violations: readonly Violation[]): void;
  /** The device went away, or another is there. */
  forget(device: string): void;
  /** Ends what its departure ends; `came` gives the incarnation of what stands there now. */
  depart(device: string): Promise<void>;
  withhold(decisions: readonly Decision[]): readonly Decision[];
  /** Does at once what is to be done at once. True: look and decide again. */
  answer(inventory: Inventory, uptime: number): Promise<boolean>;
  /** After devices were made as decided: does the rest, and tells what became of it. True: a device was taken away. */
  finish(enforcements: readonly Enforcement[]): Promise<boolean>;
  /** An operator lets go of it. */
  release(device: string): Promise<Hold | undefined>;
}

/** In memory; more places than any machine has. */
const REMEMBERED = 8192;

interface Owed {
  readonly offence: Offence;
  readonly response: Response;
}

export function startResponder(parts: ResponderParts): Responder {
  const { hands, note } = parts;
  const standing = new Map<string, Map<Violation, string>>();
  const resets = new Map<string, number[]>();
  let holds: readonly Hold[] = [];
  let boot: string | null = null;
  let problem: Problem | null = null;
  let queue: Offence[] = [];
  let owed: Owed[] = [];

  function tell({ offence, response }: Owed, outcome: Outcome): void {
    const { device, violation } = offence;
    note({ kind: 'response', device, violation, action: response.action, outcome });
  }

  async function keep(next: readonly Hold[]): Promise<void> {
    holds = next;
    const saved = await saveHolds(hands.files, holds.slice(0, HOLDS_LIMIT), boot);
    problem = !saved.ok
      ? { ...saved.error, message: `what is in quarantine will not survive a restart: ${saved.error.message}` }
      : holds.length > HOLDS_LIMIT
        ? { code: 'holds-too-many', message: `${holds.length} devices are held, ${HOLDS_LIMIT} written down` }
        : null;
  }

  /** Steps in order; gives the outcome of the first that did not work, else of the last. */
  async function doSteps(steps: readonly Step[]): Promise<Outcome | undefined> {
    let last: Outcome | undefined;
    for (const step of steps) {
      for (const applied of await applyPlan({ version: 1, steps: [step] }, hands)) {
        note({ kind: 'step', step: applied.step, outcome: applied.outcome });
        last = applied.outcome;
      }
      if (last !== undefined && last.status !== 'enforced') break;
    }
    return last;
  }

  async function hold(one: Owed, device: Device | undefined, uptime: number): Promise<void> {
    const { action } = one.response;
    if (action === 'revoke-keys') return;
    const incarnation = device === undefined ? undefined : await parts.incarnation(device);
    const next = addHold(holds, makeHold(one.offence, action, uptime, incarnation));
    if (next !== holds && next.length <= REMEMBERED) await keep(next);
    // From now on it is this that keeps it out, and this that has to be lifted.
    parts.anew(one.offence.device);
    owed.push(one);
  }

  async function resetNow(one: Owed, device: Device, uptime: number): Promise<void> {
    resets.set(device.id, [...recentResets(device.id, uptime), uptime]);
    const outcome = await doSteps(one.response.now);
    if (outcome !== undefined && outcome.status === 'failed') {
      const because = `${outcome.because ?? 'it did not work'}; it is kept unbound`;
      await hold({ ...one, response: { ...one.response, short: { status: 'failed', because } } }, device, uptime);
      return;
    }
    standing.delete(device.id);
    parts.anew(device.id);
    if (outcome !== undefined) tell(one, outcome);
  }

  function recentResets(device: string, uptime: number): number[] {
    return (resets.get(device) ?? []).filter((at) => uptime - at < RESETS_WITHIN_MS);
  }

  async function answerOne(offence: Offence, inventory: Inventory, uptime: number): Promise<boolean> {
    const device = inventory.devices.find(({ id }) => id === offence.device);
    const responses = respond(parts.on, offence, device, {
      enforcing: parts.conduct.enforcing,
      whyNot: parts.conduct.whyNot,
      resets: recentResets(offence.device, uptime).length,
      carries: carriedBy(offence.device, inventory),
    });
    let changed = false;
    for (const response of responses) {
      const one = { offence, response };
      if (response.now.length > 0 && device !== undefined) {
        changed = true;
        await resetNow(one, device, uptime);
      } else if (response.hold) {
        changed = true;
        await hold(one, device, uptime);
        // The hold stays, should the machine not go.
        if (response.action === 'halt') tell(one, await powerOff(hands, parts.powerOff, parts.wait));
      } else if (response.short !== undefined) {
        tell(one, { property: propertyOf(one), ...response.short });
      }
    }
    return changed;
  }

  async function finishOne(one: Owed, enforcements: readonly Enforcement[]): Promise<boolean> {
    const { response, offence } = one;
    const property = propertyOf(one);
    const found = enforcements.find(({ decision }) => decision.device === offence.device);
    if (response.later.length > 0) {
      const outcome = await doSteps(response.later);
      if (outcome !== undefined) tell(one, outcome);
      return outcome?.status === 'enforced';
    }
    const bad = found?.outcomes.find(({ status }) => status !== 'enforced');
    if (found !== undefined && isConnected(found.decision.level)) {
      tell(one, { property, status: 'failed', because: `it is ${found.decision.level}: ${found.decision.detail}` });
    } else if (bad !== undefined) {
      tell(one, { ...bad, property: `${property}: ${bad.property}` });
    } else if (response.short !== undefined) {
      tell(one, { property, ...response.short });
    } else if (response.action !== 'halt') {
      const evidence = found?.outcomes[0]?.evidence;
      tell(one, { property, status: 'enforced', ...(evidence === undefined ? {} : { evidence }) });
    }
    return false;
  }

  return {
    get holds() {
      return holds;
    },
    get problem() {
      return problem;
    },
    get waiting() {
      return queue.length > 0;
    },
    async begin(thisBoot, earlier) {
      boot = thisBoot;
      const loaded = await loadHolds(hands.files, boot, earlier);
      holds = loaded.holds;
      return loaded.problem;
    },
    file(offence, { when = '', answered = true } = {}) {
      const { device, violation, detail, rule } = offence;
      const mine = standing.get(device) ?? new Map<Violation, string>();
      const before = mine.get(violation);
      standing.set(device, mine.set(violation, detail));
      if (before === detail) return;
      const actions = answered ? parts.on[violation] : undefined;
      const answer = actions === undefined ? {} : { answer: actions };
      note({ kind: 'violation', device, rule, detail: `${when}${detail}`, violation, ...answer });
      if (actions === undefined) return;
      queue = [...queue.filter((one) => one.device !== device || one.violation !== violation), offence];
    },
    clear(device, violations) {
      const mine = standing.get(device);
      if (mine === undefined) return;
      for (const violation of violations) mine.delete(violation);
      if (mine.size === 0) standing.delete(device);
    },
    forget: (device) => void standing.delete(device),
    async depart(device) {
      resets.delete(device);
      const mine = holds.find((one) => one.device === device);
      if (mine === undefined || outlivesDeparture(mine)) return;
      note({ kind: 'operator', verb: 'hold-ended', device, until: null, result: `${mine.action}: it went away` });
      await keep(holds.filter((one) => one !== mine));
    },
    withhold(decisions) {
      if (holds.length === 0 || !parts.conduct.enforcing) return decisions;
      const held = new Map(holds.map((one) => [one.device, one]));
      return decisions.map((decision) => {
        const mine = held.get(decision.device);
        return mine === undefined ? decision : withheld(decision, mine);
      });
    },
    async answer(inventory, uptime) {
      let changed = false;
      const now = queue;
      queue = [];
      for (const offence of now) if (await answerOne(offence, inventory, uptime)) changed = true;
      return changed;
    },
    async finish(enforcements) {
      let removed = false;
      const now = owed;
      owed = [];
      for (const one of now) if (await finishOne(one, enforcements)) removed = true;
      return removed;
    },
    async release(device) {
      resets.delete(device);
      const mine = holds.find((one) => one.device === device);
      if (mine !== undefined) {
        standing.delete(device);
        parts.anew(device);
        await keep(holds.filter((one) => one !== mine));
      }
      return mine;
    },
  };
}

function propertyOf({ offence, response }: Owed): string {
  switch (response.action) {
    case 'quarantine':
      return `${offence.device} in quarantine`;
    case 'unbind':
      return `${offence.device} kept unbound`;
    case 'reset':
      return `${offence.device} reset`;
    case 'remove':
      return `${offence.device} taken off its bus`;
    case 'halt':
      return 'machine switched off';
    case 'revoke-keys':
      return `keys of ${offence.device} revoked`;
  }
}
