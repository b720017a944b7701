/**
 * The loop inventory → decide → plan → apply → inventory → decide again, until nothing is left to do. Used by the boot
 * gate on all devices at once, and by the agent for every change.
 *
 * A provisional decision (`pending`) is bound, looked at, and decided again with what is then known; what a device fails
 * on then is kept (`refused`), so that it is not bound again to be looked at again.
 */
import type { Decision } from '@airlock/core/decision.ts';
import { type Device, type Inventory, isBound } from '@airlock/core/device.ts';
import type { EventBody } from '@airlock/core/event.ts';
import { isConnected } from '@airlock/core/level.ts';
import type { Enforcement, Outcome, OutcomeStatus, Step } from '@airlock/core/plan.ts';
import { ok, type Problem, type Result } from '@airlock/core/result.ts';
import { type Applied, applyPlan, type Hands, type Stands } from './apply.ts';
import { hidesType, innerNode, transportDriver } from './drivers.ts';
import { machineOutcomes } from './kernel-abilities.ts';
import { OVERRIDE_BUSES, planFor } from './plan.ts';
import { readBack } from './read-back.ts';
import { virtualFunctionOutcomes } from './virtual-functions.ts';

export type Phase = 'before-bind' | 'after-bind';

export interface EnforceInput {
  readonly hands: Hands;
  /** Takes an inventory. `probe`: unbound devices may be asked for the features that they offer. */
  readonly look: (probe: boolean) => Promise<Result<Inventory>>;
  /** The policy's decisions, one for each device of the inventory. Pure. */
  readonly decide: (inventory: Inventory, phase: Phase) => readonly Decision[];
  /** `false`: nothing is changed; decisions are compared with what is (audit, learn). */
  readonly act: boolean;
  /** Is what stands there still what the latest look saw? Not given: nothing comes and goes meanwhile. */
  readonly stands?: Stands;
  /** End with modules_disabled = 1. */
  readonly disableModules?: boolean;
  /** Milliseconds. */
  readonly wait: (milliseconds: number) => Promise<void>;
  readonly note?: (event: EventBody) => void;
  /** Decisions on devices that were bound, looked at and refused earlier, by device id. */
  readonly refused?: ReadonlyMap<string, Decision>;
}

export interface Enforced {
  /** As the machine was found. */
  readonly first: Inventory;
  /** As it was left. */
  readonly inventory: Inventory;
  readonly enforcements: readonly Enforcement[];
  /** What holds of the machine as a whole: autoprobe, hot-plug, modules. */
  readonly machine: readonly Outcome[];
  readonly applied: readonly Applied[];
  /** To be given to the next run. */
  readonly refused: ReadonlyMap<string, Decision>;
  readonly problems: readonly Problem[];
}

/** Bind, look, unbind what failed, and once more for devices that appeared meanwhile; more means that the host plays. */
const ROUNDS = 5;
/** For facts that a driver shows only some time after it was bound (NVMe reads its serial number in a thread). */
const PATIENCE_MS = 2000;

