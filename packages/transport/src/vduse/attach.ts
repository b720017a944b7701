/**
 * Attaches a VDUSE device to the vdpa bus, and takes it off: generic netlink's family `vdpa` (include/uapi/linux/vdpa.h).
 * The kernel returns when the device's driver has probed it, so this is not for
 * the process that serves it, and the call is made on another thread.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { Memory } from '../sys/libc.ts';
import { AF_NETLINK, SOCK_CLOEXEC, SOCK_RAW } from '../sys/sockets.ts';
import { callFailed, putUint64, type SystemCalls } from '../system-calls.ts';

const NETLINK_GENERIC = 16;
const GENL_ID_CTRL = 16;
const CTRL_GETFAMILY = 3;
const CTRL_FAMILY_ID = 1;
const CTRL_FAMILY_NAME = 2;
const VDPA_DEV_NEW = 3;
const VDPA_DEV_DEL = 4;
const VDPA_MGMTDEV_NAME = 2;
const VDPA_DEV_NAME = 4;

const NLM_REQUEST_ACK = 0x5;
const NLMSG_ERROR = 2;
const NLMSG_HEADER = 16;
const GENL_HEADER = 4;
const REPLY_SIZE = 8192;
/** Offsets in the memory for sendmsg(2) and recvmsg(2): iovec, msghdr, sockaddr_nl, data. */
const MSGHDR = 16;
const ADDRESS = 96;
const DATA = 128;

/** Codes: `vdpa-refused` (the message has the kernel's errno), `system-call-failed`. */
export function attachVdpa(calls: SystemCalls, name: string): Promise<Result<void>> {
  return ask(calls, VDPA_DEV_NEW, [
    [VDPA_DEV_NAME, name],
    [VDPA_MGMTDEV_NAME, 'vduse'],
  ]);
}

export function detachVdpa(calls: SystemCalls, name: string): Promise<Result<void>> {
  return ask(calls, VDPA_DEV_DEL, [[VDPA_DEV_NAME, name]]);
}

type Attribute = readonly [type: number, text: string];

async function ask(calls: SystemCalls, command: number, attributes: readonly Attribute[]): Promise<Result<void>> {
  const socket = calls.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
  if (socket < 0) return callFailed(calls, 'socket(NETLINK_GENERIC)', socket);
  const memory = calls.allocate(DATA + REPLY_SIZE);
  try {
    const family = await exchange(
      calls,
      socket,
      memory,
      message(GENL_ID_CTRL, CTRL_GETFAMILY, [[CTRL_FAMILY_NAME, 'vdpa']]),
    );
    if (!family.ok) return family;
    const id = familyId(family.value);
    if (id === null) return fail('vdpa-refused', 'the kernel has no vdpa bus', { hint: 'modprobe vdpa' });
    const done = await exchange(calls, socket, memory, message(id, command, attributes));
    return done.ok ? ok(undefined) : done;
  } finally {
    calls.close(socket);
  }
}

/** nlmsghdr, genlmsghdr, attributes of text. */
function message(type: number, command: number, attributes: readonly Attribute[]): Uint8Array {
  const sizes = attributes.map(([, text]) => Math.ceil((4 + text.length + 1) / 4) * 4);
  const length = NLMSG_HEADER + GENL_HEADER + sizes.reduce((sum, size) => sum + size, 0);
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, length, true);
  view.setUint16(4, type, true);
  view.setUint16(6, NLM_REQUEST_ACK, true);
  view.setUint32(8, 1, true);
  view.setUint8(NLMSG_HEADER, command);
  view.setUint8(NLMSG_HEADER + 1, 1);
  let at = NLMSG_HEADER + GENL_HEADER;
  for (const [i, [attribute, text]] of attributes.entries()) {
    view.setUint16(at, 4 + text.length + 1, true);
    view.setUint16(at + 2, attribute, true);
    for (let c = 0; c < text.length; c++) bytes[at + 4 + c] = text.charCodeAt(c);
    at += sizes[i] ?? 0;
  }
  return bytes;
}

/** Sends, and reads until the acknowledgement. Gives what came before it. */
async function exchange(
  calls: SystemCalls,
  socket: number,
  memory: Memory,
  bytes: Uint8Array,
): Promise<Result<Uint8Array>> {
  const { view } = memory;
  const header = { address: memory.address + MSGHDR, bytes: memory.bytes.subarray(MSGHDR), view: memory.view };
  memory.bytes.fill(0, 0, DATA);
  memory.bytes.set(bytes, DATA);
  view.setUint16(ADDRESS, AF_NETLINK, true);
  putUint64(view, 0, memory.address + DATA);
  putUint64(view, 8, bytes.length);
  putUint64(view, MSGHDR, memory.address + ADDRESS);
  view.setUint32(MSGHDR + 8, 12, true);
  putUint64(view, MSGHDR + 16, memory.address);
  putUint64(view, MSGHDR + 24, 1);
  const sent = await calls.sendmsgAside(socket, header, 0);
  if (sent < 0) return callFailed(calls, 'sendmsg(netlink)', sent);
  let answer = new Uint8Array(0);
  for (let messages = 0; messages < 8; messages++) {
    memory.bytes.fill(0, 0, DATA);
    putUint64(view, 0, memory.address + DATA);
    putUint64(view, 8, REPLY_SIZE);
    putUint64(view, MSGHDR + 16, memory.address);
    putUint64(view, MSGHDR + 24, 1);
    const length = calls.recvmsg(socket, header, 0);
    if (length < 0) return callFailed(calls, 'recvmsg(netlink)', length);
    let at = 0;
    while (at + NLMSG_HEADER <= length) {
      const size = view.getUint32(DATA + at, true);
      if (size < NLMSG_HEADER || size > length - at) return fail('vdpa-refused', 'an answer that is cut off');
      if (view.getUint16(DATA + at + 4, true) === NLMSG_ERROR) {
        const errno = size >= NLMSG_HEADER + 4 ? -view.getInt32(DATA + at + NLMSG_HEADER, true) : 0;
        return errno === 0 ? ok(answer) : fail('vdpa-refused', `the vdpa bus: ${calls.errnoName(errno)}`);
      }
      answer = memory.bytes.slice(DATA + at, DATA + at + size);
      at += Math.ceil(size / 4) * 4;
    }
  }
  return fail('vdpa-refused', 'the kernel did not acknowledge');
}

function familyId(answer: Uint8Array): number | null {
  const view = new DataView(answer.buffer, answer.byteOffset, answer.length);
  let at = NLMSG_HEADER + GENL_HEADER;
  while (at + 4 <= answer.length) {
    const size = view.getUint16(at, true);
    if (size < 4 || size > answer.length - at) return null;
    if (view.getUint16(at + 2, true) === CTRL_FAMILY_ID && size >= 6) return view.getUint16(at + 4, true);
    at += Math.ceil(size / 4) * 4;
  }
  return null;
}
