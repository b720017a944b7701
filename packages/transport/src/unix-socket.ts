/**
 * Unix sockets that carry file descriptors: unix(7), SCM_RIGHTS. Never waits: all sockets are non-blocking. What the
 * other side sends is hostile: descriptors beyond the agreed number are never left open, and none is taken from a
 * message whose control data was cut.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { F_GETFL, F_SETFL, type FileCalls, O_NONBLOCK } from './sys/files.ts';
import type { Memory } from './sys/libc.ts';
import {
  AF_UNIX,
  MSG_CMSG_CLOEXEC,
  MSG_CTRUNC,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  MSG_TRUNC,
  SCM_RIGHTS,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_SEQPACKET,
  SOCK_STREAM,
  SOL_SOCKET,
  type SocketCalls,
} from './sys/sockets.ts';
import { type CommonCalls, callFailed, putUint64, takeUint64 } from './system-calls.ts';

export type UnixCalls = SocketCalls & FileCalls & CommonCalls;

/** `seqpacket` keeps the borders of messages. */
export type UnixSocketType = 'stream' | 'seqpacket';

export interface Received {
  /** Bytes written to the start of `into`. 0: nothing there now, or `closed`. */
  readonly length: number;
  /** Close-on-exec; the caller's to close from now on. They came with the piece that was read last. */
  readonly fds: readonly number[];
  /** The other side ended the connection; nothing more will come. */
  readonly closed: boolean;
}

/** The most descriptors that Linux passes with one message (SCM_MAX_FD). */
export const MOST_DESCRIPTORS = 253;
/** The most bytes that one `receive` or one `send` with descriptors moves. */
export const MESSAGE_LIMIT = 64 * 1024;

/** Offsets within one allocation: iovec, msghdr (LP64), control data, payload. */
const IOVEC = 0;
const MSGHDR = 16;
const CONTROL = 80;
const CMSGHDR_LENGTH = 16;
const CONTROL_LENGTH = CMSGHDR_LENGTH + 4 * (MOST_DESCRIPTORS + 1);
const PAYLOAD = CONTROL + CONTROL_LENGTH;

/** One for all sockets: everything here is synchronous, and its memory is never given back. */
const scratches = new WeakMap<UnixCalls, { whole: Memory; message: Memory }>();

function scratchOf(calls: UnixCalls): { whole: Memory; message: Memory } {
  let scratch = scratches.get(calls);
  if (scratch === undefined) {
    const whole = calls.allocate(PAYLOAD + MESSAGE_LIMIT);
    // The msghdr lies within the same allocation; a call gets a memory that begins there.
    const bytes = whole.bytes.subarray(MSGHDR);
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    scratch = { whole, message: { address: whole.address + MSGHDR, bytes, view } };
    scratches.set(calls, scratch);
  }
  return scratch;
}

/** struct sockaddr_un of a path in the file system, or `null` where it does not fit (107 bytes) or holds a NUL. */
export function addressOf(path: string): Uint8Array | null {
  const name = Buffer.from(path);
  if (name.length === 0 || name.length > 107 || name.includes(0)) return null;
  const address = new Uint8Array(2 + name.length + 1);
  new DataView(address.buffer).setUint16(0, AF_UNIX, true);
  address.set(name, 2);
  return address;
}

const kindOf = (type: UnixSocketType): number => (type === 'stream' ? SOCK_STREAM : SOCK_SEQPACKET);

