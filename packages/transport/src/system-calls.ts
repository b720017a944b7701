/**
 * The few system calls that Node has no door to, through koffi; the only file that imports it. Loaded when first asked
 * for: a machine without koffi keeps everything that does not need it.
 *
 * Memory that the kernel writes to is allocated here and never freed before the process ends: a view of freed memory
 * would be a hole in the process, and there are a handful of them.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';

/** Memory outside of the engine's heap: its address stays what it is. */
export interface Memory {
  readonly address: bigint;
  readonly bytes: Uint8Array;
  readonly view: DataView;
}

/** Each call returns what the system call returns, or a negative errno, as the kernel itself does. */
export interface SystemCalls {
  socket(domain: number, type: number, protocol: number): number;
  bind(fd: number, address: Uint8Array): number;
  close(fd: number): number;
  setsockopt(fd: number, level: number, name: number, value: Uint8Array): number;
  /** Length of what was written to `value`. */
  getsockopt(fd: number, level: number, name: number, value: Memory): number;
  getsockname(fd: number, address: Memory): number;
  /** `message` holds a struct msghdr. */
  recvmsg(fd: number, message: Memory, flags: number): number;
  sendto(fd: number, data: Uint8Array, flags: number, address: Uint8Array): number;
  allocate(length: number): Memory;
  /** Calls back while `fd` can be read, level-triggered; the returned function ends that. */
  whenReadable(fd: number, call: () => void): () => void;
  errnoName(errno: number): string;
}

export const AF_UNIX = 1;
export const AF_NETLINK = 16;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;
export const SOCK_NONBLOCK = 0o4000;
export const SOCK_CLOEXEC = 0o2000000;
export const SOL_SOCKET = 1;
export const MSG_TRUNC = 0x20;
export const MSG_CTRUNC = 0x08;
export const MSG_DONTWAIT = 0x40;
export const MSG_NOSIGNAL = 0x4000;

let loaded: Promise<Result<SystemCalls>> | undefined;

/** Code: `system-calls-missing`. */
export function loadSystemCalls(): Promise<Result<SystemCalls>> {
  loaded ??= load();
  return loaded;
}

async function load(): Promise<Result<SystemCalls>> {
  if (process.platform !== 'linux') {
    return fail('system-calls-missing', `system calls of Linux, but this is ${process.platform}`);
  }
  try {
    const koffi = await import('koffi');
    const libc = koffi.load(null);
    const socket = libc.func('int socket(int, int, int)');
    const bind = libc.func('int bind(int, const void *, uint32_t)');
    const close = libc.func('int close(int)');
    const setsockopt = libc.func('int setsockopt(int, int, int, const void *, uint32_t)');
    const getsockopt = libc.func('int getsockopt(int, int, int, void *, void *)');
    const getsockname = libc.func('int getsockname(int, void *, void *)');
    const recvmsg = libc.func('int64_t recvmsg(int, void *, int)');
    const sendto = libc.func('int64_t sendto(int, const void *, size_t, int, const void *, uint32_t)');
    const names = new Map(Object.entries(koffi.os.errno).map(([name, number]) => [number, name]));
    const outcome = (value: number): number => (value < 0 ? -koffi.errno() : value);
    const allocate = (length: number): Memory => {
      const memory: unknown = koffi.alloc('uint8_t', length);
      const buffer = koffi.view(memory, length);
      const bytes = new Uint8Array(buffer);
      bytes.fill(0);
      return { address: koffi.address(memory), bytes, view: new DataView(buffer) };
    };
    const length = allocate(4);
    return ok({
      socket: (domain, type, protocol) => outcome(socket(domain, type, protocol)),
      bind: (fd, address) => outcome(bind(fd, address, address.length)),
      close: (fd) => outcome(close(fd)),
      setsockopt: (fd, level, name, value) => outcome(setsockopt(fd, level, name, value, value.length)),
      getsockopt: (fd, level, name, value) => {
        length.view.setUint32(0, value.bytes.length, true);
        const status = outcome(getsockopt(fd, level, name, value.address, length.address));
        return status < 0 ? status : length.view.getUint32(0, true);
      },
      getsockname: (fd, address) => {
        length.view.setUint32(0, address.bytes.length, true);
        const status = outcome(getsockname(fd, address.address, length.address));
        return status < 0 ? status : length.view.getUint32(0, true);
      },
      recvmsg: (fd, message, flags) => outcome(Number(recvmsg(fd, message.address, flags))),
      sendto: (fd, data, flags, address) =>
        outcome(Number(sendto(fd, data, data.length, flags, address, address.length))),
      allocate,
      whenReadable: (fd, call) => {
        const handle = koffi.node.poll(fd, { readable: true }, () => call());
        return () => handle.close();
      },
      errnoName: (errno) => names.get(errno) ?? `errno ${errno}`,
    });
  } catch (error) {
    return fail('system-calls-missing', `koffi: ${error instanceof Error ? error.message : 'did not load'}`);
  }
}

/** A failed call as a problem: `recvmsg: EPERM`. */
export function callFailed(calls: SystemCalls, call: string, status: number): Result<never> {
  return fail('system-call-failed', `${call}: ${calls.errnoName(-status)}`);
}
