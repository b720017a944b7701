/** Calls on sockets. Each returns what the system call returns, or a negative errno. */
import type { Libc, Memory } from './libc.ts';

export interface SocketCalls {
  socket(domain: number, type: number, protocol: number): number;
  /** Both ends are written to `pair`. */
  socketpair(domain: number, type: number, protocol: number, pair: Int32Array): number;
  bind(fd: number, address: Uint8Array): number;
  listen(fd: number, backlog: number): number;
  accept4(fd: number, flags: number): number;
  connect(fd: number, address: Uint8Array): number;
  shutdown(fd: number, how: number): number;
  setsockopt(fd: number, level: number, name: number, value: Uint8Array): number;
  /** Length of what was written to `value`. */
  getsockopt(fd: number, level: number, name: number, value: Memory): number;
  getsockname(fd: number, address: Memory): number;
  /** `message` holds a struct msghdr. */
  recvmsg(fd: number, message: Memory, flags: number): number;
  sendmsg(fd: number, message: Memory, flags: number): number;
  /** `null`: to whom the socket is connected. */
  sendto(fd: number, data: Uint8Array, flags: number, address: Uint8Array | null): number;
  /** sendmsg on another thread, for what the kernel carries out before it returns. `message` stays as it is. */
  sendmsgAside(fd: number, message: Memory, flags: number): Promise<number>;
}

export const AF_UNIX = 1;
export const AF_INET = 2;
export const AF_NETLINK = 16;
export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;
export const SOCK_SEQPACKET = 5;
export const SOCK_NONBLOCK = 0o4000;
export const SOCK_CLOEXEC = 0o2000000;
export const SOL_SOCKET = 1;
export const SCM_RIGHTS = 1;
export const MSG_CTRUNC = 0x08;
export const MSG_TRUNC = 0x20;
export const MSG_DONTWAIT = 0x40;
export const MSG_NOSIGNAL = 0x4000;
export const MSG_CMSG_CLOEXEC = 0x40000000;

export function socketCalls(libc: Libc): SocketCalls {
  const socket = libc.func('int socket(int, int, int)');
  const socketpair = libc.func('int socketpair(int, int, int, void *)');
  const bind = libc.func('int bind(int, const void *, uint32_t)');
  const listen = libc.func('int listen(int, int)');
  const accept4 = libc.func('int accept4(int, void *, void *, int)');
  const connect = libc.func('int connect(int, const void *, uint32_t)');
  const shutdown = libc.func('int shutdown(int, int)');
  const setsockopt = libc.func('int setsockopt(int, int, int, const void *, uint32_t)');
  const getsockopt = libc.func('int getsockopt(int, int, int, uintptr_t, uintptr_t)');
  const getsockname = libc.func('int getsockname(int, uintptr_t, uintptr_t)');
  const recvmsg = libc.func('int64_t recvmsg(int, uintptr_t, int)');
  const sendmsg = libc.func('int64_t sendmsg(int, uintptr_t, int)');
  const sendto = libc.func('int64_t sendto(int, const void *, size_t, int, const void *, uint32_t)');
  const sendmsgAside = libc.funcAside('int64_t sendmsg(int, uintptr_t, int)');
  const length = libc.allocate(4);
  return {
    socket,
    socketpair,
    bind: (fd, address) => bind(fd, address, address.length),
    listen,
    accept4: (fd, flags) => accept4(fd, null, null, flags),
    connect: (fd, address) => connect(fd, address, address.length),
    shutdown,
    setsockopt: (fd, level, name, value) => setsockopt(fd, level, name, value, value.length),
    getsockopt(fd, level, name, value) {
      length.view.setUint32(0, value.bytes.length, true);
      const status = getsockopt(fd, level, name, value.address, length.address);
      return status < 0 ? status : length.view.getUint32(0, true);
    },
    getsockname(fd, address) {
      length.view.setUint32(0, address.bytes.length, true);
      const status = getsockname(fd, address.address, length.address);
      return status < 0 ? status : length.view.getUint32(0, true);
    },
    recvmsg: (fd, message, flags) => recvmsg(fd, message.address, flags),
    sendmsg: (fd, message, flags) => sendmsg(fd, message.address, flags),
    sendmsgAside: (fd, message, flags) => sendmsgAside(fd, message.address, flags),
    sendto: (fd, data, flags, address) => sendto(fd, data, data.length, flags, address, address?.length ?? 0),
  };
}
