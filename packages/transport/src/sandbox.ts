/**
 * Closes the sandbox around this process, after it has loaded and opened all that it will ever need, and before it reads a
 * byte of a peer. Each layer is then looked at or tried from within: what the report calls enforced was seen to hold.
 *
 * The process should have been started by `spawnSandboxed`; without that only what a running process can do to itself is
 * left: no privileges through programs, fewer system calls.
 */
import { closeSync, fstatSync, openSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import type { OutcomeStatus } from '@airlock/core/plan.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { openChannel, type SandboxChannel } from './sandbox-channel.ts';
import { NAMESPACE_FILES, namespacesOf, type SandboxIntroduction } from './sandbox-spawn.ts';
import type { NamespaceName } from './sandbox-way.ts';
import { type FilterOptions, type Machine, seccompProgram } from './seccomp-filter.ts';
import {
  PR_GET_DUMPABLE,
  PR_SET_DUMPABLE,
  PR_SET_NO_NEW_PRIVS,
  RLIMIT_CORE,
  SECCOMP_FILTER_FLAG_TSYNC,
  SECCOMP_SET_MODE_FILTER,
} from './sys/confinement.ts';
import { AT_EMPTY_PATH, STATX_SIZE } from './sys/directories.ts';
import type { Memory } from './sys/libc.ts';
import { AF_INET, AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM } from './sys/sockets.ts';
import { putUint64, type SystemCalls } from './system-calls.ts';

export type LayerName =
  | 'user'
  | 'network'
  | 'ipc'
  | 'uts'
  | 'pid'
  | 'root'
  | 'privileges'
  | 'capabilities'
  | 'system-calls'
  | 'core-dumps'
  | 'descriptors';

export interface SandboxLayer {
  readonly layer: LayerName;
  readonly status: OutcomeStatus;
  /** What holds, or why it does not; for people. */
  readonly detail: string;
}

export interface SandboxReport {
  readonly layers: readonly SandboxLayer[];
}

/** What the device still has to do once it is closed in. */
export type SandboxOptions = FilterOptions;

/** Of statx(2). */
const STATX_INO = 0x100;

const enforced = (layer: LayerName, detail: string): SandboxLayer => ({ layer, status: 'enforced', detail });
const failed = (layer: LayerName, detail: string): SandboxLayer => ({ layer, status: 'failed', detail });
const missing = (layer: LayerName, detail: string): SandboxLayer => ({ layer, status: 'not-enforceable', detail });

/**
 * Once, late in the start. The working directory is the root afterwards. What `failed` was possible here and did not come
 * about: do not serve then. Code: `sandbox-handshake`.
 */
export function enterSandbox(calls: SystemCalls, options: SandboxOptions): Result<SandboxReport> {
  const opened = openChannel(calls);
  if (!opened.ok) return opened;
  const channel = opened.value;
  const introduction = channel === null ? null : introductionOf(channel);
  if (introduction !== null && !introduction.ok) {
    channel?.close();
    return introduction;
  }
  const layers = namespaceLayers(introduction?.value ?? null);
  layers.push(limitCores(calls), closePrivileges(calls), filterCalls(calls, options));
  const threads = readThreads();
  layers.push(capabilityLayer(threads));
  const descriptors = openDescriptors(channel?.fd ?? -1);
  process.chdir('/');
  const root = emptyRoot(channel, introduction?.value ?? null);
  // What is around a folder is cut off with the old root.
  layers.push(descriptorLayer(calls, descriptors), root);
  channel?.close();
  // Last: it takes /proc/self from whoever empties the root.
  calls.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  return ok({ layers: layers.map((layer) => confirm(calls, options, threads, layer)) });
}

function introductionOf(channel: SandboxChannel): Result<SandboxIntroduction> {
  const line = channel.read();
  if (line === null) return fail('sandbox-handshake', 'the process that started this one says nothing');
  try {
    return ok(JSON.parse(line) as SandboxIntroduction);
  } catch {
    return fail('sandbox-handshake', 'the process that started this one does not say who it is');
  }
}

const NOT_SPAWNED = 'this process was not started to be locked in';

function namespaceLayers(introduction: SandboxIntroduction | null): SandboxLayer[] {
  const inside = namespacesOf('self');
  const layer = (name: Exclude<NamespaceName, 'mount'>): SandboxLayer => {
    if (introduction === null) return missing(name, NOT_SPAWNED);
    if (introduction.kept.includes(name)) return missing(name, 'the device needs that of the host');
    if (!introduction.namespaces.includes(name)) return missing(name, introduction.because || 'not supported here');
    const file = NAMESPACE_FILES[name];
    const [mine, outside] = [inside[file], introduction.outside[file]];
    if (mine === undefined || outside === undefined) return failed(name, `/proc/self/ns/${file} cannot be read`);
    if (mine === outside) return failed(name, `still in ${mine}, that of the process that started this one`);
    if (name !== 'user') return enforced(name, `a namespace of its own, ${mine}`);
    const who = introduction.uid === 0 ? 'root outside; start it as another user' : `user ${introduction.uid} outside`;
    return enforced(name, `a namespace of its own, ${mine}; ${who}`);
  };
  return (['user', 'network', 'ipc', 'uts', 'pid'] as const).map(layer);
}

function limitCores(calls: SystemCalls): SandboxLayer {
  const memory = calls.allocate(16);
  const status = calls.setrlimit(RLIMIT_CORE, memory.address);
  if (status < 0) return failed('core-dumps', `setrlimit: ${calls.errnoName(-status)}`);
  return enforced('core-dumps', 'no memory of this process goes to a file, and no other process may read it');
}

function closePrivileges(calls: SystemCalls): SandboxLayer {
  const status = calls.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (status < 0) return missing('privileges', `prctl(PR_SET_NO_NEW_PRIVS): ${calls.errnoName(-status)}`);
  return enforced('privileges', 'no program that it runs could give it any');
}

function filterCalls(calls: SystemCalls, options: SandboxOptions): SandboxLayer {
  const machine: Machine | null = process.arch === 'x64' || process.arch === 'arm64' ? process.arch : null;
  if (machine === null) return missing('system-calls', `their numbers on ${process.arch} are not known to us`);
  const program = seccompProgram(machine, options);
  // struct sock_fprog, and the program behind it.
  const memory = calls.allocate(16 + program.length);
  memory.view.setUint16(0, program.length / 8, true);
  putUint64(memory.view, 8, memory.address + 16);
  memory.bytes.set(program, 16);
  const status = calls.seccomp(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, memory.address);
  if (status < 0) return missing('system-calls', `seccomp: ${calls.errnoName(-status)}`);
  if (status > 0) return failed('system-calls', `seccomp: thread ${status} has a filter of its own`);
  const sockets = options.unixSockets ? 'no sockets but Unix ones' : 'no new sockets';
  return enforced('system-calls', `no programs, ${sockets}, no mounts, namespaces, keys or other processes`);
}

interface ThreadStatus {
  readonly capabilities: string;
  readonly noNewPrivileges: boolean;
  readonly filtered: boolean;
}

/** Of every thread; null where /proc does not tell. */
function readThreads(): readonly ThreadStatus[] | null {
  try {
    return readdirSync('/proc/self/task').map((id) => {
      const text = readFileSync(`/proc/self/task/${id}/status`, 'latin1');
      const value = (key: string): string => new RegExp(`^${key}:\\s*(\\w+)$`, 'm').exec(text)?.[1] ?? '?';
      return {
        // Permitted, effective, bounding, ambient: what it has, and what it could come to have.
        capabilities: ['CapPrm', 'CapEff', 'CapBnd', 'CapAmb'].map(value).join(' '),
        noNewPrivileges: value('NoNewPrivs') === '1',
        filtered: value('Seccomp') === '2',
      };
    });
  } catch {
    return null;
  }
}

function capabilityLayer(threads: readonly ThreadStatus[] | null): SandboxLayer {
  if (threads === null || threads.length === 0) return failed('capabilities', '/proc/self/task cannot be read');
  const holding = threads.filter(({ capabilities }) => /[^0 ]/.test(capabilities.split(' ').slice(0, 2).join('')));
  if (holding.length > 0) {
    return missing('capabilities', `${holding.length} of ${threads.length} threads have some; ${NOT_SPAWNED}`);
  }
  return enforced('capabilities', `none, in ${threads.length} threads`);
}

interface OpenDescriptors {
  readonly count: number;
  readonly folders: readonly { readonly fd: number; readonly path: string }[];
}

function openDescriptors(channel: number): OpenDescriptors {
  const folders: { fd: number; path: string }[] = [];
  let count = 0;
  for (const name of readdirSync('/proc/self/fd')) {
    const fd = Number(name);
    try {
      if (fd === channel) continue;
      if (fstatSync(fd).isDirectory()) folders.push({ fd, path: readlinkSync(`/proc/self/fd/${name}`) });
      count++;
    } catch {
      // That of the listing itself, which is closed by now.
    }
  }
  return { count, folders };
}

/** Whatever is open stays usable: a folder leads to all that is around it, unless it is the top of its own mount. */
function descriptorLayer(calls: SystemCalls, { count, folders }: OpenDescriptors): SandboxLayer {
  if (folders.length === 0) return enforced('descriptors', `${count} are open, none of them a folder`);
  const named = (some: OpenDescriptors['folders']): string =>
    some
      .map(({ fd, path }) => `${fd} (${path})`)
      .join(', ')
      .slice(0, 300);
  const status = calls.allocate(STATX_SIZE);
  const leading = folders.filter(({ fd }) => !isTop(calls, fd, status));
  if (leading.length === 0)
    return enforced('descriptors', `${count} are open, and no folder leads out: ${named(folders)}`);
  return missing('descriptors', `folders are open, and from them their surroundings: ${named(leading)}`);
}

/** Does `..` lead nowhere from it? */
function isTop(calls: SystemCalls, fd: number, status: Memory): boolean {
  const identity = (path: string): string | null => {
    const found = calls.statx(fd, Buffer.from(`${path}\0`), AT_EMPTY_PATH, STATX_INO, status.address);
    if (found < 0) return null;
    // Inode number, and the device that it is of.
    return `${status.view.getBigUint64(32, true)} ${status.view.getBigUint64(136, true)}`;
  };
  const own = identity('');
  return own !== null && own === identity('..');
}

function emptyRoot(channel: SandboxChannel | null, introduction: SandboxIntroduction | null): SandboxLayer {
  if (channel === null || introduction === null) return missing('root', NOT_SPAWNED);
  if (!introduction.namespaces.includes('mount')) return missing('root', introduction.because || 'not supported here');
  channel.write('empty-root');
  const line = channel.read();
  if (line === null) return failed('root', 'the process that started this one does not answer');
  let because: unknown = 'an answer that is none';
  try {
    because = Reflect.get(JSON.parse(line) as object, 'because');
  } catch {
    // Stays what it is.
  }
  if (because !== null) return failed('root', String(because));
  let names: readonly string[];
  try {
    names = readdirSync('/');
  } catch (error) {
    return failed('root', `the new root cannot be read: ${error instanceof Error ? error.message : 'failed'}`);
  }
  if (names.length > 0) return failed('root', `still there: ${names.join(' ').slice(0, 100)}`);
  for (const path of ['/x', 'x', '../x', '/proc/self/root/x']) {
    try {
      closeSync(openSync(path, 'w'));
      return failed('root', `${path} can be written`);
    } catch {
      // As it should be.
    }
  }
  return enforced('root', 'empty and read-only');
}

/** Tries what the layer is against. */
function confirm(
  calls: SystemCalls,
  options: SandboxOptions,
  threads: readonly ThreadStatus[] | null,
  layer: SandboxLayer,
): SandboxLayer {
  if (layer.status !== 'enforced') return layer;
  const denied = (status: number): boolean => status < 0 && calls.errnoName(-status) === 'EPERM';
  const every = (test: (thread: ThreadStatus) => boolean): boolean => threads?.every(test) ?? false;
  switch (layer.layer) {
    case 'privileges':
      return every(({ noNewPrivileges }) => noNewPrivileges) ? layer : failed('privileges', 'not of every thread');
    case 'core-dumps':
      return calls.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) === 0 ? layer : failed('core-dumps', 'it stays dumpable');
    case 'system-calls': {
      if (!every(({ filtered }) => filtered)) return failed('system-calls', 'not of every thread');
      const tried: Record<string, number> = {
        execve: calls.execveNothing(),
        unshare: calls.unshare(0),
        'socket(AF_INET)': calls.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0),
      };
      if (!options.unixSockets) tried['socket(AF_UNIX)'] = calls.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
      if (!options.rings) tried['io_uring_setup'] = calls.ioUringSetup(0, 0);
      const open = Object.entries(tried).find(([, status]) => !denied(status));
      return open === undefined ? layer : failed('system-calls', `${open[0]} is not denied`);
    }
    default:
      return layer;
  }
}
