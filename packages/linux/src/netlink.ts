/**
 * Generic netlink messages (linux/netlink.h, linux/genetlink.h) as bytes: requests out, answers in pieces. Integers are in
 * the machine's order, which is little-endian wherever Airlock runs.
 */
import { asciiText, readLe } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { asciiBytes, concat } from '@airlock/evidence/bytes.ts';
import { le16, le32 } from '@airlock/spdm/little-endian.ts';

export const NETLINK = { error: 2, done: 3, request: 0x1, acknowledge: 0x4, dump: 0x300 } as const;
const HEADER = 16;
const GENERIC_HEADER = 4;
const CONTROL = 0x10;
const GET_FAMILY = 3;
const FAMILY = { id: 1, name: 2 } as const;
const MESSAGE_LIMIT = 4096;

/** Sends one request and gives all messages of its answer; its end is `endOf`'s to say. */
export interface GenericNetlink {
  ask(request: Uint8Array): Promise<Result<readonly NetlinkMessage[]>>;
  close(): void;
}

export interface NetlinkMessage {
  readonly type: number;
  readonly sequence: number;
  /** After the netlink header. */
  readonly body: Uint8Array;
}

export interface NetlinkRequest {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  readonly command: number;
  readonly version: number;
  readonly attributes: readonly (readonly [type: number, value: Uint8Array])[];
}

export function encodeNetlinkRequest(request: NetlinkRequest): Uint8Array {
  const attributes = request.attributes.map(([type, value]) => {
    const padding = new Uint8Array((4 - (value.length % 4)) % 4);
    return concat(le16(4 + value.length), le16(type), value, padding);
  });
  const body = concat(Uint8Array.of(request.command, request.version, 0, 0), ...attributes);
  const flags = request.flags | NETLINK.request;
  return concat(le32(HEADER + body.length), le16(request.type), le16(flags), le32(request.sequence), le32(0), body);
}

/** The messages of one datagram. Codes: `netlink-invalid`. */
export function splitNetlink(datagram: Uint8Array): Result<readonly NetlinkMessage[]> {
  const found: NetlinkMessage[] = [];
  for (let at = 0; at < datagram.length; ) {
    const length = readLe(datagram, at, 4) ?? 0;
    if (length < HEADER || at + length > datagram.length || found.length >= MESSAGE_LIMIT)
      return fail('netlink-invalid', `a message of ${length} bytes at ${at} of ${datagram.length}`);
    found.push({
      type: readLe(datagram, at + 4, 2) ?? 0,
      sequence: readLe(datagram, at + 8, 4) ?? 0,
      body: datagram.slice(at + HEADER, at + length),
    });
    at += (length + 3) & ~3;
  }
  return ok(found);
}

/** The errno with which an answer ends, 0 for none; `undefined` as long as it goes on. */
export function endOf({ type, body }: NetlinkMessage): number | undefined {
  if (type !== NETLINK.error && type !== NETLINK.done) return undefined;
  const status = readLe(body, 0, 4);
  // Two's complement of a positive errno; a DONE without one is a good end.
  return status === undefined ? 0 : (0x1_0000_0000 - status) % 0x1_0000_0000;
}

/** The attributes of a generic message by their types, in order. Codes: `netlink-invalid`. */
export function readAttributes(body: Uint8Array): Result<readonly (readonly [type: number, value: Uint8Array])[]> {
  const found: [number, Uint8Array][] = [];
  for (let at = GENERIC_HEADER; at < body.length; ) {
    const length = readLe(body, at, 2) ?? 0;
    if (length < 4 || at + length > body.length) return fail('netlink-invalid', `an attribute of ${length} bytes`);
    // The two highest bits tell nesting and byte order.
    found.push([(readLe(body, at + 2, 2) ?? 0) & 0x3fff, body.slice(at + 4, at + length)]);
    at += (length + 3) & ~3;
  }
  return ok(found);
}

/** A text with the NUL that netlink wants behind it. */
export function netlinkText(text: string): Uint8Array {
  return concat(asciiBytes(text), Uint8Array.of(0));
}

/** The number of a family; `undefined` where the kernel has none of that name. Codes: of `ask`, `netlink-invalid`. */
export async function findFamily(netlink: GenericNetlink, name: string): Promise<Result<number | undefined>> {
  const answer = await netlink.ask(
    encodeNetlinkRequest({
      ...{ type: CONTROL, flags: NETLINK.acknowledge, sequence: 1, command: GET_FAMILY, version: 1 },
      attributes: [[FAMILY.name, netlinkText(name)]],
    }),
  );
  if (!answer.ok) return answer;
  for (const { type, body } of answer.value) {
    if (type !== CONTROL) continue;
    const attributes = readAttributes(body);
    if (!attributes.ok) return attributes;
    const own = attributes.value.find(([one]) => one === FAMILY.name)?.[1];
    const id = attributes.value.find(([one]) => one === FAMILY.id)?.[1];
    if (own === undefined || id === undefined || asciiText(own) !== `${name}\\x00`)
      return fail('netlink-invalid', `the answer is not about ${name}`);
    return ok(readLe(id, 0, 2));
  }
  return ok(undefined);
}
