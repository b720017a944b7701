/**
 * Two servers of one image destroy it. The lock is that of QEMU's file driver, so that QEMU and its tools are kept out
 * too, and keep us out: locks of open file descriptions on single bytes, 100 + n for what a user does with the file and
 * 200 + n for what it does not want others to do.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { Memory } from '@airlock/transport/sys/libc.ts';
import type { SystemCalls } from '@airlock/transport/system-calls.ts';

const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;
const USED = 100;
const UNSHARED = 200;
const READ = 0;
const WRITE = 1;
const RESIZE = 3;
const EACCES = 13;
const EAGAIN = 11;

/** How long to wait for one who is just leaving: the kernel ends the io_uring of a killed process after the process. */
const LEAVING_MILLISECONDS = 1000;
const STEP_MILLISECONDS = 20;

/**
 * Locks the file for as long as `fd` is open: against all who write, and when it is to be written, against all who use
 * it. A file system without such locks is used without. Waits a moment for a lock that somebody has. Code: `disk-in-use`.
 */
export function lockImage(calls: SystemCalls, fd: number, readOnly: boolean): Result<void> {
  for (let waited = 0; ; waited += STEP_MILLISECONDS) {
    if (tryLock(calls, fd, readOnly)) return ok(undefined);
    unlockImage(calls, fd);
    if (waited >= LEAVING_MILLISECONDS) break;
    calls.poll(0, 0, STEP_MILLISECONDS);
  }
  return fail('disk-in-use', 'another program uses the file as a disk', { hint: 'end it, or serve a copy' });
}

/** Before `fd` is closed: an io_uring that knows the file keeps it open, and locked, for a while. */
export function unlockImage(calls: SystemCalls, fd: number): void {
  ask(calls, fd, F_OFD_SETLK, F_UNLCK, USED, UNSHARED + 100 - USED);
}

function tryLock(calls: SystemCalls, fd: number, readOnly: boolean): boolean {
  const used = readOnly ? [READ] : [READ, WRITE];
  const unshared = [WRITE, RESIZE];
  for (const byte of [...used.map((n) => USED + n), ...unshared.map((n) => UNSHARED + n)]) {
    const { status } = ask(calls, fd, F_OFD_SETLK, F_RDLCK, byte, 1);
    if (status === -EACCES || status === -EAGAIN) return false;
    if (status < 0) return true;
  }
  for (const byte of [...used.map((n) => UNSHARED + n), ...unshared.map((n) => USED + n)]) {
    const { status, type } = ask(calls, fd, F_OFD_GETLK, F_WRLCK, byte, 1);
    if (status >= 0 && type !== F_UNLCK) return false;
  }
  return true;
}

/** fcntl(2) with a struct flock; `type` is what it holds afterwards. */
function ask(
  calls: SystemCalls,
  fd: number,
  command: number,
  type: number,
  start: number,
  length: number,
): { status: number; type: number } {
  lockMemory ??= calls.allocate(32);
  const { bytes, view, address } = lockMemory;
  bytes.fill(0);
  view.setInt16(0, type, true);
  view.setUint32(8, start, true);
  view.setUint32(16, length, true);
  const status = calls.fcntl(fd, command, address);
  return { status, type: view.getInt16(0, true) };
}

let lockMemory: Memory | undefined;
