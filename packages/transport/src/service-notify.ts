/** Tells the service manager how we are: sd_notify(3), a datagram to the Unix socket that NOTIFY_SOCKET names. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { FileCalls } from './sys/files.ts';
import { AF_UNIX, MSG_NOSIGNAL, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, type SocketCalls } from './sys/sockets.ts';
import { type CommonCalls, callFailed } from './system-calls.ts';

type NotifyCalls = SocketCalls & CommonCalls & Pick<FileCalls, 'close'>;

/**
 * Sends `state` (`READY=1`, `WATCHDOG=1`, `STATUS=…`, lines). `path` is NOTIFY_SOCKET: absolute, or `@name` for an
 * abstract one. Codes: `notify-refused` (not such a path), `system-call-failed`.
 */
export function notifyService(calls: NotifyCalls, path: string, state: string): Result<void> {
  const name = Buffer.from(path);
  if (!/^[/@]./.test(path) || name.length > 107 || path.includes('\0')) {
    return fail('notify-refused', 'NOTIFY_SOCKET is neither an absolute path nor an abstract name');
  }
  // sun_path: an abstract name begins with NUL and ends with the address; a path ends with NUL.
  const abstract = path.startsWith('@');
  const address = new Uint8Array(2 + name.length + (abstract ? 0 : 1));
  new DataView(address.buffer).setUint16(0, AF_UNIX, true);
  address.set(name, 2);
  if (abstract) address[2] = 0;
  const fd = calls.socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return callFailed(calls, 'socket(AF_UNIX)', fd);
  const sent = calls.sendto(fd, Buffer.from(state), MSG_NOSIGNAL, address);
  calls.close(fd);
  return sent < 0 ? callFailed(calls, 'sendto(NOTIFY_SOCKET)', sent) : ok(undefined);
}
