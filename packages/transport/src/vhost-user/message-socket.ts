/** One end of a vhost-user stream. */
import { FramedSocket, type Framing } from '../framed-socket.ts';
import type { UnixCalls } from '../unix-socket.ts';
import { DESCRIPTORS_LIMIT, type Header, parseHeader } from './message.ts';
import { PAYLOAD_LIMIT } from './payload.ts';
import { HEADER_SIZE } from './protocol.ts';

const FRAMING: Framing<Header> = {
  headerSize: HEADER_SIZE,
  bodyLimit: PAYLOAD_LIMIT,
  descriptorsLimit: DESCRIPTORS_LIMIT,
  backlogLimit: 65536,
  parse: parseHeader,
  codes: {
    closed: 'vhost-user-closed',
    cutOff: 'vhost-user-cut-off',
    descriptors: 'vhost-user-descriptors',
    notReading: 'vhost-user-not-reading',
  },
};

export type MessageSocket = FramedSocket<Header>;

/** `fd` is a non-blocking stream socket, from now on the returned object's to close. */
export function messageSocket(calls: UnixCalls, fd: number): MessageSocket {
  return new FramedSocket(calls, fd, FRAMING);
}
