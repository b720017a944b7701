/** Descriptors that are no sockets as a `HostStream`: a terminal, a pipe, a file. */
import { HANGUP, READABLE, type Reactor, type Watch, WRITABLE } from '@airlock/transport/reactor.ts';
import type { Memory } from '@airlock/transport/sys/libc.ts';
import type { SystemCalls } from '@airlock/transport/system-calls.ts';
import { type HostStream, STREAM_END, STREAM_FAILED } from './host-stream.ts';

const EINTR = 4;
const EAGAIN = 11;
const PIECE = 16 * 1024;

export interface FdStreamOptions {
  /** What is read from, -1 for nothing. Another descriptor than `output`; non-blocking. */
  readonly input: number;
  readonly output: number;
  /** The input's end is the stream's; otherwise there is only nothing more to read. */
  readonly endsWithInput: boolean;
  /** After the descriptors are closed. */
  readonly closed?: () => void;
}

/** Takes over both descriptors. */
export function fdStream(calls: SystemCalls, reactor: Pick<Reactor, 'watch'>, options: FdStreamOptions): HostStream {
  const { input, output, endsWithInput } = options;
  const memory = scratchOf(calls);
  let inputOpen = input >= 0;
  let closed = false;
  let call: (events: number) => void = () => {};
  const sides = { reading: side(input, READABLE), writing: side(output, WRITABLE) };

  /** A watch of one descriptor for one event, made when it is first needed. */
  function side(fd: number, event: number): { set(wanted: boolean): void; close(): void } {
    let watch: Watch | null = null;
    return {
      set(wanted) {
        if (watch !== null) watch.setEvents(wanted ? event : 0);
        else if (wanted) {
          watch = reactor.watch(fd, event, (found) => {
            // A pipe's other end that is gone, or a file, which epoll does not watch: reading or writing tells which.
            call((found & HANGUP) !== 0 ? event : found);
          });
        }
      },
      close() {
        watch?.close();
        watch = null;
      },
    };
  }

  return {
    read(into) {
      if (closed) return STREAM_FAILED;
      if (!inputOpen) return 0;
      const count = calls.read(input, memory.address, Math.min(into.length, PIECE));
      if (count === -EAGAIN || count === -EINTR) return 0;
      if (count > 0) {
        into.set(memory.bytes.subarray(0, count));
        return count;
      }
      inputOpen = false;
      if (endsWithInput) return STREAM_END;
      sides.reading.close();
      return 0;
    },
    write(bytes) {
      if (closed) return STREAM_FAILED;
      const piece = bytes.subarray(0, PIECE);
      memory.bytes.set(piece);
      const count = calls.write(output, memory.address, piece.length);
      if (count === -EAGAIN || count === -EINTR) return 0;
      return count < 0 ? STREAM_FAILED : count;
    },
    endWriting() {},
    wait(events, ready) {
      call = ready;
      if (closed) return;
      if (inputOpen) sides.reading.set((events & READABLE) !== 0);
      sides.writing.set((events & WRITABLE) !== 0);
    },
    close() {
      if (closed) return;
      closed = true;
      sides.reading.close();
      sides.writing.close();
      if (input >= 0) calls.close(input);
      calls.close(output);
      options.closed?.();
    },
  };
}

/** Memory is never given back, and no call outlives its use: one piece for all streams. */
const scratches = new WeakMap<SystemCalls, Memory>();
function scratchOf(calls: SystemCalls): Memory {
  let memory = scratches.get(calls);
  if (memory === undefined) {
    memory = calls.allocate(PIECE);
    scratches.set(calls, memory);
  }
  return memory;
}