/** Codes: those of `look` for the first inventory. Later trouble is in `problems` and in the outcomes. */
export async function enforce(input: EnforceInput): Promise<Result<Enforced>> {
  const note = input.note ?? (() => undefined);
  const found = await input.look(true);
  if (!found.ok) return found;
  const refused = new Map(input.refused ?? []);
  const problems: Problem[] = [];
  const applied: Applied[] = [];
  let inventory = found.value;
  let decisions = merge(input.decide(inventory, 'before-bind'), refused);

  if (input.act) {
    let stale = false;
    // Steps that did not work are not repeated; those that did and are asked for again are: somebody undid them.
    const tried = new Map<string, OutcomeStatus>();
    const worthwhile = (step: Step) => (tried.get(JSON.stringify(step)) ?? 'enforced') === 'enforced';
    for (let turn = 1; ; turn++) {
      const steps = planFor(decisions, inventory).steps.filter(worthwhile);
      // USB devices are authorized or not in every plan: what the inventory shows does not tell.
      const open = steps.filter(
        (step) => changes(step) && !(step.kind === 'authorize' && tried.has(JSON.stringify(step))),
      );
      if (open.length === 0 && turn > 1) break;
      if (turn > ROUNDS) {
        problems.push({
          code: 'enforcement-unsettled',
          message: `decisions and devices still differ after ${ROUNDS} rounds`,
          hint: 'a device changes as fast as it is decided; it is left disconnected',
        });
        const undone = new Set(open.map((step) => ('device' in step ? step.device : null)));
        decisions = decisions.map((one) => (undone.has(one.device) ? withdrawn(one, 'it would not settle') : one));
        applied.push(...(await act(planFor(decisions, inventory).steps, input, note)));
        stale = true;
        break;
      }
      const round = await act(steps, input, note);
      for (const { step, outcome } of round) tried.set(JSON.stringify(step), outcome.status);
      applied.push(...round);
      const seen = await lookUntilKnown(input, decisions);
      if (!seen.ok) {
        problems.push(seen.error);
        // Bound to be looked at, and nobody can look.
        const blind = new Set(decisions.filter(isProvisional).map(({ device }) => device));
        decisions = decisions.map((one) => (blind.has(one.device) ? withdrawn(one, seen.error.message) : one));
        const unseen = inventory.devices.filter(({ id }) => blind.has(id));
        applied.push(...(await act(unseen.flatMap(letGo), input, note)));
        stale = true;
        break;
      }
      const untyped = new Set(inventory.devices.filter(hidesType).map(({ id }) => id));
      inventory = seen.value;
      decisions = decideAgain(input, inventory, decisions, refused, untyped, note);
    }
    if (input.disableModules === true) {
      applied.push(...(await act(planFor([], bare(inventory), { disableModules: true }).steps, input, note)));
      stale = true;
    }
    // What is reported is seen after the last step.
    const last = stale ? await input.look(false) : null;
    if (last?.ok) inventory = last.value;
    else if (last !== null) problems.push(last.error);
  }

  const byId = new Map(inventory.devices.map((device) => [device.id, device]));
  const enforcements: Enforcement[] = [];
  for (const decision of decisions) {
    const mine = applied.filter(({ step }) => 'device' in step && step.device === decision.device);
    enforcements.push(
      await readBack(decision, byId.get(decision.device), {
        files: input.hands.files,
        kernel: inventory.kernel,
        applied: mine,
      }),
    );
  }
  const drivers = await input.hands.files.list('/sys/bus/pci/drivers');
  const machine = [
    ...machineOutcomes(inventory, {
      pciDrivers: drivers.ok ? drivers.value : [],
      disableModules: input.act && input.disableModules === true,
    }),
    ...virtualFunctionOutcomes(inventory, decisions),
  ];
  return ok({ first: found.value, inventory, enforcements, machine, applied, refused, problems });
}

/** Steps that make a difference to a device; the others are repeated in every plan. */
function changes(step: Step): boolean {
  return step.kind === 'bind' || step.kind === 'unbind' || step.kind === 'authorize' || step.kind === 'remove';
}

async function act(
  steps: readonly Step[],
  { hands, stands }: Pick<EnforceInput, 'hands' | 'stands'>,
  note: (event: EventBody) => void,
): Promise<Applied[]> {
  const applied = await applyPlan({ version: 1, steps }, hands, stands);
  for (const { step, outcome } of applied) note({ kind: 'step', step, outcome });
  return applied;
}

/** For the plan of kernel switches only. */
function bare(inventory: Inventory): Inventory {
  const off = Object.fromEntries(['pci', 'virtio', 'vdpa', 'usb'].map((bus) => [bus, false]));
  return { ...inventory, kernel: { ...inventory.kernel, autoprobe: off }, devices: [] };
}

function merge(decisions: readonly Decision[], refused: ReadonlyMap<string, Decision>): Decision[] {
  return decisions.map((decision) => refused.get(decision.device) ?? decision);
}

