/**
 * What a requester does, as a coroutine of bytes: it yields what is to be sent and is resumed with what came back. It
 * does no I/O and keeps no time; whoever drives it does both, and may end it at any moment with `return`.
 */
import { fail, type Result } from '@airlock/core/result.ts';

export type Step =
  /** Send these bytes, give back the next message; it should be there within so many milliseconds. */
  | { readonly kind: 'send'; readonly bytes: Uint8Array; readonly within: number }
  /** Do nothing for so long; what is given back is ignored. */
  | { readonly kind: 'wait'; readonly milliseconds: number };

export type Procedure<T> = Generator<Step, Result<T>, Uint8Array>;

/** Runs a procedure against something that answers at once; waits are skipped. For tests, and for answers from memory. */
export function runAtOnce<T>(procedure: Procedure<T>, answer: (bytes: Uint8Array) => Uint8Array): Result<T> {
  const nothing = new Uint8Array();
  let next = procedure.next();
  while (!next.done) next = procedure.next(next.value.kind === 'send' ? answer(next.value.bytes) : nothing);
  return next.value;
}

/** The hands of a procedure: both may fail by throwing nothing but their own Result. */
export interface Link {
  /** Sends one message of the binding and gives the next one; fails when there is none within the time. */
  exchange(bytes: Uint8Array, within: number): Promise<Result<Uint8Array>>;
  wait(milliseconds: number): Promise<void>;
}

/** Runs a procedure over a link; what the link fails with ends it. */
export async function drive<T>(procedure: Procedure<T>, link: Link): Promise<Result<T>> {
  const nothing = new Uint8Array();
  let next = procedure.next();
  while (!next.done) {
    if (next.value.kind === 'wait') {
      await link.wait(next.value.milliseconds);
      next = procedure.next(nothing);
      continue;
    }
    const answer = await link.exchange(next.value.bytes, next.value.within);
    if (!answer.ok) {
      procedure.return(answer);
      return answer;
    }
    next = procedure.next(answer.value);
  }
  return next.value;
}

/**
 * The same link for so many milliseconds from now on, whatever the other side promises: each answer is bounded by itself,
 * and a device that answers late or little at a time could go on for days. `now` is in milliseconds that only grow. Code:
 * `link-timeout`.
 */
export function limitTime(link: Link, milliseconds: number, now: () => number): Link {
  const end = now() + milliseconds;
  return {
    exchange: async (bytes, within) => {
      const left = end - now();
      return left > 0
        ? link.exchange(bytes, Math.min(within, left))
        : fail('link-timeout', `the whole exchange took more than ${Math.round(milliseconds / 1000)} s`);
    },
    wait: (time) => link.wait(Math.max(0, Math.min(time, end - now()))),
  };
}
