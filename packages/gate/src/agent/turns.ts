/**
 * When the agent acts: one thing at a time, at once when something happens after quiet, and at most once in `gap`
 * during a storm. What happened meanwhile is remembered within bounds; beyond them it is "look at everything".
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { Uevent } from '@airlock/transport/uevent.ts';

/** What a turn answers to. */
export interface Occasion {
  /** Paths below /sys of devices that went away since the last turn. */
  readonly removed: ReadonlySet<string>;
  /** Why, in words; at most REASONS. */
  readonly reasons: readonly string[];
  /** How many notices it stands for. */
  readonly count: number;
}

export interface Turns {
  /** Takes note of an event; those of buses that carry no I/O devices are ignored. */
  note(uevent: Uevent): void;
  lookAgain(because: string): void;
  /** Runs `work` between turns, first come first served. Codes: `agent-busy`, `agent-stopping`, `agent-failed`. */
  between<T>(work: () => Promise<Result<T>>): Promise<Result<T>>;
  /** No turn begins any more; resolves when the one that runs has ended. */
  close(): Promise<void>;
  readonly waiting: number;
}

export const REMOVED_LIMIT = 256;
export const REASONS = 8;
const QUEUE_LIMIT = 64;
const SUBSYSTEMS: ReadonlySet<string> = new Set([
  'pci',
  'virtio',
  'vdpa',
  'usb',
  'platform',
  'block',
  'net',
  'nvme',
  'bus',
]);

/** `gap` in milliseconds between the end of a turn and the next; `failed` hears of turns and work that threw. */
export function startTurns(
  turn: (occasion: Occasion) => Promise<void>,
  gap: number,
  failed: (failure: Result<never>) => void,
): Turns {
  let removed = new Set<string>();
  let reasons: string[] = [];
  let count = 0;
  let scheduled = false;
  let closed = false;
  let lastEnd = Number.NEGATIVE_INFINITY;
  let timer: NodeJS.Timeout | undefined;
  let queue: Promise<unknown> = Promise.resolve();
  let waiting = 0;

  /** Whatever `work` throws is a mistake of ours: it is told, and the next in line has its turn all the same. */
  function serially<T>(work: () => Promise<Result<T>>): Promise<Result<T>> {
    waiting++;
    const result = queue.then(work).catch((error: unknown): Result<T> => {
      const failure = fail('agent-failed', error instanceof Error ? error.message : 'unexpected');
      failed(failure);
      return failure;
    });
    queue = result.finally(() => {
      waiting--;
    });
    return result;
  }

  function schedule(): void {
    if (scheduled || closed) return;
    scheduled = true;
    const wait = Math.max(0, lastEnd + gap - performance.now());
    timer = setTimeout(() => void serially(runTurn), wait);
  }

  async function runTurn(): Promise<Result<void>> {
    scheduled = false;
    if (closed) return ok(undefined);
    const occasion: Occasion = { removed, reasons, count };
    removed = new Set();
    reasons = [];
    count = 0;
    try {
      await turn(occasion);
      return ok(undefined);
    } finally {
      lastEnd = performance.now();
    }
  }

  function because(reason: string): void {
    count++;
    if (reasons.length < REASONS && !reasons.includes(reason)) reasons.push(reason);
    schedule();
  }

  return {
    note(uevent) {
      if (!SUBSYSTEMS.has(uevent.subsystem)) return;
      if (uevent.action === 'remove' && removed.size < REMOVED_LIMIT) removed.add(`/sys${uevent.devpath}`);
      because(`${uevent.action} ${uevent.devpath.slice(0, 256)}`);
    },
    lookAgain: because,
    async between(work) {
      if (closed) return fail('agent-stopping', 'the agent is ending');
      if (waiting >= QUEUE_LIMIT) return fail('agent-busy', `${waiting} requests wait already`);
      return serially(work);
    },
    async close() {
      closed = true;
      clearTimeout(timer);
      await queue;
    },
    get waiting() {
      return waiting;
    },
  };
}
