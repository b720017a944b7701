/** A DHCP server with one address to give. RFC 2131, RFC 2132. */
import { readLe } from '@airlock/core/bytes.ts';
import { GATEWAY, GUEST, NETMASK } from './address.ts';

const FIXED = 236;
const COOKIE = 0x6382_5363;
const OPTIONS = FIXED + 4;
const REQUEST = 1;
const REPLY = 2;
const LEASE_SECONDS = 86_400;
/** RFC 1542 §2.1: a BOOTP message has at least 300 bytes. */
const LEAST_LENGTH = 300;

const DISCOVER = 1;
const OFFER = 2;
const REQUESTED = 3;
const ACK = 5;
const NAK = 6;
const INFORM = 8;

interface Asked {
  readonly kind: number;
  readonly server: number | null;
  readonly address: number | null;
}

/**
 * The answer to what came to port 67, or null when it is not for us or breaks a rule. `mtu` is told to the client when it
 * is given. The answer goes to the client's own hardware address; see `toEverybody`.
 */
export function answerDhcp(message: Uint8Array, mtu: number | undefined): Uint8Array | null {
  const view = new DataView(message.buffer, message.byteOffset, message.byteLength);
  if (message.length < OPTIONS || view.getUint8(0) !== REQUEST) return null;
  // Ethernet, six bytes.
  if (view.getUint8(1) !== 1 || view.getUint8(2) !== 6 || view.getUint32(FIXED) !== COOKIE) return null;
  const asked = readOptions(message, view);
  if (asked === null) return null;
  const has = view.getUint32(12);
  if (asked.kind === DISCOVER) return compose(message, OFFER, GUEST, mtu);
  if (asked.kind === INFORM) return compose(message, ACK, 0, mtu);
  if (asked.kind !== REQUESTED) return null;
  // Another server was chosen.
  if (asked.server !== null && asked.server !== GATEWAY) return null;
  const wanted = asked.address ?? has;
  return wanted === GUEST ? compose(message, ACK, GUEST, mtu) : compose(message, NAK, 0, undefined);
}

/** Does the answer have to go to everybody (RFC 2131 §4.1)? A client without an address cannot take another. */
export function toEverybody(message: Uint8Array, answer: Uint8Array): boolean {
  const noAddress = readLe(message, 12, 4) === 0;
  return noAddress || answer[OPTIONS + 2] === NAK;
}

function readOptions(message: Uint8Array, view: DataView): Asked | null {
  let kind = 0;
  let server: number | null = null;
  let address: number | null = null;
  for (let at = OPTIONS; at < message.length; ) {
    const code = view.getUint8(at);
    if (code === 255) break;
    if (code === 0) {
      at++;
      continue;
    }
    if (at + 2 > message.length) return null;
    const length = view.getUint8(at + 1);
    if (at + 2 + length > message.length) return null;
    if (code === 53 && length === 1) kind = view.getUint8(at + 2);
    if (code === 54 && length === 4) server = view.getUint32(at + 2);
    if (code === 50 && length === 4) address = view.getUint32(at + 2);
    at += 2 + length;
  }
  return kind === 0 ? null : { kind, server, address };
}

function compose(request: Uint8Array, kind: number, address: number, mtu: number | undefined): Uint8Array {
  const answer = new Uint8Array(LEAST_LENGTH + 20);
  const view = new DataView(answer.buffer);
  answer.set(request.subarray(0, 44)); // transaction, flags, addresses, hardware address
  view.setUint8(0, REPLY);
  view.setUint8(3, 0);
  view.setUint16(8, 0);
  if (kind === NAK || kind === OFFER) view.setUint32(12, 0);
  view.setUint32(16, address);
  view.setUint32(20, kind === NAK ? 0 : GATEWAY);
  view.setUint32(24, 0);
  view.setUint32(FIXED, COOKIE);
  let at = OPTIONS;
  const option = (code: number, width: 1 | 2 | 4, value: number) => {
    view.setUint8(at, code);
    view.setUint8(at + 1, width);
    if (width === 1) view.setUint8(at + 2, value);
    else if (width === 2) view.setUint16(at + 2, value);
    else view.setUint32(at + 2, value);
    at += 2 + width;
  };
  option(53, 1, kind);
  option(54, 4, GATEWAY);
  if (kind !== NAK) {
    if (address !== 0) option(51, 4, LEASE_SECONDS);
    option(1, 4, NETMASK);
    option(3, 4, GATEWAY);
    if (mtu !== undefined) option(26, 2, mtu);
  }
  view.setUint8(at, 255);
  return answer;
}
