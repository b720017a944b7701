/**
 * Keeps the machine as it is decided: one turn reads everything, says what changed and what was done behind our back,
 * and (when it enforces) makes it right and reads it back. Turns never overlap; `turns.ts` says when they run.
 */
import type { Decision } from '@airlock/core/decision.ts';
import type { Device, Inventory } from '@airlock/core/device.ts';
import type { EventBody } from '@airlock/core/event.ts';
import { isConnected } from '@airlock/core/level.ts';
import type { Enforcement, Outcome } from '@airlock/core/plan.ts';
import { ok, type Problem, type Result } from '@airlock/core/result.ts';
import { readInventory } from '@airlock/linux/inventory.ts';
import type { Grant } from '@airlock/policy/grant.ts';
import type { Policy } from '@airlock/policy/policy.ts';
import type { Hands } from '../apply.ts';
import { type Enforced, enforce } from '../enforce.ts';
import { startOrigins } from '../origin.ts';
import { startAccount } from './account.ts';
import { type Attestation, startAttester } from './attester.ts';
import { loadBootDevices, saveBootDevices } from './boot-devices.ts';
import { changesBetween } from './changes.ts';
import { readBootTime } from './clock.ts';
import type { Conduct } from './conduct.ts';
import type { Earlier } from './earlier.ts';
import { loadGrants, saveGrants, savePermanentGrants } from './grant-store.ts';
import { completeFingerprints, endByDeparture, endByTime, type GrantRecord, nextEnd } from './grants.ts';
import type { Judge, Judgement } from './judge.ts';
import { knownFacts } from './known-facts.ts';
import { loadProofs, saveProofs } from './proof-store.ts';
import { remains, settled } from './remains.ts';
import { unanswered } from './respond.ts';
import { type Responder, startResponder } from './responder.ts';
import { STATE } from './state.ts';
import type { Found } from './status.ts';
import type { Occasion } from './turns.ts';
import { type LastTurn, startWitness } from './witness.ts';

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
  /** How devices are asked who they are; not given: nobody is asked. */
  readonly attestation?: Attestation | undefined;
  /** A turn is wanted. */
  readonly again?: (because: string) => void;
  /** The driver that was taken off a device before anybody looked at it, told once. */
  readonly seizedFrom?: (device: string) => string | undefined;
}

export interface KeeperState extends LastTurn {
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
  /** Resolves when no device is being asked who it is. */
  asked(): Promise<void>;
  /** Asks nobody any more; resolves when those that were being asked are left alone. */
  close(): Promise<void>;
  /** Milliseconds since boot of the next end of a grant, or of learning. */
  nextEnd(): number | undefined;
}

/** The reason of a turn that an operator's question sets off. */
export const ASKED = 'status';

