/** What is at the host's end of a console port: somebody, or nobody at the moment. */
import type { HostStream } from '../host-stream.ts';

export interface PortEnd {
  /** Whoever is there now. */
  readonly stream: HostStream | null;
  /** From now on `changed` is called after `stream` changed. */
  begin(changed: () => void): void;
  /** The stream is over: closes it, and waits for the next where there can be one. Calls `changed`. */
  lost(): void;
  close(): void;
}

/** An end with one stream, and nobody after it. */
export class FixedEnd implements PortEnd {
  stream: HostStream | null;
  private changed: () => void = () => {};

  constructor(stream: HostStream) {
    this.stream = stream;
  }

  begin(changed: () => void): void {
    this.changed = changed;
  }

  lost(): void {
    this.stream?.close();
    this.stream = null;
    this.changed();
  }

  close(): void {
    this.changed = () => {};
    this.lost();
  }
}
