/** A requester's end of a connection: what was agreed, what was said, and how one request comes to its answer. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { HASH_SIZE, type SpdmVersion, since, VERSION_BYTE } from '../algorithms.ts';
import type { CertificateChain } from '../certificate-chain.ts';
import type { SigningKey, SpdmCrypto, VerifyingKey } from '../crypto.ts';
import { type Capabilities, hasCapability, MIN_DATA_TRANSFER_SIZE } from '../messages/capabilities.ts';
import { chunkOverhead, decodeChunk, decodeChunkSendAck, encodeChunk, encodeChunkGet } from '../messages/chunk.ts';
import { ERROR_CODE, nameOfCode, nameOfError, REQUEST, RESPONSE } from '../messages/codes.ts';
import { decodeError, type ErrorMessage, encodeRespondIfReady, notReadyOf } from '../messages/error.ts';
import { initialContext, type MessageContext } from '../messages/reader.ts';
import { DEFAULT_PREFERENCES, type Negotiated, type Preferences } from '../negotiate.ts';
import type { Binding } from '../secured/binding.ts';
import type { RecordSession } from '../secured/records.ts';
import type { SigningSuite } from '../signing.ts';
import { type MeasurementTranscript, Transcripts } from '../transcripts.ts';
import type { Procedure } from './procedure.ts';

/** The requester's own chain and key, for responders that want to know it. */
export interface RequesterIdentity {
  readonly slot: number;
  /** The slot's chain for a version and a hash; `encodeCertificateChain` makes it. */
  chain(negotiated: Negotiated): Uint8Array;
  readonly key: SigningKey;
}

export interface RequesterOptions {
  readonly crypto: SpdmCrypto;
  readonly binding: Binding;
  /**
   * Is this chain one that is trusted? Asked once for each chain, before its key verifies anything. Without an answer of
   * `ok` nothing that the chain's key signed is believed.
   */
  readonly trust: (chain: CertificateChain, slot: number) => Result<unknown>;
  /** `DEFAULT_PREFERENCES` when not given. */
  readonly preferences?: Preferences;
  /** For mutual authentication; without it the requester stays anonymous. */
  readonly identity?: RequesterIdentity;
  /** A secret that both ends hold beforehand, and the hint that names it. */
  readonly psk?: { readonly secret: Uint8Array; readonly hint: Uint8Array };
  /** DER SubjectPublicKeyInfo of a responder that has a key without a certificate (PUB_KEY_ID_CAP). */
  readonly peerKey?: Uint8Array;
  /** Bytes of the largest message in one transfer; what the binding can carry, at most 61,440, when not given. */
  readonly transferSize?: number;
  /** Bytes of the largest message in chunks; 1 MiB when not given. */
  readonly messageSize?: number;
  /** How often a busy responder is asked again; 10 when not given. */
  readonly busyLimit?: number;
  /** Milliseconds that a responder which is not ready gets altogether for one answer; 10,000 when not given. */
  readonly patience?: number;
  /** May the handshake of a session stay in the clear (HANDSHAKE_IN_THE_CLEAR_CAP)? No, when not given. */
  readonly clearHandshake?: boolean;
}

/** What a slot's key verifies with. */
export interface PeerKey {
  readonly slot: number;
  /** What transcripts cover: the chain, or a key that was given beforehand. */
  readonly digest: Uint8Array;
  readonly chain: CertificateChain | null;
  readonly key: VerifyingKey;
}

export interface Session extends MeasurementTranscript {
  readonly id: number;
  readonly records: RecordSession;
  phase: 'handshake' | 'data' | 'closed';
  /** Seconds between heartbeats that the responder asks for; 0 for none. */
  readonly heartbeat: number;
  readonly psk: boolean;
}

/** T1 is RTT + ST1: 100 ms for the responder, and as much again for the way. */
const PLAIN_TIME = 200;
const BUSY_WAIT = 50;
const TRANSFER_SIZE = 61_440;
const MESSAGE_SIZE = 1024 * 1024;
const CRYPTO_REQUESTS: readonly number[] = [
  ...[REQUEST.CHALLENGE, REQUEST.GET_MEASUREMENTS, REQUEST.KEY_EXCHANGE, REQUEST.FINISH, REQUEST.PSK_EXCHANGE],
  ...[REQUEST.PSK_FINISH, REQUEST.GET_DIGESTS, REQUEST.GET_CERTIFICATE, REQUEST.GET_ENDPOINT_INFO, REQUEST.GET_CSR],
  ...[REQUEST.CHUNK_GET, REQUEST.CHUNK_SEND, REQUEST.DELIVER_ENCAPSULATED_RESPONSE, REQUEST.SET_CERTIFICATE],
];

