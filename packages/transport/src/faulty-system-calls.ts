/** System calls that fail when a test says so, over real ones or a fake's. */
import { constants } from 'node:os';
import type { SystemCalls } from './system-calls.ts';

export type Errno = keyof typeof constants.errno;

export interface Fault {
  /** This many calls succeed before it begins. */
  readonly after?: number;
  /** This many calls fail; without it, all from then on. */
  readonly times?: number;
  /** Only for calls with this first argument: a descriptor, mostly. */
  readonly fd?: number;
}

export interface FaultySystemCalls {
  readonly calls: SystemCalls;
  /** From now on `name` does nothing and returns this errno. Faults of one call are asked in their order. */
  fail(name: keyof SystemCalls, errno: Errno, fault?: Fault): void;
  /** From now on `name`, a call that moves bytes (read, write, pread, pwrite), moves at most so many. */
  shorten(name: 'read' | 'write' | 'pread' | 'pwrite', bytes: number, fault?: Fault): void;
  /** Takes all faults back. */
  heal(): void;
  /** How often `name` was called, failed or not. */
  count(name: keyof SystemCalls): number;
}

interface Rule {
  readonly name: string;
  readonly fault: Fault;
  readonly errno: number;
  readonly most: number;
  seen: number;
}

type AnyCall = (...args: unknown[]) => unknown;

export function faultySystemCalls(over: SystemCalls): FaultySystemCalls {
  let rules: Rule[] = [];
  const counts = new Map<string, number>();

  /** The rule that holds for this call, each counting the calls that it is about. */
  function ruleFor(name: string, args: readonly unknown[]): Rule | undefined {
    let found: Rule | undefined;
    for (const rule of rules) {
      if (rule.name !== name || (rule.fault.fd !== undefined && rule.fault.fd !== args[0])) continue;
      const turn = rule.seen++ - (rule.fault.after ?? 0);
      if (found === undefined && turn >= 0 && turn < (rule.fault.times ?? Number.POSITIVE_INFINITY)) found = rule;
    }
    return found;
  }

  const calls = new Proxy(over, {
    get(target, key) {
      const real: unknown = Reflect.get(target, key);
      if (typeof key !== 'string' || typeof real !== 'function') return real;
      return (...args: unknown[]): unknown => {
        counts.set(key, (counts.get(key) ?? 0) + 1);
        const rule = ruleFor(key, args);
        if (rule === undefined) return (real as AnyCall)(...args);
        if (rule.errno !== 0) return -rule.errno;
        const [fd, address, length, ...rest] = args;
        return (real as AnyCall)(fd, address, Math.min(Number(length), rule.most), ...rest);
      };
    },
  });
  return {
    calls,
    fail(name, errno, fault = {}) {
      rules.push({ name, fault, errno: constants.errno[errno], most: 0, seen: 0 });
    },
    shorten(name, bytes, fault = {}) {
      rules.push({ name, fault, errno: 0, most: bytes, seen: 0 });
    },
    heal() {
      rules = [];
    },
    count: (name) => counts.get(name) ?? 0,
  };
}
