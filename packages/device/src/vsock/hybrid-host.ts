/**
 * The host's side as Unix sockets, in the hybrid form of Firecracker and cloud-hypervisor: the guest's connection to
 * port P of CID 2 goes to the socket `PATH_P`; who connects to `PATH` and writes `CONNECT P\n` is connected to port P of
 * the guest, and reads `OK PORT\n` before the guest's first byte.
 */
import { basename, dirname } from 'node:path';
import { asciiText } from '@airlock/core/bytes.ts';
import { ok, type Result } from '@airlock/core/result.ts';
import { READABLE, type Reactor, type Watch } from '@airlock/transport/reactor.ts';
import type { SystemCalls } from '@airlock/transport/system-calls.ts';
import { listenUnix, type UnixListener } from '@airlock/transport/unix-listener.ts';
import { VSOCK_SEQPACKET } from '@airlock/virtio/request/vsock.ts';
import { type HostStream, STREAM_END, STREAM_FAILED } from '../host-stream.ts';
import { connectIn, openFolder } from '../socket-folder.ts';
import { socketStream } from '../socket-stream.ts';
import type { Caller, HostSide } from './host-side.ts';

/** Callers that have not said yet which port they want. */
const UNDECIDED_LIMIT = 64;
/** Time to say it. */
const DECISION_LIMIT_MS = 5000;
/** `CONNECT 4294967295\r\n` and what follows it at once. */
const LINE_LIMIT = 256;
const LINE = /^CONNECT ([0-9]{1,10})$/;
/** VMADDR_PORT_ANY: no port. */
const ANY_PORT = 0xffffffff;
const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;

/**
 * Listens on the path. Later connections are made relative to its folder, which is held open: no other path is needed
 * once the sandbox is closed. Codes: those of `listenUnix`, `system-call-failed`.
 */
export function openHybridHost(calls: SystemCalls, reactor: Reactor, path: string): Result<HostSide> {
  const folder = openFolder(calls, dirname(path));
  if (!folder.ok) return folder;
  const listening = listenUnix(calls, path);
  if (!listening.ok) {
    calls.close(folder.value);
    return listening;
  }
  return ok(new HybridHost(calls, reactor, listening.value, folder.value, basename(path)));
}

class HybridHost implements HostSide {
  private readonly calls: SystemCalls;
  private readonly reactor: Reactor;
  private readonly listener: UnixListener;
  private readonly folder: number;
  private readonly name: string;
  /** Callers that have not named a port yet, with what takes back their time limit. */
  private readonly undecided = new Map<HostStream, () => void>();
  private watch: Watch | null = null;
  private call: ((caller: Caller) => boolean) | null = null;

  constructor(calls: SystemCalls, reactor: Reactor, listener: UnixListener, folder: number, name: string) {
    this.calls = calls;
    this.reactor = reactor;
    this.listener = listener;
    this.folder = folder;
    this.name = name;
  }

  connect(port: number, type: number): HostStream | null {
    const path = `${this.name}_${port}`;
    const fd = connectIn(this.calls, this.folder, path, type === VSOCK_SEQPACKET ? 'seqpacket' : 'stream');
    return fd.ok ? socketStream(this.calls, this.reactor, fd.value) : null;
  }

  begin(call: (caller: Caller) => boolean): void {
    this.call = call;
    this.watch ??= this.reactor.watch(this.listener.fd, READABLE, () => this.accept());
  }

  end(): void {
    this.call = null;
    this.watch?.close();
    this.watch = null;
    for (const stream of [...this.undecided.keys()]) this.dismiss(stream);
  }

  close(): void {
    this.end();
    this.listener.close();
    this.calls.close(this.folder);
  }

  private accept(): void {
    const accepted = this.listener.accept();
    if (!accepted.ok || accepted.value === null) return;
    const stream = socketStream(this.calls, this.reactor, accepted.value);
    if (this.undecided.size >= UNDECIDED_LIMIT) {
      // The one that has been silent for longest makes place.
      for (const oldest of this.undecided.keys()) {
        this.dismiss(oldest);
        break;
      }
    }
    const line = new Uint8Array(LINE_LIMIT);
    let length = 0;
    this.undecided.set(
      stream,
      this.reactor.after(DECISION_LIMIT_MS, () => this.dismiss(stream)),
    );
    stream.wait(READABLE, () => {
      const count = stream.read(line.subarray(length));
      if (count === 0) return;
      length += Math.max(count, 0);
      const end = line.subarray(0, length).indexOf(LINE_FEED);
      if (end >= 0) this.decide(stream, line.subarray(0, end), line.slice(end + 1, length));
      else if (count === STREAM_END || count === STREAM_FAILED || length === LINE_LIMIT) this.dismiss(stream);
    });
  }

  private decide(stream: HostStream, line: Uint8Array, rest: Uint8Array): void {
    const words = line.at(-1) === CARRIAGE_RETURN ? line.subarray(0, -1) : line;
    const port = Number(LINE.exec(asciiText(words))?.[1] ?? Number.NaN);
    if (!(port < ANY_PORT) || this.call === null) {
      this.dismiss(stream);
      return;
    }
    this.undecided.get(stream)?.();
    this.undecided.delete(stream);
    stream.wait(0, () => {});
    const greeting = (hostPort: number) => new TextEncoder().encode(`OK ${hostPort}\n`);
    if (!this.call({ port, stream, rest, greeting })) stream.close();
  }

  private dismiss(stream: HostStream): void {
    this.undecided.get(stream)?.();
    this.undecided.delete(stream);
    stream.close();
  }
}
