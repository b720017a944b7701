/**
 * Keeps the machine as it is decided: one turn reads everything, says what changed and what was done behind our back,
 * and (when it enforces) makes it right and reads it back. Turns never overlap; `turns.ts` says when they run.
 */
import type { Decision } from '@airlock/core/decision.ts';
import { type Device, type Inventory, isBound } from '@airlock/core/device.ts';
import type { EventBody } from '@airlock/core/event.ts';
import { isConnected } from '@airlock/core/level.ts';
import type { Enforcement, Outcome } from '@airlock/core/plan.ts';
import { ok, type Problem, type Result } from '@airlock/core/result.ts';
import { readInventory } from '@airlock/linux/inventory.ts';
import { fingerprintOf, type Grant, matchFingerprint } from '@airlock/policy/grant.ts';
import type { Policy, Violation } from '@airlock/policy/policy.ts';
import type { Hands } from '../apply.ts';
import { type Enforced, enforce } from '../enforce.ts';
import { startOrigins } from '../origin.ts';
import { GATED_BUSES } from '../plan.ts';
import { loadBootDevices, saveBootDevices } from './boot-devices.ts';
import { changesBetween } from './changes.ts';
import { readBootTime } from './clock.ts';
import type { Conduct } from './conduct.ts';
import { contradictions } from './contradictions.ts';
import type { Earlier } from './earlier.ts';
import { loadGrants, saveGrants, savePermanentGrants } from './grant-store.ts';
import { completeFingerprints, endByDeparture, endByTime, type GrantRecord, nextEnd } from './grants.ts';
import type { Judge, Judgement } from './judge.ts';
import { knownFacts } from './known-facts.ts';
import { heldReads, identityChanges, isCertain, needsReset, offencesOf, statusTrouble } from './offence.ts';
import { unanswered } from './respond.ts';
import { type Responder, startResponder } from './responder.ts';
import { APART_MS, startSilence } from './silence.ts';
import { STATE } from './state.ts';
import type { Found } from './status.ts';
import type { Occasion } from './turns.ts';
import { readVitals } from './vitals.ts';

export interface KeeperParts {
  readonly hands: Hands;
  readonly judge: Judge;
  readonly conduct: Conduct;
  /** Milliseconds. */
  readonly wait: (milliseconds: number) => Promise<void>;
  readonly note: (event: EventBody) => void;
  /** Tells one coming of a device from the next, where that can be told. */
  readonly incarnation: (device: Device) => Promise<string | undefined>;
  /** The policy wants no module loaded once the gate is through. */
  readonly disableModules: boolean;
  /** What the gate, or an agent before us, left. */
  readonly earlier: Earlier;
  /** What the policy wants done about devices that misbehave. */
  readonly on: Policy['on'];
  /** The program that switches the machine off; null where none may be run. */
  readonly powerOff: readonly string[] | null;
  /** The driver that was taken off a device before anybody looked at it, told once. */
  readonly seizedFrom?: (device: string) => string | undefined;
}

export interface KeeperState {
  readonly inventory: Inventory | undefined;
  readonly enforcements: readonly Enforcement[];
  readonly machine: readonly Outcome[];
  /** Milliseconds since boot at the last turn; null when no clock could be read. */
  readonly uptime: number | null;
  /** What keeps the agent from its work now: an unreadable inventory, grants that could not be written. */
  readonly problems: readonly Problem[];
  readonly turns: number;
  /** What the first look found otherwise than the gate had left it. */
  readonly found: readonly Found[];
}

