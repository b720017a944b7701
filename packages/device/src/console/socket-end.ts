/** A port as a Unix socket: one program at a time is at its end, the next waits in line. */
import { ok, type Result } from '@airlock/core/result.ts';
import { READABLE, type Reactor, type Watch } from '@airlock/transport/reactor.ts';
import type { SystemCalls } from '@airlock/transport/system-calls.ts';
import { listenUnix, type UnixListener } from '@airlock/transport/unix-listener.ts';
import type { HostStream } from '../host-stream.ts';
import { socketStream } from '../socket-stream.ts';
import type { PortEnd } from './port-end.ts';

/** Codes: those of `listenUnix`. */
export function openSocketEnd(calls: SystemCalls, reactor: Reactor, path: string): Result<PortEnd> {
  const listener = listenUnix(calls, path);
  return listener.ok ? ok(new SocketEnd(calls, reactor, listener.value)) : listener;
}

class SocketEnd implements PortEnd {
  stream: HostStream | null = null;
  private readonly calls: SystemCalls;
  private readonly reactor: Reactor;
  private readonly listener: UnixListener;
  private watch: Watch | null = null;
  private changed: () => void = () => {};

  constructor(calls: SystemCalls, reactor: Reactor, listener: UnixListener) {
    this.calls = calls;
    this.reactor = reactor;
    this.listener = listener;
  }

  begin(changed: () => void): void {
    this.changed = changed;
    this.watch ??= this.reactor.watch(this.listener.fd, READABLE, () => this.accept());
  }

  private accept(): void {
    if (this.stream !== null) return;
    const accepted = this.listener.accept();
    if (!accepted.ok || accepted.value === null) return;
    this.stream = socketStream(this.calls, this.reactor, accepted.value);
    this.watch?.setEvents(0);
    this.changed();
  }

  lost(): void {
    if (this.stream === null) return;
    this.stream.close();
    this.stream = null;
    this.watch?.setEvents(READABLE);
    this.changed();
  }

  close(): void {
    this.changed = () => {};
    this.watch?.close();
    this.watch = null;
    this.stream?.close();
    this.stream = null;
    this.listener.close();
  }
}
