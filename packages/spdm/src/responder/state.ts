/** A responder's end of a connection: what it is, what was agreed, and what is going on. */
import type { Result } from '@airlock/core/result.ts';
import type { SpdmVersion } from '../algorithms.ts';
import type { CertificateChain } from '../certificate-chain.ts';
import type { SigningKey, SpdmCrypto, VerifyingKey } from '../crypto.ts';
import type { HandshakeSecrets } from '../key-schedule.ts';
import type { Capabilities } from '../messages/capabilities.ts';
import { ERROR_CODE } from '../messages/codes.ts';
import type { MeasurementBlock } from '../messages/measurements.ts';
import type { CertificateUpload, CsrRequest } from '../messages/provisioning.ts';
import { initialContext, type MessageContext } from '../messages/reader.ts';
import type { VendorMessage } from '../messages/vendor-defined.ts';
import type { Negotiated } from '../negotiate.ts';
import type { Binding } from '../secured/binding.ts';
import type { RecordSession } from '../secured/records.ts';
import { type MeasurementTranscript, Transcripts } from '../transcripts.ts';
import type { ResponderAlgorithms } from './select.ts';

/** A slot with its chain and what signs for it. */
export interface ResponderSlot {
  /** DER, root first, leaf last. */
  readonly certificates: readonly Uint8Array[];
  /** The root, where the chain does not begin with it. */
  readonly root?: Uint8Array;
  readonly key: SigningKey;
  /** With several keys: which pair it is, and the bits of KEY_USAGE that it may be used for; 1 and all when not given. */
  readonly keyPair?: number;
  readonly keyUsage?: number;
  /** 1 a device certificate, 2 an alias, 3 a generic one; 1 when not given. */
  readonly certificateModel?: number;
}

/** How a responder wants to know the requester in KEY_EXCHANGE. */
export type MutualMode = 'plain' | 'encapsulated' | 'digests';

export interface ResponderOptions {
  readonly crypto: SpdmCrypto;
  readonly binding: Binding;
  readonly algorithms: ResponderAlgorithms;
  /** By slot number, 0 to 7; slot 0 has to be there, unless there is a key that requesters know. */
  readonly slots: ReadonlyMap<number, ResponderSlot>;
  /** PUB_KEY_ID_CAP: a key that requesters were given beforehand, in place of all slots; DER SubjectPublicKeyInfo. */
  readonly knownKey?: { readonly spki: Uint8Array; readonly key: SigningKey };
  /** Requests that are first answered with ResponseNotReady, and after 2 to `exponent` microseconds in earnest. */
  readonly late?: { readonly codes: readonly number[]; readonly exponent: number };
  /** Values; where a digest is asked for and `raw` is not fixed, the measurement hash of the value is given. */
  readonly measurements?: readonly ResponderMeasurement[];
  /** MEL_CAP (1.3): the whole log. */
  readonly measurementLog?: Uint8Array;
  /** EP_INFO_CAP (1.3): EPInfo of the device class identifier. */
  readonly endpointInfo?: Uint8Array;
  /** PSK_CAP: the secret that a hint names; `undefined` for an unknown one. */
  readonly psk?: (hint: Uint8Array) => Uint8Array | undefined;
  /** PSK exchange with a context of the responder's, which is what makes it fresh for both; yes, when not given. */
  readonly pskContext?: boolean;
  /** MUT_AUTH_CAP: asks every requester who it is in a key exchange, and goes on only with those that are trusted. */
  readonly mutual?: {
    readonly mode: MutualMode;
    /** Lets requesters without MUT_AUTH_CAP stay anonymous; no, when not given. */
    readonly optional?: boolean;
    /** For `plain`: the requester's slot, whose chain was given beforehand. */
    readonly known?: Uint8Array;
    readonly trust: (chain: CertificateChain) => Result<unknown>;
  };
  /** VENDOR_DEFINED: the answer to a message of another body's protocol; null where it is not supported. */
  readonly vendor?: (message: VendorMessage, sessionId: number | null) => VendorMessage | null;
  /** CSR_CAP (1.2): a DER CertificationRequest; null where that cannot be made. */
  readonly csr?: (request: CsrRequest) => Uint8Array | null;
  /** SET_CERT_CAP (1.2): keeps a chain (without its SPDM header) for a slot; false where it is refused. */
  readonly setCertificate?: (upload: CertificateUpload) => boolean;
  /** HANDSHAKE_IN_THE_CLEAR_CAP; no, when not given. */
  readonly clearHandshake?: boolean;
  /** MULTI_KEY_CAP (1.3): `only` and `negotiable` give DIGESTS its key information; none when not given. */
  readonly multiKey?: 'only' | 'negotiable';
  /** Seconds between heartbeats; 0 for none, which it is when not given. */
  readonly heartbeat?: number;
  /** Bytes of the largest message in one transfer; 4,608 when not given. */
  readonly transferSize?: number;
  /** Bytes of the largest message in chunks; 256 KiB when not given. */
  readonly messageSize?: number;
  /** Sessions at a time; 4 when not given. */
  readonly sessionLimit?: number;
}

