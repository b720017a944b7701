/**
 * How far this machine lets a process be locked in, found by trying. Namespaces and capabilities belong to threads, and a
 * running engine has many of them, so they are taken away before it starts, by unshare(1) and setpriv(1) of util-linux.
 */
import { spawnSync } from 'node:child_process';
import { asciiText } from '@airlock/core/bytes.ts';

export type NamespaceName = 'user' | 'mount' | 'network' | 'ipc' | 'uts' | 'pid';

export interface SandboxWay {
  /** What stands before the program on the command line; empty where nothing can be done. */
  readonly prefix: readonly string[];
  readonly namespaces: readonly NamespaceName[];
  /** Why the others are missing. */
  readonly because: string;
}

const FLAGS: Readonly<Record<NamespaceName, readonly string[]>> = {
  user: ['--user', '--map-root-user'],
  mount: ['--mount'],
  network: ['--net'],
  ipc: ['--ipc'],
  uts: ['--uts'],
  // The engine becomes process 1 of its namespace, and dies with unshare.
  pid: ['--pid', '--fork', '--kill-child'],
};
/** user 0 of a user namespace gets every capability back at exec, unless none are left to get. */
const SETPRIV = ['setpriv', '--no-new-privs', '--inh-caps=-all', '--bounding-set=-all', '--'];
const SETPRIV_LESS = ['setpriv', '--no-new-privs', '--'];
const ALL: readonly NamespaceName[] = ['user', 'mount', 'network', 'ipc', 'uts', 'pid'];
const TRIAL_MILLISECONDS = 10_000;

/** `keep`: namespaces of this process that the other is to stay in (its device needs a TAP of the host's network). */
export function findSandboxWay(keep: readonly NamespaceName[] = []): SandboxWay {
  const wanted = ALL.filter((name) => !keep.includes(name));
  const withoutUser = wanted.filter((name) => name !== 'user');
  let because = '';
  for (const namespaces of process.geteuid?.() === 0 ? [wanted, withoutUser] : [wanted]) {
    const prefix = ['unshare', ...namespaces.flatMap((name) => FLAGS[name]), '--', ...SETPRIV];
    const refused = tryPrefix(prefix);
    if (refused === null) return { prefix, namespaces, because };
    because = because === '' ? refused : because;
  }
  for (const prefix of [SETPRIV, SETPRIV_LESS]) {
    if (tryPrefix(prefix) === null) return { prefix, namespaces: [], because };
  }
  return { prefix: [], namespaces: [], because };
}

/** Why it does not work here; null when it does. */
function tryPrefix(prefix: readonly string[]): string | null {
  const [program = '', ...rest] = prefix;
  const tried = spawnSync(program, [...rest, process.execPath, '--version'], {
    timeout: TRIAL_MILLISECONDS,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  if (tried.error !== undefined) {
    const absent = 'code' in tried.error && tried.error.code === 'ENOENT';
    return absent ? `${program} (util-linux) is not installed` : `${program}: ${tried.error.message}`;
  }
  if (tried.status === 0) return null;
  const [line = ''] = tried.stderr.toString('latin1').split('\n');
  return asciiText(tried.stderr.subarray(0, Math.min(line.length, 200))) || `${program} failed`;
}
