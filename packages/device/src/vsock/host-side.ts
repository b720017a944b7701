/** Who answers for the host: which stream a port leads to, and who on the host wants to reach the guest. */
import type { HostStream } from '../host-stream.ts';

/** Somebody on the host wants to reach `port` of the guest, for a stream. */
export interface Caller {
  readonly port: number;
  readonly stream: HostStream;
  /** What was read from the stream already and is the guest's. */
  readonly rest: Uint8Array;
  /** What is said to the caller when the guest has taken the call; `port` is the one that stands for the host. */
  greeting(port: number): Uint8Array;
}

export interface HostSide {
  /** A stream to whoever serves `port` on the host; null where nobody does. */
  connect(port: number, type: number): HostStream | null;
  /** From now on `call` is told of callers; it returns false where there is no place for one (who is to be closed). */
  begin(call: (caller: Caller) => boolean): void;
  /** No callers any more, until `begin`. */
  end(): void;
  close(): void;
}
