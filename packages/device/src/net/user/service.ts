/** What answers on a port of the user-mode network: the old test services of RFC 862 to RFC 864. */

/** One connection's other half. Offsets count the bytes of each direction from 0. */
export interface Service {
  /** How many more bytes it takes now. */
  readonly room: number;
  /** Takes bytes from `at` to `end`, at most `room`. */
  take(bytes: Uint8Array, at: number, end: number): void;
  /** The other side sends no more. */
  ended(): void;
  /** Bytes to send lie below this offset; Infinity when there is no end. */
  readonly available: number;
  /** Nothing follows what is available. */
  readonly finished: boolean;
  /** Copies `length` bytes from `offset` on to `into`; none of them were released. */
  read(offset: number, into: Uint8Array, at: number, length: number): void;
  /** Everything below `offset` has arrived and will not be read again. */
  release(offset: number): void;
}

export const ECHO = 7;
export const DISCARD = 9;
export const CHARGEN = 19;

/** The service of a TCP port, or null when nobody is there. */
export function serviceOf(port: number): Service | null {
  if (port === ECHO) return new Echo();
  if (port === DISCARD) return new Discard();
  if (port === CHARGEN) return new Chargen();
  return null;
}

const ECHO_BYTES = 256 * 1024;
const DISCARD_ROOM = 1024 * 1024;

class Echo implements Service {
  private readonly ring = new Uint8Array(ECHO_BYTES);
  private first = 0;
  available = 0;
  finished = false;

  get room(): number {
    return ECHO_BYTES - (this.available - this.first);
  }

  take(bytes: Uint8Array, at: number, end: number): void {
    const place = this.available % ECHO_BYTES;
    const straight = Math.min(end - at, ECHO_BYTES - place);
    this.ring.set(bytes.subarray(at, at + straight), place);
    this.ring.set(bytes.subarray(at + straight, end), 0);
    this.available += end - at;
  }

  ended(): void {
    this.finished = true;
  }

  read(offset: number, into: Uint8Array, at: number, length: number): void {
    const place = offset % ECHO_BYTES;
    const straight = Math.min(length, ECHO_BYTES - place);
    into.set(this.ring.subarray(place, place + straight), at);
    into.set(this.ring.subarray(0, length - straight), at + straight);
  }

  release(offset: number): void {
    this.first = Math.max(this.first, Math.min(offset, this.available));
  }
}

class Discard implements Service {
  readonly room = DISCARD_ROOM;
  readonly available = 0;
  finished = false;
  take(): void {}
  ended(): void {
    this.finished = true;
  }
  read(): void {}
  release(): void {}
}

const LINE = 72;
const PRINTABLE = 95;
/** The lines of RFC 864 come again after this many bytes. */
const PERIOD = (LINE + 2) * PRINTABLE;
let pattern: Uint8Array | null = null;

/** The pattern twice and more, so that any piece of a packet lies in one stretch. */
function patternBytes(): Uint8Array {
  if (pattern === null) {
    pattern = new Uint8Array(PERIOD + 65_536);
    for (let i = 0; i < pattern.length; i++) {
      const line = Math.floor(i / (LINE + 2));
      const column = i % (LINE + 2);
      pattern[i] = column === LINE ? 13 : column === LINE + 1 ? 10 : 32 + ((line + column) % PRINTABLE);
    }
  }
  return pattern;
}

/** Copies what a character generator sends from `offset` on. */
export function readChargen(offset: number, into: Uint8Array, at: number, length: number): void {
  const bytes = patternBytes();
  for (let done = 0; done < length; ) {
    const place = (offset + done) % PERIOD;
    const piece = Math.min(length - done, bytes.length - place);
    into.set(bytes.subarray(place, place + piece), at + done);
    done += piece;
  }
}

class Chargen implements Service {
  readonly room = DISCARD_ROOM;
  available = Number.POSITIVE_INFINITY;
  finished = false;
  private sent = 0;
  take(): void {}
  /** Who closes has had enough: what was not read yet is not sent. */
  ended(): void {
    this.finished = true;
    this.available = this.sent;
  }
  read(offset: number, into: Uint8Array, at: number, length: number): void {
    readChargen(offset, into, at, length);
    this.sent = Math.max(this.sent, offset + length);
  }
  release(): void {}
}
