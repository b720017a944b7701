/**
 * Secured messages, DSP0277 1.2: each record protected with its direction's key, a nonce made of its place in the
 * order, and its header. Nothing may be left out, repeated or moved; after a forgery the session is over.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { AEAD_IV_SIZE, AEAD_TAG_SIZE } from '../algorithms.ts';
import type { SpdmCrypto } from '../crypto.ts';
import { FieldReader, le16, le32 } from '../little-endian.ts';
import type { Binding } from './binding.ts';
import { type RecordSuite, type TrafficKeys, trafficKeys, updatedSecret } from './traffic-keys.ts';

export type Direction = 'request' | 'response';

/** Major secrets of DSP0274 §12: of the handshake, or of the data after it. */
export type RecordSecrets = Readonly<Record<Direction, Uint8Array>>;

export interface RecordOptions {
  readonly crypto: SpdmCrypto;
  readonly suite: RecordSuite;
  readonly binding: Pick<Binding, 'sequenceBytes' | 'randomLimit' | 'padding'>;
  /** ReqSessionID in the low 16 bits, RspSessionID in the high ones. */
  readonly sessionId: number;
  readonly role: 'requester' | 'responder';
  /** `authenticated`: both ends have MAC_CAP and not both ENCRYPT_CAP. */
  readonly protection: 'encrypted' | 'authenticated';
  /** At most 2 to the power of this many records with one key (DSP0277 1.3, AEAD limit); 64 when not given. */
  readonly limitExponent?: number;
  /** How the sequence number goes into the nonce; DSP0277 says it from 1.2 on: little. */
  readonly order?: 'little' | 'big';
}

export interface RecordSession {
  readonly sessionId: number;
  /** Secrets of the next phase: sequence numbers begin at 0, keys before are gone. */
  install(secrets: RecordSecrets): void;
  /**
   * One record. Codes: `record-too-large`, `record-exhausted`, `session-closed`.
   */
  protect(data: Uint8Array): Result<Uint8Array>;
  /**
   * The application data of the next record of the other side. Codes: `record-invalid`, `record-session-unknown`,
   * `record-out-of-order` (all three before anything is decrypted: the session goes on), `record-exhausted`, and
   * `record-forged`, which closes the session. `session-closed` from then on.
   */
  unprotect(record: Uint8Array): Result<Uint8Array>;
  /**
   * The next key of one direction (KEY_UPDATE). Records received under the key before are still taken until the first
   * one under the new key is good, because the other side may have refused the update: such a record takes it back.
   */
  renew(direction: Direction): void;
  /** Forgets every key. */
  close(): void;
  readonly closed: boolean;
}

const TAG_SIZE = AEAD_TAG_SIZE;
/** Length counts all that follows it, in 16 bits. */
const LENGTH_LIMIT = 0xffff;

interface Generation {
  readonly secret: Uint8Array;
  readonly keys: TrafficKeys;
  sequence: number;
}

interface Channel {
  current: Generation | null;
  /** Receiving only, between a key update and the first record under the new key. */
  previous: Generation | null;
}

