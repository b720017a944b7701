/** The line between a device process and the process that started it: lines of JSON, read and waited for in place. */
import { closeSync, fstatSync, readSync, writeSync } from 'node:fs';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { CHANNEL_VARIABLE } from './sandbox-spawn.ts';
import { POLLIN } from './sys/waiting.ts';
import type { SystemCalls } from './system-calls.ts';

export interface SandboxChannel {
  readonly fd: number;
  /** The next line, waited for half a minute at most; null: there is none. */
  read(): string | null;
  write(line: string): void;
  close(): void;
}

const WAIT_MILLISECONDS = 30_000;
const LINE_LIMIT = 16 * 1024;

/** `null` when this process was not started by `spawnSandboxed`. Code: `sandbox-handshake`. */
export function openChannel(calls: SystemCalls): Result<SandboxChannel | null> {
  const value = process.env[CHANNEL_VARIABLE];
  if (value === undefined) return ok(null);
  delete process.env[CHANNEL_VARIABLE];
  const fd = Number(value);
  if (!/^\d{1,4}$/.test(value) || fd < 3 || !isSocket(fd)) {
    return fail('sandbox-handshake', `${CHANNEL_VARIABLE} names no socket`);
  }
  const poll = calls.allocate(8);
  poll.view.setInt32(0, fd, true);
  poll.view.setInt16(4, POLLIN, true);
  let pending = '';
  return ok({
    fd,
    read() {
      const buffer = Buffer.alloc(LINE_LIMIT);
      const end = performance.now() + WAIT_MILLISECONDS;
      while (!pending.includes('\n')) {
        const left = Math.ceil(end - performance.now());
        if (left <= 0 || pending.length >= LINE_LIMIT || calls.poll(poll.address, 1, left) === 0) return null;
        try {
          const length = readSync(fd, buffer);
          if (length === 0) return null;
          pending += buffer.toString('latin1', 0, length);
        } catch (error) {
          if (!(error instanceof Error && 'code' in error && (error.code === 'EAGAIN' || error.code === 'EINTR')))
            return null;
        }
      }
      const at = pending.indexOf('\n');
      const line = pending.slice(0, at);
      pending = pending.slice(at + 1);
      return line;
    },
    write(line) {
      try {
        writeSync(fd, `${line}\n`);
      } catch {
        // Nobody is there: the next read says so.
      }
    },
    close() {
      try {
        closeSync(fd);
      } catch {
        // It was no descriptor.
      }
    },
  });
}

function isSocket(fd: number): boolean {
  try {
    return fstatSync(fd).isSocket();
  } catch {
    return false;
  }
}
