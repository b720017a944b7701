/**
 * Calls that the kernel does not end. Each holds a thread of a small pool for as long as its device wishes, so that a few
 * mute devices could take them all, and with them the sight of every other device: what is held is not begun again, and
 * of one kind of call only so many are held.
 */

export interface HeldCalls {
  /** Why this call must not begin now: `again` (it is held itself), `crowd` (too many of its kind are); undefined when it may. */
  refuse(kind: string, key: string): 'again' | 'crowd' | undefined;
  /** A call that was given up counts from now until `ended`, whatever that becomes. */
  hold(kind: string, key: string, ended: Promise<unknown>): void;
}

/** At most `limit` calls of one kind are held before others of that kind are refused. */
export function heldCalls(limit: number): HeldCalls {
  const kinds = new Map<string, Map<string, number>>();
  return {
    refuse(kind, key) {
      const held = kinds.get(kind);
      if (held?.has(key) === true) return 'again';
      return held !== undefined && held.size >= limit ? 'crowd' : undefined;
    },
    hold(kind, key, ended) {
      const held = kinds.get(kind) ?? new Map<string, number>();
      kinds.set(kind, held);
      held.set(key, (held.get(key) ?? 0) + 1);
      const end = () => {
        const left = (held.get(key) ?? 1) - 1;
        if (left > 0) held.set(key, left);
        else held.delete(key);
        if (held.size === 0 && kinds.get(kind) === held) kinds.delete(kind);
      };
      ended.then(end, end);
    },
  };
}
