/** A connected Unix socket as a `HostStream`. */
import type { Reactor, Watch } from '@airlock/transport/reactor.ts';
import type { SystemCalls } from '@airlock/transport/system-calls.ts';
import { receive, send } from '@airlock/transport/unix-socket.ts';
import { type HostStream, STREAM_END, STREAM_FAILED } from './host-stream.ts';

const SHUT_WR = 1;

/** Takes over `fd`, which is non-blocking. On a SEQPACKET socket one `read` is one message, and so is one `write`. */
export function socketStream(calls: SystemCalls, reactor: Pick<Reactor, 'watch'>, fd: number): HostStream {
  let watch: Watch | null = null;
  let closed = false;
  let call: (events: number) => void = () => {};
  return {
    read(into) {
      if (closed) return STREAM_FAILED;
      // Descriptors that somebody sends along are closed unseen.
      const got = receive(calls, fd, into, 0);
      if (!got.ok) return STREAM_FAILED;
      return got.value.closed ? STREAM_END : got.value.length;
    },
    write(bytes) {
      if (closed) return STREAM_FAILED;
      const sent = send(calls, fd, bytes);
      return sent.ok ? sent.value : STREAM_FAILED;
    },
    endWriting() {
      if (!closed) calls.shutdown(fd, SHUT_WR);
    },
    wait(events, ready) {
      call = ready;
      if (closed) return;
      // A watch for nothing still tells, once, that the peer hung up.
      if (watch !== null) watch.setEvents(events);
      else if (events !== 0) watch = reactor.watch(fd, events, (found) => call(found));
    },
    close() {
      if (closed) return;
      closed = true;
      watch?.close();
      watch = null;
      calls.close(fd);
    },
  };
}
