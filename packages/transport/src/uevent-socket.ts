/**
 * The kernel's uevents from netlink: NETLINK_KOBJECT_UEVENT, group 1 (the kernel's own; udev's is 2).
 *
 * Two things are checked before a byte of a message is looked at, because any process may hold such a socket and root
 * may send on it: the sender's netlink address is the kernel's (port 0, group 1), and the credentials that the kernel
 * attached are those of the kernel (process 0, user 0).
 */
import { ok, type Result } from '@airlock/core/result.ts';
import type { FileCalls } from './sys/files.ts';
import type { Memory } from './sys/libc.ts';
import {
  AF_NETLINK,
  MSG_CTRUNC,
  MSG_DONTWAIT,
  MSG_TRUNC,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_RAW,
  SOL_SOCKET,
  type SocketCalls,
} from './sys/sockets.ts';
import { type CommonCalls, callFailed, putUint64, takeUint64 } from './system-calls.ts';
import { parseUevent, UEVENT_LIMIT } from './uevent.ts';
import type { UeventNotice, UeventSource } from './uevents.ts';

const NETLINK_KOBJECT_UEVENT = 15;
const KERNEL_GROUP = 1;
const SO_RCVBUF = 8;
const SO_PASSCRED = 16;
const SO_RCVBUFFORCE = 33;
const SCM_CREDENTIALS = 2;
/** A storm of hot-plugs of a whole machine fits; what does not is announced by ENOBUFS. */
const RECEIVE_BUFFER = 16 * 1024 * 1024;
/** Messages read before the event loop turns again. */
const BATCH = 256;

/** What of the system's calls a uevent socket needs. */
export type UeventCalls = Pick<SocketCalls, 'socket' | 'bind' | 'setsockopt' | 'getsockname' | 'recvmsg'> &
  Pick<FileCalls, 'close'> &
  CommonCalls;

export interface UeventSocket extends UeventSource {
  /** The socket's own netlink port. */
  readonly port: number;
}

/** Offsets within one allocation: sockaddr_nl, iovec, msghdr (LP64), control data, payload. */
const ADDRESS = 0;
const IOVEC = 16;
const MSGHDR = 32;
const CONTROL = 96;
const CONTROL_LENGTH = 64;
const PAYLOAD = 160;

/** A bound socket, not yet reading. Code: `system-call-failed`. */
export function openUeventSocket(calls: UeventCalls): Result<UeventSocket> {
  const fd = calls.socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
  if (fd < 0) return callFailed(calls, 'socket(NETLINK_KOBJECT_UEVENT)', fd);
  const one = uint32(1);
  const passed = calls.setsockopt(fd, SOL_SOCKET, SO_PASSCRED, one);
  if (passed < 0) {
    calls.close(fd);
    return callFailed(calls, 'setsockopt(SO_PASSCRED)', passed);
  }
  // The first needs CAP_NET_ADMIN; the second is cut to net.core.rmem_max. Without either the default buffer serves.
  if (calls.setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, uint32(RECEIVE_BUFFER)) < 0) {
    calls.setsockopt(fd, SOL_SOCKET, SO_RCVBUF, uint32(RECEIVE_BUFFER));
  }
  const bound = calls.bind(fd, netlinkAddress(0, KERNEL_GROUP));
  if (bound < 0) {
    calls.close(fd);
    return callFailed(calls, 'bind(NETLINK_KOBJECT_UEVENT)', bound);
  }
  const memory = calls.allocate(PAYLOAD + UEVENT_LIMIT + 1);
  calls.getsockname(fd, memory);
  const port = memory.view.getUint32(ADDRESS + 4, true);

  const dropped = { foreign: 0, malformed: 0 };
  let stop: (() => void) | undefined;
  let closed = false;

  function readAll(listen: (notice: UeventNotice) => void): void {
    for (let i = 0; i < BATCH && !closed; i++) {
      const length = receive(calls, fd, memory);
      if (length < 0) {
        const name = calls.errnoName(-length);
        if (name === 'EAGAIN' || name === 'EWOULDBLOCK') return;
        if (name === 'EINTR') continue;
        if (name === 'ENOBUFS') {
          listen({ kind: 'look-again', because: 'the kernel dropped uevents: the receive buffer was full' });
          continue;
        }
        // A socket that fails otherwise would call back for ever: give it up and say so.
        close();
        listen({ kind: 'look-again', because: `the uevent socket failed and was closed: recvmsg: ${name}` });
        return;
      }
      if (!fromKernel(memory)) {
        dropped.foreign++;
        continue;
      }
      const flags = memory.view.getInt32(MSGHDR + 48, true);
      const uevent = parseUevent(memory.bytes.slice(PAYLOAD, PAYLOAD + Math.min(length, UEVENT_LIMIT + 1)));
      if ((flags & MSG_TRUNC) !== 0 || !uevent.ok) {
        dropped.malformed++;
        listen({ kind: 'look-again', because: uevent.ok ? 'a uevent was cut off' : uevent.error.message });
        continue;
      }
      listen({ kind: 'uevent', uevent: uevent.value });
    }
  }

  function close(): void {
    if (closed) return;
    closed = true;
    stop?.();
    calls.close(fd);
  }

  return ok({
    kind: 'netlink',
    port,
    dropped,
    start(listen) {
      if (!closed && stop === undefined) stop = calls.whenReadable(fd, () => readAll(listen));
    },
    close,
  });
}