export class Connection {
  readonly options: RequesterOptions;
  readonly preferences: Preferences;
  readonly transcripts = new Transcripts();
  readonly sessions = new Map<number, Session>();
  /** Digests of DIGESTS, by slot. */
  readonly digests = new Map<number, Uint8Array>();
  readonly keys = new Map<number, PeerKey>();
  /** KeyUsageMask of each slot, where the responder has several keys. */
  readonly usages = new Map<number, number>();
  own: Capabilities;
  peer: Capabilities | null = null;
  version: SpdmVersion | null = null;
  context: MessageContext;
  negotiated: Negotiated | null = null;
  private handle = 0;

  constructor(options: RequesterOptions) {
    this.options = options;
    this.preferences = options.preferences ?? DEFAULT_PREFERENCES;
    this.own = { flags: 0, cryptoTimeExponent: 0, dataTransferSize: 0, maxMessageSize: 0 };
    this.context = initialContext('1.1', options.binding.padding);
  }

  get crypto(): SpdmCrypto {
    return this.options.crypto;
  }

  get transferSize(): number {
    return Math.min(this.options.transferSize ?? TRANSFER_SIZE, this.options.binding.messageLimit);
  }

  get messageSize(): number {
    return Math.max(this.options.messageSize ?? MESSAGE_SIZE, this.transferSize);
  }

  /** Both sides can cut messages into chunks. */
  get chunks(): boolean {
    return hasCapability(this.own.flags & (this.peer?.flags ?? 0), 'CHUNK');
  }

  /** Does the responder have every one of these? Code: `capability-missing`. */
  need(...names: readonly Parameters<typeof hasCapability>[1][]): Result<Negotiated> {
    const { negotiated, peer } = this;
    if (negotiated === null || peer === null) return fail('state-wrong', 'nothing is negotiated yet');
    const missing = names.filter((name) => !hasCapability(peer.flags, name));
    return missing.length === 0
      ? ok(negotiated)
      : fail('capability-missing', `the responder has no ${missing.map((name) => `${name}_CAP`).join(', ')}`);
  }

  signingSuite(negotiated: Negotiated): SigningSuite | undefined {
    const { version, hash, signature } = negotiated;
    return signature === null ? undefined : { version, hash, algorithm: signature };
  }

  get hashSize(): number {
    return this.negotiated === null ? 0 : HASH_SIZE[this.negotiated.hash];
  }

  /** Forgets everything that an earlier VCA and its sessions left. */
  reset(): void {
    for (const session of this.sessions.values()) session.records.close();
    this.sessions.clear();
    this.transcripts.reset();
    this.digests.clear();
    this.keys.clear();
    this.usages.clear();
    this.peer = null;
    this.version = null;
    this.negotiated = null;
    this.context = initialContext('1.1', this.options.binding.padding);
  }

  /**
   * One request and its answer, which has code `answer` and may be padded; `BUSY`, `ResponseNotReady` and chunks are
   * dealt with here, within their limits. Codes: `message-*`, `peer-*`, `chunk-invalid`, `state-wrong` and those of
   * records and of the binding.
   */
  *exchange(request: Uint8Array, answer: number, session: Session | null): Procedure<Uint8Array> {
    const code = request[1] ?? 0;
    if (session !== null && session.phase === 'closed') return fail('session-closed', 'the session ended');
    this.transcripts.begin(code, session);
    const { busyLimit = 10 } = this.options;
    const limit = Math.min(this.peer?.dataTransferSize ?? request.length, this.options.binding.messageLimit);
    if (request.length > (this.peer?.maxMessageSize ?? request.length))
      return fail('message-too-large', `${nameOfCode(code)} of ${request.length} bytes`);
    for (let attempt = 0; ; attempt++) {
      const received =
        request.length > limit
          ? yield* this.sendChunks(request, limit, session)
          : yield* this.transfer(request, this.timeFor(code), session);
      if (!received.ok) return received;
      const settled = yield* this.settle(received.value, answer, code, session);
      if (!settled.ok || settled.value !== null) return settled as Result<Uint8Array>;
      if (attempt >= busyLimit) return fail('peer-busy', `${nameOfCode(code)}: busy ${attempt + 1} times`);
      yield { kind: 'wait', milliseconds: BUSY_WAIT * Math.min(attempt + 1, 8) };
    }
  }