export function createRecordSession(options: RecordOptions): RecordSession {
  const { crypto, suite, binding, sessionId, role, protection, limitExponent = 64, order = 'little' } = options;
  const sending: Direction = role === 'requester' ? 'request' : 'response';
  const receiving: Direction = role === 'requester' ? 'response' : 'request';
  const channels: Record<Direction, Channel> = {
    request: { current: null, previous: null },
    response: { current: null, previous: null },
  };
  // Numbers are exact up to 2^53, which is more records than any session sees.
  const limit = Math.min(2 ** limitExponent, Number.MAX_SAFE_INTEGER);
  let closed = false;

  function begin(secret: Uint8Array): Generation {
    const own = secret.slice();
    return { secret: own, keys: trafficKeys(crypto, suite, own), sequence: 0 };
  }

  function forget(generation: Generation | null): void {
    generation?.secret.fill(0);
    generation?.keys.key.fill(0);
    generation?.keys.iv.fill(0);
  }

  function clear(channel: Channel): void {
    forget(channel.current);
    forget(channel.previous);
    channel.current = null;
    channel.previous = null;
  }

  function close(): void {
    closed = true;
    clear(channels.request);
    clear(channels.response);
  }

  function nonce({ keys, sequence }: Generation): Uint8Array {
    const iv = keys.iv.slice();
    for (let i = 0, left = sequence; i < 8; i++, left = Math.floor(left / 256)) {
      const at = order === 'little' ? i : AEAD_IV_SIZE - 1 - i;
      iv[at] = (iv[at] ?? 0) ^ (left % 256);
    }
    return iv;
  }

  function header(sequence: number, length: number): Uint8Array {
    return concat(
      le32(sessionId),
      binding.sequenceBytes === 2 ? le16(sequence % 0x1_0000) : new Uint8Array(),
      le16(length),
    );
  }

  function protect(data: Uint8Array): Result<Uint8Array> {
    const { current } = channels[sending];
    if (closed || current === null) return fail('session-closed', 'the session has no keys');
    if (current.sequence >= limit) return fail('record-exhausted', `${limit} records with one key`);
    const inner = protection === 'encrypted' ? 2 : 0;
    const room = LENGTH_LIMIT - TAG_SIZE - inner - data.length;
    if (room < 0) return fail('record-too-large', `${data.length} bytes of application data`);
    const random = protection === 'encrypted' ? randomTail(Math.min(room, binding.randomLimit)) : new Uint8Array();
    const length = inner + data.length + random.length + TAG_SIZE;
    const start = header(current.sequence, length);
    const iv = nonce(current);
    current.sequence++;
    if (protection === 'encrypted') {
      const plain = concat(le16(data.length), data, random);
      return ok(concat(start, crypto.seal(suite.aead, current.keys.key, iv, start, plain)));
    }
    const clear = concat(start, data);
    return ok(concat(clear, crypto.seal(suite.aead, current.keys.key, iv, clear, new Uint8Array())));
  }

  /** From none to `most` random bytes, which hide how long the data are. */
  function randomTail(most: number): Uint8Array {
    if (most === 0) return new Uint8Array();
    return crypto.random((crypto.random(1)[0] ?? 0) % (most + 1));
  }

  /** `undefined`: it does not verify. */
  function open(generation: Generation, start: Uint8Array, body: Uint8Array): Uint8Array | undefined {
    const iv = nonce(generation);
    if (protection === 'encrypted') return crypto.open(suite.aead, generation.keys.key, iv, start, body);
    const data = body.slice(0, body.length - TAG_SIZE);
    const tag = body.subarray(body.length - TAG_SIZE);
    const good = crypto.open(suite.aead, generation.keys.key, iv, concat(start, data), tag) !== undefined;
    return good ? data : undefined;
  }

  function unprotect(record: Uint8Array): Result<Uint8Array> {
    const channel = channels[receiving];
    const { current, previous } = channel;
    if (closed || current === null) return fail('session-closed', 'the session has no keys');
    const reader = new FieldReader(record, 'record-invalid', 'secured message');
    const id = reader.u32('the session id');
    const sequence = binding.sequenceBytes === 2 ? reader.u16('the sequence number') : undefined;
    const length = reader.u16('the length');
    if (reader.problem === null && length < TAG_SIZE + (protection === 'encrypted' ? 2 : 0))
      reader.refuse(`a length of ${length}, which a tag does not fit into`);
    const body = reader.take(length, 'the protected data');
    if (reader.left > binding.padding) reader.refuse(`${reader.left} bytes too many`);
    reader.reserved(reader.left, 'the padding');
    if (reader.problem !== null) return { ok: false, error: reader.problem };
    if (id !== sessionId)
      return fail('record-session-unknown', `session ${id.toString(16)}, this one is ${sessionId.toString(16)}`);
    const candidates = (previous === null ? [current] : [current, previous]).filter(
      (one) => sequence === undefined || one.sequence % 0x1_0000 === sequence,
    );
    const [first] = candidates;
    if (first === undefined)
      return fail('record-out-of-order', `sequence number ${sequence}, ${current.sequence % 0x1_0000} is next`);
    if (first.sequence >= limit) return fail('record-exhausted', `${limit} records with one key`);
    for (const candidate of candidates) {
      if (candidate.sequence >= limit) continue;
      const opened = open(candidate, header(candidate.sequence, length), body);
      if (opened === undefined) continue;
      candidate.sequence++;
      // The first record under either key decides on which side of the update the other end is.
      forget(candidate === current ? previous : current);
      channel.current = candidate;
      channel.previous = null;
      return takeData(opened);
    }
    close();
    return fail('record-forged', 'a secured message does not verify; the session is closed');
  }

  function takeData(opened: Uint8Array): Result<Uint8Array> {
    if (protection === 'authenticated') return ok(opened);
    const size = (opened[0] ?? 0) | ((opened[1] ?? 0) << 8);
    if (size <= opened.length - 2) return ok(opened.slice(2, 2 + size));
    // Only the other end itself can have written this: it cannot be believed any more.
    close();
    return fail('record-invalid', `${size} bytes of application data stated, ${opened.length - 2} there`);
  }

  return {
    sessionId,
    get closed() {
      return closed;
    },
    install(secrets) {
      if (closed) return;
      for (const direction of ['request', 'response'] as const) {
        const channel = channels[direction];
        clear(channel);
        channel.current = begin(secrets[direction]);
      }
    },
    protect,
    unprotect,
    renew(direction) {
      const channel = channels[direction];
      if (closed || channel.current === null) return;
      const next = begin(updatedSecret(crypto, suite, channel.current.secret));
      forget(channel.previous);
      if (direction === receiving) channel.previous = channel.current;
      else forget(channel.current);
      channel.current = next;
    },
    close,
  };
}

/** The session that a record is of, before it is known whether there is one. Codes: `record-invalid`. */
export function recordSessionId(record: Uint8Array): Result<number> {
  const reader = new FieldReader(record, 'record-invalid', 'secured message');
  const id = reader.u32('the session id');
  return reader.problem === null ? ok(id) : { ok: false, error: reader.problem };
}
