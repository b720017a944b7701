/**
 * Whether the agent acts now, and why not. One value that all its parts read: learning ends while it runs, and what was
 * only watched until then is enforced from then on.
 */
import { learningEnds, modeAt } from '@airlock/policy/mode.ts';
import type { Mode } from '@airlock/policy/policy.ts';
import { formatDuration } from './duration.ts';

export interface Conduct {
  readonly mode: Mode;
  /** False: nothing is changed on the machine, only looked at and said. */
  readonly enforcing: boolean;
  /** Why nothing is changed, where that is so. */
  readonly whyNot: string;
  /** Milliseconds since boot at which the mode changes; undefined when it stays. */
  readonly changesAt: number | undefined;
  /** It is that late now (milliseconds since boot, null when no clock can be read). True where that changed the mode. */
  advance(uptime: number | null): boolean;
}

export interface Asked {
  readonly mode: Mode;
  /** Seconds since boot; for `learn`. */
  readonly learnFor?: number;
  /** May the agent change the machine at all? */
  readonly enforce: boolean;
}

/** Without a clock learning is over: nothing could end it. Once over it stays over. */
export function conductAs(asked: Asked, uptime: number | null): Conduct {
  const at = (now: number | null) => modeAt(asked, now === null ? Number.NaN : now / 1000);
  const ends = learningEnds(asked);
  let mode = at(uptime);
  return {
    get mode() {
      return mode;
    },
    get enforcing() {
      return asked.enforce && mode === 'enforce';
    },
    get whyNot() {
      if (!asked.enforce) return 'the agent was started without --enforce: it only watches';
      const until = mode === 'learn' && ends !== undefined ? ` until ${formatDuration(ends * 1000)} after boot` : '';
      return `the policy's mode is ${mode}${until}: the agent only watches`;
    },
    get changesAt() {
      return mode === 'learn' && ends !== undefined ? ends * 1000 : undefined;
    },
    advance(now) {
      const before = mode;
      if (mode === 'learn') mode = at(now);
      return mode !== before;
    },
  };
}
