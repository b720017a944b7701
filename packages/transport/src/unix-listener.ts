/** A listening Unix socket that takes nobody's place, and that no shortage of descriptors makes spin. unix(7). */
import { lstatSync, unlinkSync } from 'node:fs';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { F_DUPFD_CLOEXEC } from './sys/files.ts';
import { SOCK_CLOEXEC, SOCK_NONBLOCK } from './sys/sockets.ts';
import { callFailed } from './system-calls.ts';
import { addressOf, connectUnix, openSocket, pathInvalid, type UnixCalls, type UnixSocketType } from './unix-socket.ts';

export interface UnixListener {
  readonly fd: number;
  readonly path: string;
  /**
   * The next connection, close-on-exec; `null` when nobody waits. When this process has no descriptor left, the waiting
   * connection is closed (a listener that cannot accept would report readiness for ever).
   * Codes: `system-call-failed`, `descriptors-exhausted`.
   */
  accept(): Result<number | null>;
  /** Ends listening, and removes the socket from the file system if it is still this one. */
  close(): void;
}

/**
 * Listens at `path`, with mode 0600. A socket that is there already is replaced only when nobody listens on it; anything
 * else (a file, a link, a socket in use) stays. The folder must not be writable for others, or they can put theirs there.
 * Codes: `socket-path-invalid`, `socket-path-taken`, `system-call-failed`.
 */
export function listenUnix(calls: UnixCalls, path: string, type: UnixSocketType = 'stream'): Result<UnixListener> {
  const address = addressOf(path);
  if (address === null) return pathInvalid(path);
  const cleared = removeDeadSocket(calls, path, type);
  if (!cleared.ok) return cleared;
  const opened = openSocket(calls, type);
  if (!opened.ok) return opened;
  const fd = opened.value;
  const giveUp = (call: string, status: number): Result<never> => {
    calls.close(fd);
    return callFailed(calls, call, status);
  };
  // Linux makes the socket file with the mode of the socket itself: there is no moment at which others may connect.
  const moded = calls.fchmod(fd, 0o600);
  if (moded < 0) return giveUp('fchmod', moded);
  const bound = calls.bind(fd, address);
  if (bound < 0) return giveUp(`bind(${path})`, bound);
  const mine = identityOf(path);
  const listening = calls.listen(fd, 16);
  if (listening < 0) return giveUp('listen', listening);
  let spare = calls.fcntl(fd, F_DUPFD_CLOEXEC, 0);
  let closed = false;
  return ok({
    fd,
    path,
    accept() {
      const accepted = acceptUnix(calls, fd);
      if (accepted.ok || accepted.error.code !== 'descriptors-exhausted' || spare < 0) return accepted;
      calls.close(spare);
      const unwanted = acceptUnix(calls, fd);
      if (unwanted.ok && unwanted.value !== null) calls.close(unwanted.value);
      spare = calls.fcntl(fd, F_DUPFD_CLOEXEC, 0);
      return accepted;
    },
    close() {
      if (closed) return;
      closed = true;
      calls.close(fd);
      if (spare >= 0) calls.close(spare);
      if (mine === null || identityOf(path) !== mine) return;
      try {
        unlinkSync(path);
      } catch {
        // Gone, or out of reach since the sandbox closed: the next listener finds it dead.
      }
    },
  });
}

/** Device and inode of a socket file; `null` where there is none. */
function identityOf(path: string): string | null {
  try {
    const found = lstatSync(path, { bigint: true });
    return found.isSocket() ? `${found.dev}:${found.ino}` : null;
  } catch {
    return null;
  }
}

function removeDeadSocket(calls: UnixCalls, path: string, type: UnixSocketType): Result<void> {
  try {
    if (lstatSync(path, { throwIfNoEntry: false }) === undefined) return ok(undefined);
  } catch (error) {
    return fail('system-call-failed', `lstat(${path}): ${error instanceof Error ? error.message : 'failed'}`);
  }
  const found = identityOf(path);
  if (found === null) {
    return fail('socket-path-taken', `${path} is there and is no socket`, { hint: 'choose another path' });
  }
  const probe = connectUnix(calls, path, type);
  if (probe.ok) calls.close(probe.value);
  if (probe.ok || probe.error.code !== 'socket-refused') {
    return fail('socket-path-taken', `another process listens on ${path}`, {
      hint: 'choose another path, or end that process',
    });
  }
  try {
    if (identityOf(path) === found) unlinkSync(path);
  } catch (error) {
    return fail('system-call-failed', `unlink(${path}): ${error instanceof Error ? error.message : 'failed'}`);
  }
  return ok(undefined);
}

/**
 * The next connection of a listening descriptor, or `null` when nobody waits.
 * Codes: `descriptors-exhausted`, `system-call-failed`.
 */
export function acceptUnix(calls: UnixCalls, listener: number): Result<number | null> {
  const fd = calls.accept4(listener, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd >= 0) return ok(fd);
  const name = calls.errnoName(-fd);
  // A connection that ended before it was accepted is no failure of the listener.
  if (name === 'EAGAIN' || name === 'EINTR' || name === 'ECONNABORTED') return ok(null);
  if (name === 'EMFILE' || name === 'ENFILE') {
    return fail('descriptors-exhausted', `accept: ${name}`, { hint: 'raise the limit of open files (ulimit -n)' });
  }
  return callFailed(calls, 'accept4', fd);
}