  /** Milliseconds that the answer to a request may take. */
  private timeFor(code: number): number {
    const exponent = this.peer?.cryptoTimeExponent ?? 0;
    return CRYPTO_REQUESTS.includes(code) ? PLAIN_TIME + 2 ** Math.min(exponent, 31) / 1000 : PLAIN_TIME;
  }

  /** One message out and one in, protected where they are of a session. */
  private *transfer(message: Uint8Array, within: number, session: Session | null): Procedure<Uint8Array> {
    const { binding } = this.options;
    let outgoing: Result<Uint8Array>;
    if (session === null) outgoing = binding.wrap('plain', message);
    else {
      const record = session.records.protect(binding.wrapApplication(message));
      outgoing = record.ok ? binding.wrap('secured', record.value) : record;
    }
    if (!outgoing.ok) return outgoing;
    const incoming = yield { kind: 'send', bytes: outgoing.value, within };
    const unwrapped = binding.unwrap(incoming);
    if (!unwrapped.ok) return unwrapped;
    const { kind, message: body } = unwrapped.value;
    if (session === null) {
      if (kind !== 'plain') return fail('message-wrong-channel', 'a secured message answers one in the clear');
      return this.bounded(body);
    }
    if (kind !== 'secured') {
      const error = body[1] === RESPONSE.ERROR ? `: ${nameOfError(body[2] ?? 0)}` : '';
      return fail('message-wrong-channel', `a message in the clear answers one of a session${error}`);
    }
    const data = session.records.unprotect(body);
    if (!data.ok) {
      if (session.records.closed) session.phase = 'closed';
      return data;
    }
    const inner = binding.unwrapApplication(data.value);
    return inner.ok ? this.bounded(inner.value) : inner;
  }

  private bounded(message: Uint8Array): Result<Uint8Array> {
    const limit = this.transferSize + this.options.binding.padding;
    return message.length > limit
      ? fail('message-too-large', `${message.length} bytes came, at most ${this.transferSize} were announced`)
      : ok(message);
  }

  /** Null: the responder is busy, ask again. */
  private *settle(
    received: Uint8Array,
    answer: number,
    request: number,
    session: Session | null,
  ): Procedure<Uint8Array | null> {
    const { patience = 10_000 } = this.options;
    let current = received;
    for (let waited = 0; ; ) {
      const looked = this.look(current, answer, request);
      if (!looked.ok || looked.value === null) return looked.ok ? ok(current) : looked;
      const error = looked.value;
      if (error.code === ERROR_CODE.Busy) return ok(null);
      if (error.code === ERROR_CODE.LargeResponse) return yield* this.fetchChunks(error, answer, request, session);
      const notReady = notReadyOf(error);
      if (notReady === undefined) return this.refused(error, request);
      if (notReady.request !== request || request === REQUEST.GET_VERSION)
        return fail('message-unexpected', `ResponseNotReady for ${nameOfCode(notReady.request)}`);
      const time = Math.max(1, 2 ** Math.min(notReady.exponent, 40) / 1000);
      waited += time;
      if (waited > patience)
        return fail('peer-not-ready', `${nameOfCode(request)}: not ready after ${Math.round(waited)} ms`);
      yield { kind: 'wait', milliseconds: time };
      const again = yield* this.transfer(encodeRespondIfReady(this.context, notReady), this.timeFor(request), session);
      if (!again.ok) return again;
      current = again.value;
    }
  }

  /** Null when the message is the answer; the error when it is ERROR. */
  private look(message: Uint8Array, answer: number, request: number): Result<ErrorMessage | null> {
    const version = request === REQUEST.GET_VERSION ? null : this.context.version;
    const [stated = 0, code = -1] = message;
    if (message.length < 4)
      return fail('message-malformed', `${nameOfCode(request)}: an answer of ${message.length} bytes`);
    if (code === RESPONSE.ERROR) {
      const error = decodeError(message, version);
      return error.ok ? ok(error.value.message) : error;
    }
    if (code !== answer)
      return fail('message-unexpected', `${nameOfCode(request)} is answered with ${nameOfCode(code)}`);
    const expected = version === null ? 0x10 : VERSION_BYTE[version];
    if (stated !== expected)
      return fail(
        'message-malformed',
        `${nameOfCode(code)}: SPDMVersion 0x${stated.toString(16)}, expected 0x${expected.toString(16)}`,
      );
    return ok(null);
  }

