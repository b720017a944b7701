/**
 * The agent: hears of changes, keeps the machine as it is decided, answers on the control socket. Everything that it
 * touches is given to it; `node-agent.ts` puts it together on a real machine.
 */
import type { Event } from '@airlock/core/event.ts';
import { ok, type Result } from '@airlock/core/result.ts';
import type { UeventSource } from '@airlock/transport/uevents.ts';
import type { Request } from './control-protocol.ts';
import type { DecisionLog } from './decision-log.ts';
import { ASKED, type KeeperParts, startKeeper } from './keeper.ts';
import { operate } from './operator.ts';
import { startSeizing } from './seize.ts';
import { deviceStatuses, grantStatuses, holdStatuses, type Status } from './status.ts';
import { type Occasion, startTurns } from './turns.ts';

export interface AgentParts extends Omit<KeeperParts, 'note' | 'seizedFrom' | 'again'> {
  readonly log: DecisionLog;
  readonly source: UeventSource;
  /** The policy's files, for status. */
  readonly policy: readonly string[];
  /** Milliseconds between turns in a storm, and between looks at everything when nothing happens. */
  readonly gap?: number;
  readonly sweep?: number;
  /** Milliseconds between looks at what changes without an event. */
  readonly poll?: number;
  /** After each turn: the agent is alive. */
  readonly alive?: () => void;
}

export interface Agent {
  /** Resolves after the first turn: what happened before the agent is corrected, and said. */
  start(): Promise<void>;
  answer(request: Exclude<Request, { verb: 'watch' }>): Promise<Result<unknown>>;
  watch(since: number | undefined, send: (event: Event) => void): () => void;
  /** One look at everything now; what it answers is read back. Codes: `agent-busy`, `agent-stopping`. */
  status(): Promise<Result<Status>>;
  /** Resolves when no device is being asked who it is; the turn that takes it in comes after. */
  asked(): Promise<void>;
  /** As of the last turn. */
  report(): Status;
  close(because: string): Promise<void>;
  /** Requests and turns that wait. */
  readonly waiting: number;
  readonly turns: number;
}

const GAP = 100;
const SWEEP = 30_000;
const POLL = 5000;
/** setTimeout's own limit. */
const LONGEST_TIMER = 2 ** 31 - 1;

export function makeAgent(parts: AgentParts): Agent {
  const { log, conduct } = parts;
  const note = (event: Parameters<DecisionLog['add']>[0]): void => void log.add(event);
  const keeper = startKeeper({
    ...parts,
    note,
    seizedFrom: (device) => seizing.boundTo(device),
    again: (because) => turns.lookAgain(because),
  });
  const seizing = startSeizing({
    hands: parts.hands,
    // Before the first look nothing is known, and everything would be seized.
    known: (device) => keeper.state.turns === 0 || keeper.knows(device),
    depart: (device) => keeper.depart(device),
    denied: (device) => keeper.denies(device),
    blame: (device, driver) => keeper.blame(device, driver),
    note,
  });
  const turns = startTurns(turn, parts.gap ?? GAP, (failure) => {
    if (!failure.ok) note({ kind: 'policy-problem', problem: failure.error });
  });
  const operator = { keeper, hands: parts.hands, conduct, note };
  let sweep: NodeJS.Timeout | undefined;
  let expiry: NodeJS.Timeout | undefined;
  let polling: NodeJS.Timeout | undefined;
  let sharedStatus: Promise<Result<Status>> | undefined;

  async function turn(occasion: Occasion): Promise<void> {
    // What came anew is acted on before it is looked at twice.
    const quick = occasion.reasons.some((reason) => reason.startsWith('add ')) || keeper.state.turns === 0;
    // What is being held is held first: the turn would read it half done.
    await seizing.rest();
    await keeper.turn(occasion, quick);
    afterTurn();
  }

  function afterTurn(): void {
    parts.alive?.();
    clearTimeout(expiry);
    const end = keeper.nextEnd();
    const now = keeper.state.uptime;
    if (end === undefined || now === null) return;
    // A hundredth of a second is what /proc/uptime can tell.
    const wait = Math.min(Math.max(end - now, 0) + 10, LONGEST_TIMER);
    expiry = setTimeout(() => turns.lookAgain('a time is over'), wait);
  }

  /** The next look is due some time after the last has ended, however long that took. */
  function pollLater(): void {
    polling = setTimeout(() => {
      void turns
        .between(async () => {
          if (await keeper.poll()) await turn({ removed: new Set(), reasons: ['poll'], count: 1 });
          return ok(undefined);
        })
        .then((polled) => {
          if (polled.ok || polled.error.code !== 'agent-stopping') pollLater();
        });
    }, parts.poll ?? POLL);
  }

  function report(): Status {
    const { inventory, enforcements, machine, uptime, problems, found } = keeper.state;
    return {
      version: 1,
      from: 'agent',
      mode: conduct.mode,
      enforcing: conduct.enforcing,
      policy: parts.policy,
      kernel: inventory?.kernel.release ?? null,
      uevents: parts.source.kind,
      devices: deviceStatuses(enforcements, inventory),
      machine,
      grants: grantStatuses(keeper.grants, inventory, uptime),
      holds: holdStatuses(keeper.holds, inventory, uptime),
      found,
      problems:
        log.lost.count === 0
          ? problems
          : [...problems, { code: 'file-io', message: `events lost: ${log.lost.because ?? 'unknown'}` }],
      lostEvents: log.lost.count,
    };
  }

  function status(): Promise<Result<Status>> {
    // Who asks while another waits for the same look gets the same answer.
    sharedStatus ??= turns.between(async () => {
      sharedStatus = undefined;
      await turn({ removed: new Set(), reasons: [ASKED], count: 1 });
      return ok(report());
    });
    const shared = sharedStatus;
    // One that was refused is not kept for the next who asks.
    void shared.then((result) => {
      if (!result.ok && sharedStatus === shared) sharedStatus = undefined;
    });
    return shared;
  }

  return {
    async start() {
      note({
        kind: 'agent-started',
        mode: conduct.mode,
        enforcing: conduct.enforcing,
        policy: parts.policy,
        uevents: parts.source.kind,
      });
      parts.source.start((notice) => {
        if (notice.kind === 'uevent') {
          if (conduct.enforcing) seizing.hear(notice.uevent);
          turns.note(notice.uevent);
        } else turns.lookAgain(notice.because);
      });
      const first = await turns.between(async () => {
        await keeper.begin();
        await turn({ removed: new Set(), reasons: ['start'], count: 1 });
        return ok(undefined);
      });
      if (!first.ok) return;
      sweep = setInterval(() => turns.lookAgain('sweep'), parts.sweep ?? SWEEP);
      pollLater();
    },
    async answer(request) {
      if (request.verb === 'status') return status();
      return turns.between(async () => {
        const result = await operate(operator, request);
        afterTurn();
        return result;
      });
    },
    watch(since, send) {
      // First what is still remembered, then what comes: nothing between is lost, since both happen in one go.
      if (since !== undefined) for (const event of log.recent()) if (event.sequence > since) send(event);
      return log.listen(send);
    },
    asked: () => keeper.asked(),
    status,
    report,
    async close(because) {
      const left = keeper.close();
      parts.source.close();
      clearInterval(sweep);
      clearTimeout(expiry);
      clearTimeout(polling);
      await turns.close();
      await left;
      clearTimeout(polling);
      await seizing.rest();
      note({ kind: 'agent-stopped', because });
      await log.flush();
    },
    get waiting() {
      return turns.waiting;
    },
    get turns() {
      return keeper.state.turns;
    },
  };
}