/** A new socket. Code: `system-call-failed`. */
export function openSocket(calls: UnixCalls, type: UnixSocketType): Result<number> {
  const fd = calls.socket(AF_UNIX, kindOf(type) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  return fd < 0 ? callFailed(calls, 'socket(AF_UNIX)', fd) : ok(fd);
}

/** Code: `socket-path-invalid`. */
export function pathInvalid(path: string): Result<never> {
  return fail('socket-path-invalid', `a socket path has 1 to 107 bytes: ${JSON.stringify(path)}`);
}

/**
 * A connection to the socket at `path`. Codes: `socket-path-invalid`, `socket-refused` (nobody listens there),
 * `socket-wrong-type`, `socket-busy` (its queue of connections is full), `system-call-failed`.
 */
export function connectUnix(calls: UnixCalls, path: string, type: UnixSocketType = 'stream'): Result<number> {
  const address = addressOf(path);
  if (address === null) return pathInvalid(path);
  const opened = openSocket(calls, type);
  if (!opened.ok) return opened;
  const status = calls.connect(opened.value, address);
  if (status >= 0) return opened;
  calls.close(opened.value);
  const name = calls.errnoName(-status);
  if (name === 'ECONNREFUSED') return fail('socket-refused', `nobody listens on ${path}`);
  if (name === 'EPROTOTYPE') return fail('socket-wrong-type', `${path} is no ${type} socket`);
  if (name === 'EAGAIN') return fail('socket-busy', `${path}: too many connections wait there already`);
  return callFailed(calls, `connect(${path})`, status);
}

/** Two connected ends, for tests and children. Code: `system-call-failed`. */
export function socketPair(calls: UnixCalls, type: UnixSocketType = 'stream'): Result<readonly [number, number]> {
  const pair = new Int32Array(2);
  const status = calls.socketpair(AF_UNIX, kindOf(type) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair);
  if (status < 0) return callFailed(calls, 'socketpair', status);
  const [first = -1, second = -1] = pair;
  return ok([first, second]);
}

/** Makes a descriptor that came from elsewhere non-blocking. Code: `system-call-failed`. */
export function setNonBlocking(calls: FileCalls & CommonCalls, fd: number): Result<void> {
  const flags = calls.fcntl(fd, F_GETFL, 0);
  const status = flags < 0 ? flags : calls.fcntl(fd, F_SETFL, flags | O_NONBLOCK);
  return status < 0 ? callFailed(calls, 'fcntl(O_NONBLOCK)', status) : ok(undefined);
}

/**
 * What is there, up to `into.length` and MESSAGE_LIMIT bytes, with at most `most` descriptors (0 to MOST_DESCRIPTORS).
 * After an error no descriptor of the message is open, and the connection can no longer be trusted.
 * Codes: `descriptors-cut` (there were more than `most`, or this process has none left), `message-cut` (seqpacket: longer
 * than `into`), `control-malformed`, `system-call-failed`.
 */
export function receive(calls: UnixCalls, socket: number, into: Uint8Array, most: number): Result<Received> {
  const { whole, message } = scratchOf(calls);
  const { view, address } = whole;
  const room = Math.min(into.length, MESSAGE_LIMIT);
  const limit = Math.min(Math.max(most, 0), MOST_DESCRIPTORS);
  whole.bytes.fill(0, 0, CONTROL);
  putUint64(view, IOVEC, address + PAYLOAD);
  putUint64(view, IOVEC + 8, room);
  putUint64(view, MSGHDR + 16, address + IOVEC);
  putUint64(view, MSGHDR + 24, 1);
  putUint64(view, MSGHDR + 32, address + CONTROL);
  // Not rounded up: with the padding of CMSG_SPACE the kernel would fit in one more.
  putUint64(view, MSGHDR + 40, CMSGHDR_LENGTH + 4 * limit);
  const length = calls.recvmsg(socket, message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (length < 0) {
    const name = calls.errnoName(-length);
    if (name === 'EAGAIN' || name === 'EINTR') return ok({ length: 0, fds: [], closed: false });
    if (name === 'ECONNRESET') return ok({ length: 0, fds: [], closed: true });
    return callFailed(calls, 'recvmsg', length);
  }
  const flags = view.getInt32(MSGHDR + 48, true);
  const control = takeControl(view, Math.min(takeUint64(view, MSGHDR + 40), CMSGHDR_LENGTH + 4 * limit));
  const refuse = (code: string, text: string): Result<never> => {
    for (const fd of control.fds) calls.close(fd);
    return fail(code, text);
  };
  if ((flags & MSG_CTRUNC) !== 0) return refuse('descriptors-cut', `more than ${limit} descriptors, or none left here`);
  if (!control.sound) return refuse('control-malformed', 'control data that is not descriptors');
  if ((flags & MSG_TRUNC) !== 0) return refuse('message-cut', `a message of more than ${room} bytes`);
  // Descriptors with no byte: nothing says whose they are.
  if (length === 0 && control.fds.length > 0) return refuse('control-malformed', 'descriptors without a byte');
  into.set(whole.bytes.subarray(PAYLOAD, PAYLOAD + Math.min(length, room)));
  return ok({ length, fds: control.fds, closed: length === 0 && room > 0 });
}

/** Descriptors of every SCM_RIGHTS header; not `sound` where there was something else. cmsg(3). */
function takeControl(view: DataView, length: number): { fds: number[]; sound: boolean } {
  const fds: number[] = [];
  let at = 0;
  while (length - at >= CMSGHDR_LENGTH) {
    const size = takeUint64(view, CONTROL + at);
    if (size < CMSGHDR_LENGTH || size > length - at) return { fds, sound: false };
    const level = view.getInt32(CONTROL + at + 8, true);
    const type = view.getInt32(CONTROL + at + 12, true);
    if (level !== SOL_SOCKET || type !== SCM_RIGHTS) return { fds, sound: false };
    for (let i = CMSGHDR_LENGTH; i + 4 <= size; i += 4) fds.push(view.getInt32(CONTROL + at + i, true));
    at += Math.ceil(size / 8) * 8;
  }
  return { fds, sound: true };
}

/**
 * Sends `bytes`, and `fds` with the first of them; both stay the caller's. Returns how many bytes were taken: 0 when the
 * other side's buffer is full (then the descriptors were not taken either), possibly fewer than all on a stream.
 * Codes: `socket-closed` (the other side is gone), `message-too-large` (more than MESSAGE_LIMIT with descriptors, too many
 * of these, or descriptors without a byte), `system-call-failed`.
 */
export function send(calls: UnixCalls, socket: number, bytes: Uint8Array, fds: readonly number[] = []): Result<number> {
  const sent = fds.length === 0 ? calls.sendto(socket, bytes, SEND_FLAGS, null) : sendWith(calls, socket, bytes, fds);
  if (sent === null) {
    return fail('message-too-large', `${bytes.length} bytes with ${fds.length} descriptors in one message`);
  }
  if (sent >= 0) return ok(sent);
  const name = calls.errnoName(-sent);
  if (name === 'EAGAIN' || name === 'EINTR') return ok(0);
  if (name === 'EPIPE' || name === 'ECONNRESET') return fail('socket-closed', `sendmsg: ${name}`);
  return callFailed(calls, 'sendmsg', sent);
}

const SEND_FLAGS = MSG_DONTWAIT | MSG_NOSIGNAL;

function sendWith(calls: UnixCalls, socket: number, bytes: Uint8Array, fds: readonly number[]): number | null {
  if (bytes.length === 0 || bytes.length > MESSAGE_LIMIT || fds.length > MOST_DESCRIPTORS) return null;
  const { whole, message } = scratchOf(calls);
  const { view, address } = whole;
  const size = CMSGHDR_LENGTH + 4 * fds.length;
  whole.bytes.fill(0, 0, PAYLOAD);
  whole.bytes.set(bytes, PAYLOAD);
  putUint64(view, IOVEC, address + PAYLOAD);
  putUint64(view, IOVEC + 8, bytes.length);
  putUint64(view, MSGHDR + 16, address + IOVEC);
  putUint64(view, MSGHDR + 24, 1);
  putUint64(view, MSGHDR + 32, address + CONTROL);
  putUint64(view, MSGHDR + 40, Math.ceil(size / 8) * 8);
  putUint64(view, CONTROL, size);
  view.setInt32(CONTROL + 8, SOL_SOCKET, true);
  view.setInt32(CONTROL + 12, SCM_RIGHTS, true);
  for (const [i, fd] of fds.entries()) view.setInt32(CONTROL + CMSGHDR_LENGTH + 4 * i, fd, true);
  return calls.sendmsg(socket, message, SEND_FLAGS);
}
