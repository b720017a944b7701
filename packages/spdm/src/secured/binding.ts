/** What a transport adds around SPDM messages and secured messages: one value for each binding. */
import type { Result } from '@airlock/core/result.ts';

/** `plain` is an SPDM message outside of a session, `secured` a record of one. */
export type MessageKind = 'plain' | 'secured';

export interface Unwrapped {
  readonly kind: MessageKind;
  /** With the transport's padding, if it pads. */
  readonly message: Uint8Array;
}

export interface Binding {
  readonly name: 'doe' | 'mctp' | 'tcp';
  /** Bytes of the sequence number that stand in the header of every record (DSP0277 §9.1). */
  readonly sequenceBytes: 0 | 2;
  /** At most so many random bytes hide the length of a record's application data. */
  readonly randomLimit: number;
  /** At most so many zero bytes follow a message, because the transport counts in larger units. */
  readonly padding: 0 | 3;
  /** The longest message of either kind, in bytes. */
  readonly messageLimit: number;
  wrap(kind: MessageKind, message: Uint8Array): Result<Uint8Array>;
  unwrap(bytes: Uint8Array): Result<Unwrapped>;
  /** What is protected in place of an SPDM message within a session. */
  wrapApplication(message: Uint8Array): Uint8Array;
  /** The SPDM message within a session; anything else that a record may carry is refused. */
  unwrapApplication(data: Uint8Array): Result<Uint8Array>;
}