export interface Keeper {
  readonly state: KeeperState;
  /** Devices that are kept out because they misbehaved. */
  readonly holds: Responder['holds'];
  readonly grants: readonly GrantRecord[];
  /** Reads the grants of this boot and those without an end. Before the first turn. */
  begin(): Promise<void>;
  /** `quick` false: what is seen to hold already is not enforced again. */
  turn(occasion: Occasion, quick: boolean): Promise<void>;
  /** Reads what changes without an event, of connected devices only. True: a turn has something to do. */
  poll(): Promise<boolean>;
  /** A driver was bound to a device that is denied, and was taken off before any look. */
  blame(device: string, driver: string): void;
  /** An operator lets go of a device that misbehaved. */
  release: Responder['release'];
  /** An inventory as of now, changing nothing. Codes: those of readInventory. */
  look(): Promise<Result<Inventory>>;
  /** What would be decided on it with these grants. */
  consider(inventory: Inventory, grants: readonly GrantRecord[]): Promise<Judgement>;
  /** Replaces the grants and writes them down. The problems are those of writing. */
  setGrants(grants: readonly GrantRecord[], about: string): Promise<{ run: Problem | null; kept: Problem | null }>;
  incarnation(device: Device): Promise<string | undefined>;
  /** Has a look seen this device, and nothing told that it went away since? */
  knows(device: string): boolean;
  /** The kernel says that it went away. */
  depart(device: string): void;
  /** Did the latest judgement deny it, before and after binding? */
  denies(device: string): boolean;
  /** The decision on a device that was bound, looked at and refused. */
  refusal(device: string): Decision | undefined;
  /** Milliseconds since boot of the next end of a grant, or of learning. */
  nextEnd(): number | undefined;
}

/** The reason of a turn that an operator's question sets off. */
export const ASKED = 'status';

/** More than this during one look: the turn that follows sees what is there. */
const LEAVING_LIMIT = 4096;

/** Reasons that lie outside the device, and may be gone with the next look. */
const PASSING: ReadonlySet<Decision['reason']> = new Set([
  'platform-requirement-failed',
  'operator-blocked',
  'withheld',
  'external-narrowed',
  'external-failed',
]);