  private refused(error: ErrorMessage, request: number): Result<never> {
    const data = error.data === 0 ? '' : `, data 0x${error.data.toString(16)}`;
    return fail('peer-error', `${nameOfCode(request)}: ${nameOfError(error.code)}${data}`);
  }

  private nextHandle(): number {
    this.handle = (this.handle + 1) & 0xff;
    return this.handle;
  }

  /** A request in chunks; what comes back is the answer to it, or ERROR. */
  private *sendChunks(request: Uint8Array, limit: number, session: Session | null): Procedure<Uint8Array> {
    if (!this.chunks) return fail('message-too-large', `${request.length} bytes, the responder takes ${limit}`);
    const handle = this.nextHandle();
    for (let sequence = 0, at = 0; ; sequence++) {
      const size = limit - chunkOverhead(sequence === 0);
      const data = request.slice(at, at + size);
      at += data.length;
      const last = at >= request.length;
      const chunk = { handle, sequence, last, size: sequence === 0 ? request.length : null, data };
      const message = encodeChunk(this.context, REQUEST.CHUNK_SEND, chunk);
      const received = yield* this.transfer(message, this.timeFor(REQUEST.CHUNK_SEND), session);
      if (!received.ok) return received;
      if (received.value[1] === RESPONSE.ERROR) return received;
      const ack = decodeChunkSendAck(received.value, this.context);
      if (!ack.ok) return ack;
      const { message: told } = ack.value;
      if (told.handle !== handle)
        return fail('chunk-invalid', `CHUNK_SEND_ACK of handle ${told.handle}, not ${handle}`);
      if (told.earlyError) return ok(told.response);
      if (told.sequence !== sequence)
        return fail('chunk-invalid', `CHUNK_SEND_ACK of chunk ${told.sequence}, not ${sequence}`);
      if (last) return ok(told.response);
    }
  }

  /** An answer in chunks. */
  private *fetchChunks(
    error: ErrorMessage,
    answer: number,
    request: number,
    session: Session | null,
  ): Procedure<Uint8Array> {
    const [handle] = error.extended;
    if (!this.chunks || handle === undefined || !since(this.context.version, '1.2'))
      return fail('message-unexpected', `${nameOfCode(request)}: LargeResponse without chunks`);
    let whole = new Uint8Array();
    for (let sequence = 0, at = 0; ; sequence++) {
      const get = encodeChunkGet(this.context, handle, sequence);
      const received = yield* this.transfer(get, this.timeFor(REQUEST.CHUNK_GET), session);
      if (!received.ok) return received;
      if (received.value[1] === RESPONSE.ERROR) {
        const refusal = decodeError(received.value, this.context.version);
        return refusal.ok ? this.refused(refusal.value.message, REQUEST.CHUNK_GET) : refusal;
      }
      const decoded = decodeChunk(received.value, this.context, RESPONSE.CHUNK_RESPONSE);
      if (!decoded.ok) return decoded;
      const chunk = decoded.value.message;
      if (chunk.handle !== handle || chunk.sequence !== sequence)
        return fail(
          'chunk-invalid',
          `chunk ${chunk.sequence} of handle ${chunk.handle}, asked for ${sequence} of ${handle}`,
        );
      // DSP0274 1.3, CHUNK_RESPONSE: only the last one may be smaller than the smallest transfer.
      if (!chunk.last && received.value.length < MIN_DATA_TRANSFER_SIZE)
        return fail('chunk-invalid', `chunk ${sequence} has ${chunk.data.length} bytes and is not the last`);
      if (chunk.size !== null) {
        if (chunk.size > this.messageSize)
          return fail('message-too-large', `${chunk.size} bytes in chunks, at most ${this.messageSize} were announced`);
        whole = new Uint8Array(chunk.size);
      }
      if (at + chunk.data.length > whole.length)
        return fail('chunk-invalid', `more than the ${whole.length} bytes that were announced`);
      whole.set(chunk.data, at);
      at += chunk.data.length;
      if (chunk.last !== (at === whole.length))
        return fail('chunk-invalid', chunk.last ? `the last chunk ends at ${at} of ${whole.length}` : 'no last chunk');
      if (chunk.last) break;
    }
    const looked = this.look(whole, answer, request);
    if (!looked.ok) return looked;
    return looked.value === null ? ok(whole) : this.refused(looked.value, request);
  }
}
