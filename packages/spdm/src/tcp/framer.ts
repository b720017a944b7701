/** Messages out of a stream of bytes that arrive in pieces of any size. */
import { ok, type Result } from '@airlock/core/result.ts';
import { TCP_HEADER, tcpMessageLength } from './binding.ts';
import { EMULATOR_HEADER, emulatorFrameLength } from './emulator-frame.ts';

export interface Framer {
  /**
   * Takes the next piece and gives the messages that became whole, in order; each is a copy. After a fault every further
   * piece gives the same fault: a stream that lost its place does not find it again.
   */
  push(piece: Uint8Array): Result<readonly Uint8Array[]>;
  /** Bytes of a message that is not whole yet. */
  readonly pending: number;
}

/** Each byte is copied once or twice, whatever the size of the pieces. */
function createFramer(header: number, lengthOf: (bytes: Uint8Array) => Result<number>): Framer {
  let message = new Uint8Array(header);
  let filled = 0;
  let known = false;
  let fault: Result<never> | undefined;
  return {
    get pending() {
      return filled;
    },
    push(piece) {
      const messages: Uint8Array[] = [];
      for (let at = 0; fault === undefined && at < piece.length; ) {
        const taken = Math.min(piece.length - at, message.length - filled);
        message.set(piece.subarray(at, at + taken), filled);
        filled += taken;
        at += taken;
        if (filled < message.length) break;
        if (!known) {
          const length = lengthOf(message);
          if (!length.ok) fault = length;
          else {
            const whole = new Uint8Array(length.value);
            whole.set(message);
            message = whole;
            known = true;
          }
        }
        if (fault === undefined && filled === message.length) {
          messages.push(message);
          message = new Uint8Array(header);
          filled = 0;
          known = false;
        }
      }
      return fault ?? ok(messages);
    },
  };
}

/** Whole messages of the TCP binding, for `tcpBinding.unwrap`. Codes: `tcp-message-invalid`. */
export function createTcpFramer(): Framer {
  return createFramer(TCP_HEADER, tcpMessageLength);
}

/** Whole frames, for `decodeEmulatorFrame`. Codes: `emulator-frame-invalid`. */
export function createEmulatorFramer(): Framer {
  return createFramer(EMULATOR_HEADER, emulatorFrameLength);
}