/** One message into `memory`; its length or a negative errno. */
function receive(calls: UeventCalls, fd: number, memory: Memory): number {
  const { view, address } = memory;
  memory.bytes.fill(0, 0, PAYLOAD);
  putUint64(view, IOVEC, address + PAYLOAD);
  putUint64(view, IOVEC + 8, UEVENT_LIMIT + 1);
  putUint64(view, MSGHDR, address + ADDRESS);
  view.setUint32(MSGHDR + 8, 12, true);
  putUint64(view, MSGHDR + 16, address + IOVEC);
  putUint64(view, MSGHDR + 24, 1);
  putUint64(view, MSGHDR + 32, address + CONTROL);
  putUint64(view, MSGHDR + 40, CONTROL_LENGTH);
  // The msghdr lies within the same allocation; hand the call a memory that begins there.
  return calls.recvmsg(fd, { ...memory, address: address + MSGHDR }, MSG_DONTWAIT);
}

/** Sender's port 0 and group 1, credentials of process 0 and user 0. */
function fromKernel({ view }: Memory): boolean {
  if (view.getUint32(MSGHDR + 8, true) !== 12) return false;
  if (view.getUint16(ADDRESS, true) !== AF_NETLINK) return false;
  if (view.getUint32(ADDRESS + 4, true) !== 0 || view.getUint32(ADDRESS + 8, true) !== KERNEL_GROUP) return false;
  if ((view.getInt32(MSGHDR + 48, true) & MSG_CTRUNC) !== 0) return false;
  const length = takeUint64(view, MSGHDR + 40);
  // struct cmsghdr { size_t len; int level; int type; } and struct ucred { pid, uid, gid }
  if (length < 28 || takeUint64(view, CONTROL) !== 28) return false;
  if (view.getInt32(CONTROL + 8, true) !== SOL_SOCKET || view.getInt32(CONTROL + 12, true) !== SCM_CREDENTIALS) {
    return false;
  }
  return view.getInt32(CONTROL + 16, true) === 0 && view.getUint32(CONTROL + 20, true) === 0;
}

/** struct sockaddr_nl. */
export function netlinkAddress(port: number, groups: number): Uint8Array {
  const bytes = new Uint8Array(12);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, AF_NETLINK, true);
  view.setUint32(4, port, true);
  view.setUint32(8, groups, true);
  return bytes;
}

function uint32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
}