/** A measurement before it is put into a block. */
export interface ResponderMeasurement extends Omit<MeasurementBlock, 'type'> {
  /** Of the trusted computing base, as the summary of TCB components has it. */
  readonly tcb: boolean;
}

export type SessionPhase = 'handshake' | 'data';

export interface ResponderSession extends MeasurementTranscript {
  readonly id: number;
  readonly records: RecordSession;
  readonly psk: boolean;
  readonly clear: boolean;
  phase: SessionPhase;
  secrets: HandshakeSecrets;
  /** TH up to the message before FINISH. */
  transcript: Uint8Array[];
  /** What the requester has to sign with, when it was asked. */
  mutual: MutualHandshake | null;
  /** KEY_UPDATE: the new key is in use, and not yet verified. */
  unverified: boolean;
  /** What happens when the answer that is being made is protected: new keys, or the end. */
  after: (() => void) | null;
}

/** What is known of a requester while it is asked. */
export interface MutualHandshake {
  /** The slot that is asked for. */
  slot: number;
  /** What the responder waits for; `done` when FINISH may come. */
  waiting: 'ask' | 'digests' | 'certificate' | 'done';
  requestId: number;
  digest: Uint8Array;
  digests: Uint8Array | null;
  parts: Uint8Array[];
  chain: Uint8Array | null;
  key: VerifyingKey | null;
}

/** Chunks of a message that is coming in, or going out. */
export interface LargeTransfer {
  readonly handle: number;
  readonly bytes: Uint8Array;
  at: number;
  sequence: number;
  readonly sessionId: number | null;
}

export class ResponderState {
  readonly options: ResponderOptions;
  readonly transcripts = new Transcripts();
  readonly sessions = new Map<number, ResponderSession>();
  phase: 'none' | 'version' | 'capabilities' | 'negotiated' = 'none';
  /** The version that the requester chose; null before, when errors are of 1.0. */
  spoken: SpdmVersion | null = null;
  peer: Capabilities | null = null;
  own: Capabilities;
  context: MessageContext;
  negotiated: Negotiated | null = null;
  /** A request that is to be answered when it is asked for again. */
  pending: { readonly token: number; readonly message: Uint8Array; readonly sessionId: number | null } | null = null;
  incoming: LargeTransfer | null = null;
  outgoing: LargeTransfer | null = null;
  nextHandle = 0;
  nextSession = 1;
  /** Of the session in whose handshake messages come in the clear. */
  clearSession: ResponderSession | null = null;

  constructor(options: ResponderOptions) {
    this.options = options;
    this.own = { flags: 0, cryptoTimeExponent: 0, dataTransferSize: 0, maxMessageSize: 0 };
    this.context = initialContext('1.1', options.binding.padding);
  }

  get version(): SpdmVersion {
    return this.context.version;
  }

  get transferSize(): number {
    return Math.min(this.options.transferSize ?? 4608, this.options.binding.messageLimit);
  }

  get messageSize(): number {
    return Math.max(this.options.messageSize ?? 256 * 1024, this.transferSize);
  }

  reset(): void {
    for (const session of this.sessions.values()) session.records.close();
    this.sessions.clear();
    this.transcripts.reset();
    this.phase = 'none';
    this.spoken = null;
    this.peer = null;
    this.negotiated = null;
    this.pending = null;
    this.incoming = null;
    this.outgoing = null;
    this.clearSession = null;
    this.context = initialContext('1.1', this.options.binding.padding);
  }

  end(session: ResponderSession): void {
    session.records.close();
    this.sessions.delete(session.id);
    if (this.clearSession === session) this.clearSession = null;
  }
}

/** What goes back: a message, or the code of an ERROR. */
export type Answer =
  | { readonly kind: 'message'; readonly bytes: Uint8Array }
  | { readonly kind: 'error'; readonly code: number; readonly data: number; readonly extended?: Uint8Array };

export function reply(bytes: Uint8Array): Answer {
  return { kind: 'message', bytes };
}

export function refuse(code: keyof typeof ERROR_CODE, data = 0): Answer {
  return { kind: 'error', code: ERROR_CODE[code], data };
}