/** More than this during one look: the turn that follows sees what is there. */
const LEAVING_LIMIT = 4096;

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
  /** Which coming of each device the latest look saw, and where. */
  let comings = new Map<string, { readonly device: Device; readonly incarnation: string | undefined }>();
  /** Devices that went away while a look is taken, which may still show them. */
  let leaving = new Set<string>();
  let origins = startOrigins(parts.incarnation, undefined);
  let denied: ReadonlySet<string> = new Set();
  const problems = new Map<string, Problem>();
  /** What stayed undone when it was last tried. */
  let undone: string | null = null;
  /** Was something done about an offence in this turn? */
  let answered = false;
  const refused = new Map<string, Decision>();
  const facts = knownFacts(parts.earlier.decisions);
  const responder = startResponder({
    ...parts,
    anew(device) {
      refused.delete(device);
      for (const memory of [facts, witness]) memory.forget(device);
      attester?.forget(device);
    },
  });
  const again = parts.again ?? (() => undefined);
  const { attestation, incarnation } = parts;
  const attester = attestation && startAttester(attestation, { incarnation, note, again });
  let proofsSaved = '';
  const account = startAccount(parts.earlier.decisions, note);
  const witness = startWitness({
    ...parts,
    files,
    responder,
    refused,
    last: () => ({ inventory, enforcements, machine, uptime }),
    changed: (device) => attester?.forget(device),
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
    const { gone, changed, incarnations } = await witness.follow(now, occasion.removed);
    for (const id of gone) {
      refused.delete(id);
      for (const memory of [account, facts, witness, responder]) memory.forget(id);
    }
    const changes = inventory === undefined ? parts.earlier.changes(now) : changesBetween(inventory, now);
    for (const change of changes) note(change);
    witness.accuseChanged(changed);

    if (grants.some(({ kind }) => kind === 'once')) {
      // Before the first look nothing is known to have left: a device that is absent then has.
      if (inventory === undefined) {
        const present = new Set(now.devices.map(({ id }) => id));
        for (const { device } of grants) if (!present.has(device)) gone.add(device);
      }
      const { live, ended } = endByDeparture(grants, gone, incarnations);
      await endGrants(ended, live, 'the device went away');
    }
  }

  async function readComings({ devices }: Inventory): Promise<typeof comings> {
    const read = new Map<string, { readonly device: Device; readonly incarnation: string | undefined }>();
    for (const device of devices) read.set(device.id, { device, incarnation: await parts.incarnation(device) });
    return read;
  }

  async function stands(id: string): Promise<boolean> {
    const seen = comings.get(id);
    if (seen?.incarnation === undefined) return false;
    return (await parts.incarnation(seen.device)) === seen.incarnation;
  }

  function isKeptOut(device: string): boolean {
    return responder.holds.some((one) => one.device === device);
  }

  async function judgeHeld(seen: Inventory, live: readonly Grant[]): Promise<Judgement> {
    const judgement = await judge(seen, live, attester?.claims);
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
      stands,
      wait: parts.wait,
      refused,
      disableModules: parts.disableModules,
      note: (event) => {
        if (event.kind === 'step') account.tellStep(event, turns === 0);
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
          // Before anything is decided: who comes in a device's place from here on is not let in on its decision.
          if (act) comings = await readComings(read.value);
          if (fresh) await notice(read.value, occasion);
          const seen = facts.complete(await origins.mark(read.value));
          // Asking writes to the device: who only watches does not.
          const fallen = conduct.enforcing ? await attester?.follow(seen, isKeptOut) : undefined;
          for (const one of fallen ?? []) witness.accuseFallen(one);
          const judgement = await judgeHeld(seen, grants);
          judgements.set(seen, judgement);
          denied = deniedBy(judgement);
          if (fresh) witness.accuse(seen, judgement);
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

  function record(result: Enforced): void {
    inventory = result.inventory;
    enforcements = result.enforcements;
    machine = [...result.machine, ...unanswered(parts.on)];
    for (const [device, decision] of result.refused) refused.set(device, decision);
    trouble('enforcement', result.problems[0] ?? null);
    for (const enforcement of enforcements) account.tellEnforcement(enforcement);
    witness.acquit(inventory, enforcements);
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
    await keepProofs();
    const text = `${JSON.stringify(enforcements)}\n`;
    if (text === saved) return;
    const written = await files.save(STATE.enforcement, text, 0o640);
    saved = written.ok ? text : '';
    trouble('state', written.ok ? null : written.error);
  }

  async function keepProofs(): Promise<void> {
    if (attester === undefined || !conduct.enforcing) return;
    const { proofs } = attester;
    const key = JSON.stringify(proofs);
    if (key === proofsSaved || (proofsSaved === '' && proofs.length === 0)) return;
    const written = await saveProofs(files, proofs, boot);
    proofsSaved = written.ok ? key : proofsSaved;
    trouble('proofs', written.ok ? null : written.error);
  }

  return {
    get state() {
      const { found } = witness;
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
      const proofs = attester === undefined ? [] : await loadProofs(files, boot);
      attester?.inherit(proofs);
      // What is not shown anew is not written down once more.
      proofsSaved = proofs.length === 0 ? '' : 'inherited';
    },
    async turn(occasion, quick) {
      await readClock();
      // What a device failed on is judged anew with what else it proved, or failed to: not whenever it proves the same.
      for (const device of attester?.take() ?? []) refused.delete(device);
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
        if (turns === 0) witness.closeFound();
      }
      trouble('holds', responder.problem);
      turns++;
      await persist();
    },
    async poll() {
      if (inventory === undefined) return false;
      await readClock();
      if (uptime === null) return false;
      await witness.poll(inventory);
      return responder.waiting || witness.undecided;
    },
    blame: (device, driver) => witness.blame(device, driver),
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
    asked: async () => attester?.idle(),
    close: async () => attester?.close(),
    nextEnd() {
      const ends = [nextEnd(grants), conduct.changesAt].filter((end) => end !== undefined);
      return ends.length === 0 ? undefined : Math.min(...ends);
    },
  };
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
