/** A person at the guest's shell: our terminal and the guest's serial line, tied together until Ctrl-]. */
import { connect } from 'node:net';
import type { ReadStream } from 'node:tty';
import { fail, ok, type Result } from '@airlock/core/result.ts';

const LEAVE = 0x1d;

/**
 * Gives back when the person leaves, the line closes or `signal` ends. The guest is what the person chose to talk to:
 * its bytes reach the terminal as they are. Codes: `channel-closed`.
 */
export function attachTerminal(
  path: string,
  input: ReadStream,
  output: { write(bytes: Uint8Array): unknown },
  signal?: AbortSignal,
): Promise<Result<void>> {
  return new Promise((resolve) => {
    const line = connect(path);
    const leave = (result: Result<void>) => {
      input.off('data', typed);
      if (input.isTTY) input.setRawMode(false);
      input.pause();
      line.destroy();
      resolve(result);
    };
    const typed = (bytes: Buffer) => {
      const end = bytes.indexOf(LEAVE);
      if (end === -1) return void line.write(bytes);
      if (end > 0) line.write(bytes.subarray(0, end));
      leave(ok(undefined));
    };
    line.on('connect', () => {
      if (input.isTTY) input.setRawMode(true);
      input.on('data', typed);
      input.on('end', () => leave(ok(undefined)));
      // The shell has long shown its prompt; an empty line brings it back.
      line.write('\r');
    });
    line.on('data', (bytes) => output.write(bytes));
    line.on('error', () => leave(fail('channel-closed', "the guest's shell is not there")));
    line.on('close', () => leave(fail('channel-closed', 'the guest is gone')));
    signal?.addEventListener('abort', () => leave(ok(undefined)), { once: true });
  });
}
