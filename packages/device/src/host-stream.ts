/** One end of a stream of bytes on the host, such as a connected Unix socket, as a device sees it. Nothing waits. */

/** `read`: there will be no more bytes. */
export const STREAM_END = -1;
/** The other end is gone, or the descriptor failed. */
export const STREAM_FAILED = -2;

export interface HostStream {
  /** Fills `into` from the front. Returns how many bytes, 0 when there are none now, STREAM_END or STREAM_FAILED. */
  read(into: Uint8Array): number;
  /** Returns how many bytes were taken, 0 when none can be now, or STREAM_FAILED. */
  write(bytes: Uint8Array): number;
  /** Tells the other end that nothing more will be written. */
  endWriting(): void;
  /**
   * Calls `ready` with those of READABLE and WRITABLE (transport/reactor.ts) that are there, and HANGUP, which nobody
   * asks for; 0 ends that. Level-triggered; `ready` replaces the one that was given before.
   */
  wait(events: number, ready: (events: number) => void): void;
  /** For good; `ready` is not called any more. */
  close(): void;
}
