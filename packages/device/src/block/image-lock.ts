/**
 * Two servers of one image destroy it. The lock is that of QEMU's file driver, so that QEMU and its tools are kept out
 * too, and keep us out: locks of open file descriptions on single bytes, 100 + n for what a user does with the file and
 * 200 + n for what it does not want others to do.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
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

/**
 * Locks the file for as long as `fd` is open: against all who write, and when it is to be written, against all who use
 * it. A file system without such locks is used without. Code: `disk-in-use`.
 */
export function lockImage(calls: SystemCalls, fd: number, readOnly: boolean): Result<void> {
  const used = readOnly ? [READ] : [READ, WRITE];
  const unshared = [WRITE, RESIZE];
  const lock = calls.allocate(32);
  const ask = (command: number, type: number, byte: number): number => {
    lock.bytes.fill(0);
    lock.view.setInt16(0, type, true);
    lock.view.setUint32(8, byte, true);
    lock.view.setUint32(16, 1, true);
    return calls.fcntl(fd, command, lock.address);
  };
  for (const byte of [...used.map((n) => USED + n), ...unshared.map((n) => UNSHARED + n)]) {
    const status = ask(F_OFD_SETLK, F_RDLCK, byte);
    if (status === -EACCES || status === -EAGAIN) return inUse();
    if (status < 0) return ok(undefined);
  }
  for (const byte of [...used.map((n) => UNSHARED + n), ...unshared.map((n) => USED + n)]) {
    const status = ask(F_OFD_GETLK, F_WRLCK, byte);
    if (status >= 0 && lock.view.getInt16(0, true) !== F_UNLCK) return inUse();
  }
  return ok(undefined);
}

function inUse(): Result<never> {
  return fail('disk-in-use', 'another program uses the file as a disk', { hint: 'end it, or serve a copy' });
}