export function startKeeper(parts: KeeperParts): Keeper {
  const { hands, judge, note, conduct } = parts;
  const { files } = hands;
  let grants: readonly GrantRecord[] = [];
  let boot: string | null = null;
  let inventory: Inventory | undefined;
  let enforcements: readonly Enforcement[] = [];
  let machine: readonly Outcome[] = [];
  let uptime: number | null = null;
  let turns = 0;
  let saved = '';
  let bootSaved: number | null = null;
  let seenIds = new Set<string>();
  /** Devices that went away while a look is taken, which may still show them. */
  let leaving = new Set<string>();
  let origins = startOrigins(parts.incarnation, undefined);
  let denied: ReadonlySet<string> = new Set();
  const problems = new Map<string, Problem>();
  const decided = new Map([...parts.earlier.decisions].map(([id, decision]) => [id, decisionKey(decision)]));
  const outcomes = new Map<string, string>();
  const incarnations = new Map<string, string>();
  const headers = new Map<string, string>();
  const silence = startSilence();
  let found: readonly Found[] = [];
  /** What stayed undone when it was last tried. */
  let undone: string | null = null;
  /** Was something done about an offence in this turn? */
  let answered = false;
  const steps = new Map<string, string>();
  const refused = new Map<string, Decision>();
  const facts = knownFacts(parts.earlier.decisions);
  const responder = startResponder({
    ...parts,
    anew(device) {
      for (const memory of [refused, headers]) memory.delete(device);
      facts.forget(device);
      silence.forget(device);
    },
  });

  /** A problem is said once, when it comes, and forgotten when it goes. */
  function trouble(key: string, problem: Problem | null): void {
    const before = problems.get(key);
    if (problem === null) problems.delete(key);
    else problems.set(key, problem);
    if (problem !== null && before?.message !== problem.message) note({ kind: 'policy-problem', problem });
  }

  async function readClock(): Promise<void> {
    const time = await readBootTime(files);
    uptime = time.ok ? time.value.uptime : null;
    if (time.ok) boot = time.value.boot;
    trouble('clock', time.ok ? null : time.error);
  }

  async function write(what: readonly GrantRecord[]): Promise<{ run: Problem | null; kept: Problem | null }> {
    const run = await saveGrants(files, what, boot);
    const wasKept = grants.some(({ kept }) => kept) || what.some(({ kept }) => kept);
    const kept = wasKept ? await savePermanentGrants(files, what) : ok(undefined);
    return { run: run.ok ? null : run.error, kept: kept.ok ? null : kept.error };
  }

  async function replace(
    next: readonly GrantRecord[],
    about: string,
  ): Promise<{ run: Problem | null; kept: Problem | null }> {
    const result = await write(next);
    grants = next;
    refused.delete(about);
    trouble('grants', result.run ?? result.kept);
    return result;
  }

  async function endGrants(ended: readonly GrantRecord[], live: readonly GrantRecord[], why: string): Promise<void> {
    if (ended.length === 0) return;
    for (const { device, kind } of ended) {
      note({ kind: 'operator', verb: 'grant-ended', device, until: null, result: `${kind}: ${why}` });
      refused.delete(device);
    }
    const result = await write(live);
    grants = live;
    trouble('grants', result.run ?? result.kept);
  }

  /** The first look of a turn: what is different, and what contradicts the decisions, before anything is done. */
  async function notice(now: Inventory, occasion: Occasion): Promise<void> {
    const gone = new Set<string>();
    const present = new Map(now.devices.map((device) => [device.id, device]));
    for (const device of inventory?.devices ?? []) {
      const there = present.get(device.id);
      const same = there !== undefined && matchFingerprint(fingerprintOf(device), there).matches !== false;
      if (!same || occasion.removed.has(device.path)) gone.add(device.id);
    }
    const before = new Map(incarnations);
    incarnations.clear();
    const changed: Device[] = [];
    for (const device of now.devices) {
      const was = before.get(device.id);
      const is = await parts.incarnation(device);
      if (is !== undefined) incarnations.set(device.id, is);
      if (was === undefined || is === undefined) continue;
      if (was !== is) gone.add(device.id);
      else if (gone.has(device.id)) changed.push(device);
    }
    for (const { device: id, incarnation } of responder.holds) {
      const there = present.get(id);
      const is = incarnations.get(id);
      const told = there === undefined || occasion.removed.has(there.path);
      // An event may be of the one before it.
      if (incarnation === undefined || is === undefined ? told : incarnation !== is) await responder.depart(id);
    }
    for (const id of gone) {
      for (const memory of [refused, decided, outcomes, headers]) memory.delete(id);
      facts.forget(id);
      silence.forget(id);
      responder.forget(id);
      for (const key of steps.keys()) if (key.startsWith(`${id} `)) steps.delete(key);
    }
    const changes = inventory === undefined ? parts.earlier.changes(now) : changesBetween(inventory, now);
    for (const change of changes) note(change);
    // The kernel says that nothing left and nothing came: the device itself is another than it was.
    for (const device of changed) {
      const was = inventory?.devices.find(({ id }) => id === device.id);
      const what = was === undefined ? [] : identityChanges(was, device);
      if (what.length > 0) fileOnce(device.id, 'identity-change', `${what.join(', ')}, and it was never removed`);
    }

    if (grants.some(({ kind }) => kind === 'once')) {
      // Before the first look nothing is known to have left: a device that is absent then has.
      if (inventory === undefined) for (const { device } of grants) if (!present.has(device)) gone.add(device);
      const { live, ended } = endByDeparture(grants, gone, incarnations);
      await endGrants(ended, live, 'the device went away');
    }
  }

  function ruleOf(device: string): string {
    return enforcements.find(({ decision }) => decision.device === device)?.decision.rule?.id ?? '';
  }

  /** For what happens and does not last: it is told and answered each time. */
  function fileOnce(device: string, violation: Violation, detail: string): void {
    responder.file({ device, violation, detail, rule: ruleOf(device) });
    responder.clear(device, [violation]);
  }

  /** Devices that are not as decided, told once for each way; and buses that bind by themselves again. */
  function accuse(now: Inventory, judgement: Judgement): void {
    const first = inventory === undefined;
    for (const [bus, on] of Object.entries(now.kernel.autoprobe)) {
      const kept = machine.some(({ property, status }) => status === 'enforced' && property.endsWith(` on ${bus}`));
      if (!on || !conduct.enforcing) continue;
      if (kept) note({ kind: 'violation', device: `bus:${bus}`, rule: '', detail: 'drivers_autoprobe was turned on' });
      else if (first && parts.earlier.decisions.size > 0 && GATED_BUSES.some((gated) => gated === bus)) {
        found = [...found, { device: `bus:${bus}`, what: 'it bound by itself', corrected: false }];
      }
    }
    const before = first
      ? parts.earlier.decisions
      : new Map(enforcements.map(({ decision }) => [decision.device, decision]));
    for (const [i, device] of now.devices.entries()) {
      const decision = refused.get(device.id) ?? judgement.seen[i];
      if (decision === undefined) continue;
      const was = before.get(device.id);
      const rule = decision.rule?.id ?? '';
      const seized = isConnected(decision.level) ? undefined : parts.seizedFrom?.(device.id);
      const offences = offencesOf(device, decision, was);
      if (seized !== undefined) {
        const words = [`the kernel bound it to ${seized} before anybody decided on it`];
        const again = offences.filter(({ violation }) => violation === 'driver-violation');
        const detail = [...words, ...again.map((one) => one.detail)].join('; ');
        offences.splice(0, offences.length, ...offences.filter((one) => !again.includes(one)));
        offences.push({ device: device.id, violation: 'driver-violation', detail, rule });
      }
      const trouble = needsReset(device);
      // Nobody had decided on anything before an agent without a gate: what it finds is nobody's doing.
      const answered = isCertain(device) && !(first && parts.earlier.decisions.size === 0);
      for (const offence of offences) {
        responder.file(offence, { when: first ? parts.earlier.interval(device.id) : '', answered });
        if (first && parts.earlier.decisions.size > 0) {
          found = [...found, { device: device.id, what: offence.detail, corrected: false }];
        }
      }
      if (trouble !== undefined) {
        responder.file({ device: device.id, violation: 'needs-reset', detail: trouble, rule });
      }
      if (offences.length === 0) responder.clear(device.id, ['driver-violation', 'feature-violation']);
      hearSilence(device.id, 'attributes', heldReads(device));
      // What a bound device has shown of itself is not forgotten when it is unbound: it would be bound to look again.
      if (conduct.enforcing && isBound(device) && !isConnected(decision.level) && !PASSING.has(decision.reason)) {
        refused.set(device.id, decision);
      }
    }
  }

  function hearSilence(device: string, source: string, held: readonly string[]): void {
    // Where not even the clock answers it is the machine, and no device is to blame.
    if (uptime === null) return;
    const confirmed = silence.hear(device, source, held.length > 0, uptime);
    if (!silence.isSilent(device)) responder.clear(device, ['device-timeout']);
    if (!confirmed) return;
    const detail = `no answer to reads of ${held.slice(0, 4).join(', ')}, twice, at least ${APART_MS / 1000} s apart`;
    responder.file({ device, violation: 'device-timeout', detail, rule: ruleOf(device) });
  }

  async function judgeHeld(seen: Inventory, live: readonly Grant[]): Promise<Judgement> {
    const judgement = await judge(seen, live);
    const held = (decisions: readonly Decision[]) =>
      responder.withhold(
        decisions.map((decision, i) => {
          const device = seen.devices[i];
          return device?.id === decision.device ? facts.hold(device, decision, judgement['before-bind'][i]) : decision;
        }),
      );
    return {
      'before-bind': held(judgement['before-bind']),
      'after-bind': held(judgement['after-bind']),
      seen: held(judgement.seen),
    };
  }

  /** One run of the loop. `act` false looks only. */
  async function run(occasion: Occasion, act: boolean, first: boolean): Promise<Result<Enforced>> {
    const judgements = new WeakMap<Inventory, Judgement>();
    let fresh = first;
    return enforce({
      hands,
      act,
      wait: parts.wait,
      refused,
      disableModules: parts.disableModules,
      note: (event) => {
        if (event.kind === 'step') noteStep(event);
        else if (event.kind === 'violation') {
          const { device, rule, detail } = event;
          responder.file({ device, rule, detail, violation: 'feature-violation' });
        } else note(event);
      },
      look: async (probe) => {
        // Which serial ports and screens a device is behind is for people: they are shown what a look without act saw.
        for (;;) {
          leaving = new Set();
          const read = await readInventory(files, { probe: probe && act, detail: act ? 'decision' : 'full' });
          if (!read.ok) return read;
          seenIds = new Set(read.value.devices.map(({ id }) => id).filter((id) => !leaving.has(id)));
          if (fresh) await notice(read.value, occasion);
          const seen = facts.complete(await origins.mark(read.value));
          const judgement = await judgeHeld(seen, grants);
          judgements.set(seen, judgement);
          denied = deniedBy(judgement);
          if (fresh) accuse(seen, judgement);
          // What was done about it changes what there is to see, and to decide; it is not answered twice in a turn.
          const again = fresh && (await responder.answer(seen, uptime ?? 0));
          fresh = false;
          if (!again) return ok(seen);
          answered = true;
        }
      },
      decide: (seen, phase) => {
        const judgement = judgements.get(seen);
        // A device without a decision is treated as disconnected.
        return judgement === undefined ? [] : act ? judgement[phase] : judgement.seen;
      },
    });
  }

  function isCorrected(device: string): boolean {
    const bus = device.startsWith('bus:') ? ` on ${device.slice(4)}` : undefined;
    if (bus !== undefined)
      return machine.every(({ property, status }) => !property.endsWith(bus) || status === 'enforced');
    const one = enforcements.find(({ decision }) => decision.device === device);
    const there = inventory?.devices.find(({ id }) => id === device);
    return one === undefined || there === undefined || contradictions(there, one.decision).length === 0;
  }

  /** Steps are repeated in every turn; said is only what came out differently than the last time. */
  function noteStep(event: Extract<EventBody, { kind: 'step' }>): void {
    const { step, outcome } = event;
    const key = `${'device' in step ? step.device : ''} ${JSON.stringify(step)}`;
    const lasting = step.kind === 'bind' || step.kind === 'unbind' || step.kind === 'remove';
    const result = `${outcome.status} ${outcome.because ?? ''}`;
    // What an agent finds at its start as the gate left it is nothing new.
    const asLeft =
      turns === 0 &&
      outcome.status === 'enforced' &&
      (step.kind === 'pin' || step.kind === 'autoprobe-off') &&
      (step.kind === 'pin' ? parts.earlier.decisions.has(step.device) : parts.earlier.decisions.size > 0);
    const repeated = asLeft || steps.get(key) === result;
    if (steps.size > 4096) steps.clear();
    steps.set(key, result);
    // What binds or unbinds and worked did something each time.
    if (!repeated || (lasting && outcome.status === 'enforced')) note(event);
  }

  function record(result: Enforced): void {
    inventory = result.inventory;
    enforcements = result.enforcements;
    machine = [...result.machine, ...unanswered(parts.on)];
    for (const [device, decision] of result.refused) refused.set(device, decision);
    trouble('enforcement', result.problems[0] ?? null);
    const devices = new Map(inventory.devices.map((device) => [device.id, device]));
    for (const { decision, outcomes: now } of enforcements) {
      const key = decisionKey(decision);
      const isNew = decided.get(decision.device) !== key;
      if (isNew) note({ kind: 'decided', decision });
      decided.set(decision.device, key);
      const said = JSON.stringify(now.map((outcome) => [outcome.property, outcome.status]));
      if (isNew || (outcomes.get(decision.device) ?? said) !== said) {
        note({ kind: 'enforced', device: decision.device, outcomes: now });
      }
      outcomes.set(decision.device, said);
      // What was put right is told again if it comes again; what cannot be put right is told once.
      const device = devices.get(decision.device);
      if (device === undefined || contradictions(device, decision).length === 0) {
        responder.clear(decision.device, ['driver-violation', 'feature-violation']);
      }
    }
  }

  async function persist(): Promise<void> {
    const atBoot = origins.boot;
    if (atBoot !== undefined && atBoot.size !== bootSaved) {
      const problem = await saveBootDevices(files, atBoot);
      bootSaved = problem === null ? atBoot.size : null;
      trouble('boot-devices', problem);
    }
    const complete = completeFingerprints(grants, inventory?.devices ?? []);
    if (complete !== grants) {
      const result = await write(complete);
      grants = complete;
      trouble('grants', result.run ?? result.kept);
    }
    const text = `${JSON.stringify(enforcements)}\n`;
    if (text === saved) return;
    const written = await files.save(STATE.enforcement, text, 0o640);
    saved = written.ok ? text : '';
    trouble('state', written.ok ? null : written.error);
  }

  return {
    get state() {
      return { inventory, enforcements, machine, uptime, problems: [...problems.values()], turns, found };
    },
    get holds() {
      return responder.holds;
    },
    get grants() {
      return grants;
    },
    async begin() {
      await readClock();
      const loaded = await loadGrants(files, boot);
      grants = loaded.grants;
      for (const problem of loaded.problems) note({ kind: 'policy-problem', problem });
      const atBoot = await loadBootDevices(files);
      bootSaved = atBoot?.size ?? null;
      origins = startOrigins(parts.incarnation, atBoot);
      trouble('holds-file', await responder.begin(boot, parts.earlier.decisions));
    },
    async turn(occasion, quick) {
      await readClock();
      if (conduct.advance(uptime)) {
        const because = uptime === null ? 'the clock cannot be read' : 'its time is over';
        note({ kind: 'mode-changed', mode: conduct.mode, enforcing: conduct.enforcing, because });
        // What a device does and goes on with was only told so far. What is bound was nobody's to bind or not.
        for (const { id } of inventory?.devices ?? []) {
          responder.clear(id, ['needs-reset', 'device-timeout', 'feature-violation']);
        }
      }
      const timed = endByTime(grants, uptime);
      await endGrants(timed.ended, timed.live, uptime === null ? 'the clock cannot be read' : 'its time is over');
      answered = false;
      let result = await run(occasion, conduct.enforcing && quick, true);
      if (conduct.enforcing && !quick && result.ok && !settled(result.value)) {
        const open = remains(result.value);
        // Who only asks is told what could not be done the last time; the next sweep tries it again.
        const asked = occasion.reasons.every((reason) => reason === ASKED);
        if (!asked || answered || open === null || open !== undone) {
          result = await run(occasion, true, false);
          undone = result.ok && !settled(result.value) ? open : null;
        }
      }
      // What binding showed is answered at once, and what answering showed in the next turn.
      if (result.ok && (await responder.answer(result.value.inventory, uptime ?? 0))) {
        result = await run(occasion, conduct.enforcing, false);
      }
      trouble('inventory', result.ok ? null : result.error);
      if (result.ok) {
        record(result.value);
        if (await responder.finish(enforcements)) {
          result = await run({ ...occasion, removed: new Set() }, false, true);
          if (result.ok) record(result.value);
        }
        if (turns === 0) found = found.map((one) => ({ ...one, corrected: isCorrected(one.device) }));
      }
      trouble('holds', responder.problem);
      turns++;
      await persist();
    },
    async poll() {
      if (inventory === undefined) return false;
      await readClock();
      if (uptime === null) return false;
      const connected = new Set(
        enforcements.flatMap(({ decision }) => (isConnected(decision.level) ? [decision.device] : [])),
      );
      for (const { device, status, held, header } of await readVitals(files, inventory, connected)) {
        const trouble = status === undefined ? undefined : statusTrouble(status);
        if (trouble !== undefined) {
          responder.file({ device, violation: 'needs-reset', detail: trouble, rule: ruleOf(device) });
        } else if (status !== undefined) responder.clear(device, ['needs-reset']);
        const before = headers.get(device);
        if (header !== undefined) headers.set(device, header);
        if (header !== undefined && before !== undefined && before !== header) {
          fileOnce(device, 'identity-change', `was ${before}, is ${header}, and it was never removed`);
        }
        hearSilence(device, 'vitals', held ? ['its status'] : []);
      }
      return responder.waiting || silence.undecided;
    },
    blame(device, driver) {
      const was = enforcements.find(({ decision }) => decision.device === device)?.decision;
      // It was let in when it was bound.
      if (was !== undefined && isConnected(was.level)) return;
      fileOnce(device, 'driver-violation', `bound to ${driver}, but it is denied`);
    },
    release: (device) => responder.release(device),
    async look() {
      const read = await readInventory(files);
      return read.ok ? ok(facts.complete(await origins.mark(read.value))) : read;
    },
    consider: judgeHeld,
    setGrants: replace,
    incarnation: parts.incarnation,
    knows: (device) => seenIds.has(device),
    depart(device) {
      seenIds.delete(device);
      if (leaving.size < LEAVING_LIMIT) leaving.add(device);
    },
    denies: (device) => denied.has(device),
    refusal: (device) => refused.get(device),
    nextEnd() {
      const ends = [nextEnd(grants), conduct.changesAt].filter((end) => end !== undefined);
      return ends.length === 0 ? undefined : Math.min(...ends);
    },
  };
}

