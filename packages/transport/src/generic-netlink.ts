/** Questions to the kernel over generic netlink: one at a time, each answered within a limit of time and of bytes. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { endOf, type GenericNetlink, type NetlinkMessage, splitNetlink } from '@airlock/linux/netlink.ts';
import type { FileCalls } from './sys/files.ts';
import type { Memory } from './sys/libc.ts';
import {
  AF_NETLINK,
  MSG_DONTWAIT,
  MSG_TRUNC,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_RAW,
  type SocketCalls,
} from './sys/sockets.ts';
import { type CommonCalls, callFailed, putUint64 } from './system-calls.ts';
import { netlinkAddress } from './uevent-socket.ts';

const NETLINK_GENERIC = 16;
/** The kernel fills datagrams of a dump up to 32 KiB. */
const DATAGRAM = 65_536;
const ANSWER_LIMIT = 4 * 1024 * 1024;
/** Offsets within one allocation: sockaddr_nl, iovec, msghdr (LP64), payload. */
const ADDRESS = 0;
const IOVEC = 16;
const MSGHDR = 32;
const PAYLOAD = 96;
const KERNEL = netlinkAddress(0, 0);

export type NetlinkCalls = Pick<SocketCalls, 'socket' | 'bind' | 'sendto' | 'recvmsg'> &
  Pick<FileCalls, 'close'> &
  CommonCalls;

/**
 * A bound socket. `timeout` in milliseconds for one answer. Codes: `system-call-failed`; of `ask` also `netlink-invalid`,
 * `netlink-timeout`.
 */
export function openGenericNetlink(calls: NetlinkCalls, timeout = 2000): Result<GenericNetlink> {
  const fd = calls.socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_GENERIC);
  if (fd < 0) return callFailed(calls, 'socket(NETLINK_GENERIC)', fd);
  const bound = calls.bind(fd, KERNEL);
  if (bound < 0) {
    calls.close(fd);
    return callFailed(calls, 'bind(NETLINK_GENERIC)', bound);
  }
  const memory = calls.allocate(PAYLOAD + DATAGRAM);
  return ok({
    ask(request) {
      const sent = calls.sendto(fd, request, 0, KERNEL);
      if (sent < 0) return Promise.resolve(callFailed(calls, 'sendto(NETLINK_GENERIC)', sent));
      const sequence = new DataView(request.buffer, request.byteOffset).getUint32(8, true);
      return answerTo(calls, fd, memory, sequence, timeout);
    },
    close: () => void calls.close(fd),
  });
}

function answerTo(
  calls: NetlinkCalls,
  fd: number,
  memory: Memory,
  sequence: number,
  timeout: number,
): Promise<Result<readonly NetlinkMessage[]>> {
  return new Promise((resolve) => {
    const found: NetlinkMessage[] = [];
    let total = 0;
    const finish = (result: Result<readonly NetlinkMessage[]>) => {
      clearTimeout(timer);
      stop();
      resolve(result);
    };
    const timer = setTimeout(
      () => finish(fail('netlink-timeout', `the kernel did not answer in ${timeout} ms`)),
      timeout,
    );
    const stop = calls.whenReadable(fd, () => {
      const length = receive(calls, fd, memory);
      if (length < 0) {
        const name = calls.errnoName(-length);
        if (name !== 'EAGAIN' && name !== 'EINTR') finish(callFailed(calls, 'recvmsg(NETLINK_GENERIC)', length));
        return;
      }
      // Only the kernel has port 0.
      if (memory.view.getUint32(ADDRESS + 4, true) !== 0) return;
      total += length;
      if ((memory.view.getInt32(MSGHDR + 48, true) & MSG_TRUNC) !== 0 || total > ANSWER_LIMIT)
        return finish(
          fail('netlink-invalid', `an answer of more than ${ANSWER_LIMIT} bytes, or a message that is cut off`),
        );
      const messages = splitNetlink(memory.bytes.slice(PAYLOAD, PAYLOAD + length));
      if (!messages.ok) return finish(messages);
      // An answer that came too late for an earlier question is not the one to this.
      const own = messages.value.filter((one) => one.sequence === sequence);
      found.push(...own);
      if (own.some((one) => endOf(one) !== undefined)) finish(ok(found));
    });
  });
}

/** One datagram into `memory`; its length or a negative errno. */
function receive(calls: NetlinkCalls, fd: number, memory: Memory): number {
  const { view, address } = memory;
  memory.bytes.fill(0, 0, PAYLOAD);
  putUint64(view, IOVEC, address + PAYLOAD);
  putUint64(view, IOVEC + 8, DATAGRAM);
  putUint64(view, MSGHDR, address + ADDRESS);
  view.setUint32(MSGHDR + 8, 12, true);
  putUint64(view, MSGHDR + 16, address + IOVEC);
  putUint64(view, MSGHDR + 24, 1);
  return calls.recvmsg(fd, { ...memory, address: address + MSGHDR }, MSG_DONTWAIT);
}