function isProvisional(decision: Decision): boolean {
  return isConnected(decision.level) && decision.pending.length > 0;
}

function withdrawn(decision: Decision, because: string): Decision {
  return {
    ...decision,
    level: 'disconnected',
    detail: `${decision.detail}; withdrawn: ${because}`,
    pending: [],
  };
}

/** Takes a device out of use without knowing what is bound to it by now: what lies below its outermost node goes too. */
function letGo(device: Device): Step[] {
  if (device.bus === 'usb') return [{ kind: 'authorize', device: device.id, node: device.location, value: false }];
  const outer = device.nodes[0];
  if (outer === undefined) return [];
  const { bus, name: node } = outer;
  const driver = outer.driver ?? transportDriver(device)?.name ?? '*';
  return [
    ...(OVERRIDE_BUSES.includes(bus) ? [{ kind: 'pin', device: device.id, bus, node, driver: 'none' } as const] : []),
    { kind: 'unbind', device: device.id, bus, node, driver },
  ];
}

/** Looks until the facts that bound devices still owe are there, or patience ends. A look that fails is tried once more. */
async function lookUntilKnown(input: EnforceInput, decisions: readonly Decision[]): Promise<Result<Inventory>> {
  const waiting = new Set(decisions.filter(isProvisional).map(({ device }) => device));
  let waited = 0;
  let failed = false;
  for (let pause = 5; ; pause = Math.min(pause * 2, 200)) {
    const seen = await input.look(false);
    if (!seen.ok && !failed) {
      failed = true;
      await input.wait(pause);
      continue;
    }
    if (!seen.ok || waiting.size === 0 || waited >= PATIENCE_MS) return seen;
    const bound = new Set(seen.value.devices.filter(isBound).map((device) => device.id));
    const owed = input
      .decide(seen.value, 'before-bind')
      .some((one) => waiting.has(one.device) && bound.has(one.device) && one.pending.length > 0);
    if (!owed) return seen;
    await input.wait(pause);
    waited += pause;
  }
}

/** With what binding showed; of `untyped` devices only the type was to be seen so far. Fills `refused`. */
function decideAgain(
  input: EnforceInput,
  inventory: Inventory,
  before: readonly Decision[],
  refused: Map<string, Decision>,
  untyped: ReadonlySet<string>,
  note: (event: EventBody) => void,
): Decision[] {
  const earlier = new Map(before.map((decision) => [decision.device, decision]));
  let fresh: Map<string, Decision> | undefined;
  const devices = new Map(inventory.devices.map((device) => [device.id, device]));
  const toBeBound = (id: string): boolean => {
    const device = devices.get(id);
    return untyped.has(id) && device !== undefined && innerNode(device) !== undefined && !isBound(device);
  };
  const unlooked = (id: string): Decision | undefined => {
    fresh ??= new Map(input.decide(inventory, 'before-bind').map((one) => [one.device, one]));
    return fresh.get(id);
  };
  const decisions = input.decide(inventory, 'after-bind').map((after): Decision => {
    const kept = refused.get(after.device);
    if (kept !== undefined) return kept;
    const old = earlier.get(after.device);
    // Appeared meanwhile: nothing was bound to look at it yet.
    if (old === undefined) return unlooked(after.device) ?? after;
    // It was denied before, for a better reason than what can no longer be seen of it.
    if (!isConnected(old.level)) return isConnected(after.level) ? after : old;
    const decision = toBeBound(after.device) ? (unlooked(after.device) ?? after) : after;
    if (isConnected(decision.level)) return decision;
    refused.set(decision.device, decision);
    if (decision.reason === 'feature-forbidden' || decision.reason === 'feature-missing')
      note({ kind: 'violation', device: decision.device, rule: decision.rule?.id ?? '', detail: decision.detail });
    return decision;
  });
  // A device that has gone keeps its decision, so that the report says what became of it.
  return [...decisions, ...before.filter((decision) => !devices.has(decision.device))];
}
