/**
 * Starts a program of ours in namespaces of its own, without capabilities, and empties its file system when it asks for
 * that (`enterSandbox`). That cannot be done from within: by then it has no capability to mount anything, and no thread of
 * it ever had one. So a program enters its namespaces from here, does it, and is gone.
 */
import { type ChildProcess, execFile, type StdioOptions, spawn } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Duplex } from 'node:stream';
import { findSandboxWay, type NamespaceName, type SandboxWay } from './sandbox-way.ts';

export interface SpawnOptions {
  readonly stdio: readonly ('inherit' | 'ignore' | 'pipe' | number)[];
  /** Namespaces of this process to stay in. */
  readonly keep?: readonly NamespaceName[];
  /**
   * Folders (absolute) that the program holds open when it is closed in. Each becomes a mount of its own, so that what
   * is around a folder cannot be reached from it.
   */
  readonly folders?: readonly string[];
}

/**
 * Between unshare(1), which has just made the mount namespace, and setpriv(1), which takes the right to mount. A folder
 * that cannot be mounted is found out by `enterSandbox`.
 */
const MOUNT_FOLDERS = [
  ...[
    'sh',
    '-c',
    'n=$1; shift; while [ "$n" -gt 0 ]; do mount --rbind -- "$1" "$1" 2>/dev/null; shift; n=$((n - 1)); done; exec "$@"',
  ],
  'sh',
];

/** What the started process is told first; `enterSandbox` compares. */
export interface SandboxIntroduction {
  /** Of this process: `net` → `net:[4026531840]`. */
  readonly outside: Readonly<Record<string, string>>;
  readonly namespaces: readonly NamespaceName[];
  readonly kept: readonly NamespaceName[];
  readonly because: string;
  readonly uid: number;
}

/** Holds the number of the descriptor on which both talk. */
export const CHANNEL_VARIABLE = 'AIRLOCK_SANDBOX_CHANNEL';
export const NAMESPACE_FILES: Readonly<Record<NamespaceName, string>> = {
  user: 'user',
  mount: 'mnt',
  network: 'net',
  ipc: 'ipc',
  uts: 'uts',
  pid: 'pid',
};
const EMPTYING_MILLISECONDS = 20_000;

/**
 * Runs `node script args` as locked in as this machine permits. It gets one descriptor more than `stdio` names. The child
 * is unshare(1): killing it kills the program, its exit code is the program's.
 */
export function spawnSandboxed(script: string, args: readonly string[], options: SpawnOptions): ChildProcess {
  const kept = options.keep ?? [];
  const way = findSandboxWay(kept);
  const channel = options.stdio.length;
  const [program = '', ...rest] = [...prefixOf(way, options.folders ?? []), process.execPath, script, ...args];
  const stdio: StdioOptions = [...options.stdio, 'pipe'];
  const child = spawn(program, rest, { stdio, env: { ...process.env, [CHANNEL_VARIABLE]: String(channel) } });
  const stream = child.stdio[channel] as Duplex | undefined;
  if (stream === undefined) return child;
  // It may die at any time; whoever waits for the child learns of that.
  stream.on('error', () => undefined);
  const introduction: SandboxIntroduction = {
    outside: namespacesOf('self'),
    namespaces: way.namespaces,
    kept,
    because: way.because,
    uid: process.geteuid?.() ?? -1,
  };
  stream.write(`${JSON.stringify(introduction)}\n`);
  const lines = createInterface({ input: stream });
  lines.on('error', () => undefined);
  lines.on('line', (line) => {
    if (line !== 'empty-root') return;
    emptyRoot(child, way, (because) => stream.write(`${JSON.stringify({ because })}\n`));
  });
  return child;
}

function prefixOf(way: SandboxWay, folders: readonly string[]): readonly string[] {
  if (folders.length === 0 || !way.namespaces.includes('mount')) return way.prefix;
  const at = way.prefix.indexOf('--') + 1;
  const mounts = [...MOUNT_FOLDERS, String(folders.length), ...folders];
  return [...way.prefix.slice(0, at), ...mounts, ...way.prefix.slice(at)];
}

/** Links of /proc/PID/ns; what cannot be read is missing. */
export function namespacesOf(pid: string): Record<string, string> {
  const found: Record<string, string> = {};
  for (const name of Object.values(NAMESPACE_FILES)) {
    try {
      found[name] = readlinkSync(`/proc/${pid}/ns/${name}`);
    } catch {
      // Not built into this kernel, or not ours to look at.
    }
  }
  return found;
}

/** Calls back with null when it is done, or with the reason why not. */
function emptyRoot(child: ChildProcess, way: SandboxWay, done: (because: string | null) => void): void {
  const pid = child.pid === undefined ? null : way.namespaces.includes('pid') ? childOf(child.pid) : child.pid;
  if (pid === null) {
    done('its process was not found');
    return;
  }
  const [inside, outside] = [namespacesOf(String(pid))['mnt'], namespacesOf('self')['mnt']];
  if (inside === undefined || outside === undefined) {
    done('its mount namespace cannot be looked at');
    return;
  }
  const user = way.namespaces.includes('user') ? ['--user', '--preserve-credentials'] : [];
  const program = [process.execPath, join(import.meta.dirname, 'empty-root.ts'), inside, outside];
  const args = [`--target=${pid}`, ...user, '--mount', '--', ...program];
  execFile('nsenter', args, { timeout: EMPTYING_MILLISECONDS, encoding: 'latin1' }, (error, _out, diagnostics) => {
    const [line = ''] = diagnostics.split('\n');
    done(error === null ? null : line.replaceAll(/[^\x20-\x7e]/g, '.').slice(0, 200) || error.message.slice(0, 200));
  });
}

/** The one child of a process; null where there is none or not one. */
function childOf(pid: number): number | null {
  const children: number[] = [];
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      // pid (name) state ppid; the name may hold anything, also brackets.
      const status = readFileSync(`/proc/${name}/stat`, 'latin1');
      const parent = status.slice(status.lastIndexOf(')') + 2).split(' ')[1];
      if (Number(parent) === pid) children.push(Number(name));
    } catch {
      // Gone meanwhile.
    }
  }
  return children.length === 1 ? (children[0] ?? null) : null;
}