/** What could not be made so, as text to be compared; `null` where somebody undid what was done. */
function remains({ enforcements, machine, inventory }: Enforced): string | null {
  const devices = new Map(inventory.devices.map((device) => [device.id, device]));
  const undoneBehindUs = enforcements.some(({ decision }) => {
    const device = devices.get(decision.device);
    return device !== undefined && contradictions(device, decision).length > 0;
  });
  if (undoneBehindUs) return null;
  const of = (outcomes: readonly Outcome[]) =>
    outcomes.flatMap(({ property, status }) => (status === 'failed' ? [property] : []));
  return JSON.stringify([of(machine), ...enforcements.map((one) => [one.decision.device, ...of(one.outcomes)])]);
}

/** Denied in both phases: a device that is bound to be looked at is not among them. */
function deniedBy(judgement: Judgement): ReadonlySet<string> {
  const after = judgement['after-bind'];
  return new Set(
    judgement['before-bind']
      .filter(({ level }, i) => !isConnected(level) && !isConnected(after[i]?.level ?? 'disconnected'))
      .map(({ device }) => device),
  );
}

/** Everything that can be made so is so. */
function settled({ enforcements, machine, inventory }: Enforced): boolean {
  const devices = new Map(inventory.devices.map((device) => [device.id, device]));
  return (
    machine.every(({ status }) => status !== 'failed') &&
    enforcements.every(({ decision, status }) => {
      const device = devices.get(decision.device);
      return status !== 'failed' && (device === undefined || contradictions(device, decision).length === 0);
    })
  );
}

function decisionKey({ level, rule, reason, detail }: Decision): string {
  return JSON.stringify([level, rule?.id ?? null, reason, detail]);
}
