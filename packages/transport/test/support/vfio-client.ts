/** A vfio-user client made by hand: it says whatever bytes a test wants said. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { Problem, Result } from '@airlock/core/result.ts';
import { createReactor, type EventLoop } from '../../src/event-loop.ts';
import { loadSystemCalls, type SystemCalls } from '../../src/system-calls.ts';
import { connectUnix, receive, send } from '../../src/unix-socket.ts';
import type { FunctionLink, ServedFunction } from '../../src/vfio-user/served-function.ts';
import { serveFunction, type VfioUserEvent } from '../../src/vfio-user/server.ts';

export function must<T>(result: Result<T>): T {
  assert.ok(result.ok, result.ok ? '' : `${result.error.code}: ${result.error.message}`);
  return result.value;
}

/** A function that writes down what is done to it. */
export class RecordingFunction implements ServedFunction {
  readonly regionSizes = [4096, 0, 0, 0, 0, 0, 0, 4096, 0];
  readonly interrupts = { intx: 1, msi: 0, msix: 4 };
  lineAsserted = false;
  link: FunctionLink | null = null;
  readonly log: string[] = [];
  readonly config = new Uint8Array(4096).fill(0x11);
  attach(link: FunctionLink): void {
    this.link = link;
    this.log.push('attach');
  }
  detach(): void {
    this.link = null;
    this.log.push('detach');
  }
  quiesce(): void {
    this.log.push('quiesce');
  }
  memoryChanged(): void {
    this.log.push('memory');
  }
  readRegion(index: number, offset: number, into: Uint8Array): void {
    if (index === 7) into.set(this.config.subarray(offset, offset + into.length));
    else into.fill(index + 1);
  }
  writeRegion(index: number, offset: number, bytes: Uint8Array): void {
    this.log.push(`write ${index} ${offset} ${bytes.length}`);
  }
  reset(): void {
    this.log.push('reset');
  }
}

export interface Bench {
  readonly calls: SystemCalls;
  readonly reactor: EventLoop;
  /** Where it listens. */
  readonly socket: string;
  readonly served: RecordingFunction;
  readonly events: VfioUserEvent[];
  /** Problems that ended connections, by code. */
  endings(): string[];
  connect(): VfioClient;
  /** Lets the server do what there is to do. */
  turn(milliseconds?: number): void;
}

export async function openBench(t: TestContext, stealth = false): Promise<Bench> {
  const calls = must(await loadSystemCalls());
  const reactor = must(createReactor(calls, { spin: 0 }));
  const folder = mkdtempSync(join(tmpdir(), 'airlock-vfio-'));
  const served = new RecordingFunction();
  const events: VfioUserEvent[] = [];
  const socket = join(folder, 's');
  const server = must(serveFunction(calls, reactor, served, { socket, stealth, tell: (event) => events.push(event) }));
  const clients: VfioClient[] = [];
  const bench: Bench = {
    calls,
    reactor,
    socket,
    served,
    events,
    endings: () =>
      events
        .map((event) => (event.kind === 'disconnected' ? event.problem : null))
        .filter((problem): problem is Problem => problem !== null)
        .map(({ code }) => code),
    connect() {
      const client = new VfioClient(bench, must(connectUnix(calls, socket)));
      clients.push(client);
      bench.turn();
      return client;
    },
    turn(milliseconds = 2) {
      reactor.after(milliseconds, () => reactor.stop());
      must(reactor.run());
    },
  };
  t.after(() => {
    for (const client of clients) client.close();
    server.close();
    reactor.close();
    rmSync(folder, { recursive: true, force: true });
  });
  return bench;
}

export interface Reply {
  readonly id: number;
  readonly command: number;
  readonly flags: number;
  readonly errno: number;
  readonly body: Uint8Array;
}

export class VfioClient {
  readonly fd: number;
  private readonly bench: Bench;
  private open = true;
  private lastId = 0;
  private input = new Uint8Array(0);

  constructor(bench: Bench, fd: number) {
    this.bench = bench;
    this.fd = fd;
  }

  /** A message as it should be, unless the test says otherwise. */
  message(command: number, body: Uint8Array, more: { flags?: number; size?: number; id?: number } = {}): Uint8Array {
    const bytes = new Uint8Array(16 + body.length);
    const view = new DataView(bytes.buffer);
    this.lastId = more.id ?? this.lastId + 1;
    view.setUint16(0, this.lastId, true);
    view.setUint16(2, command, true);
    view.setUint32(4, more.size ?? bytes.length, true);
    view.setUint32(8, more.flags ?? 0, true);
    bytes.set(body, 16);
    return bytes;
  }

  /** Says bytes; false when the server is gone. */
  say(bytes: Uint8Array, fds: readonly number[] = []): boolean {
    const sent = send(this.bench.calls, this.fd, bytes, fds);
    this.bench.turn();
    return sent.ok;
  }

  /** One command and its reply; null when there was none. */
  ask(command: number, body: Uint8Array, fds: readonly number[] = []): Reply | null {
    this.say(this.message(command, body), fds);
    return this.hear();
  }

  /** The next message from the server, if it came. */
  hear(): Reply | null {
    const room = new Uint8Array(65536);
    for (;;) {
      const got = receive(this.bench.calls, this.fd, room, 0);
      if (!got.ok || got.value.length === 0) break;
      const joined = new Uint8Array(this.input.length + got.value.length);
      joined.set(this.input);
      joined.set(room.subarray(0, got.value.length), this.input.length);
      this.input = joined;
    }
    if (this.input.length < 16) return null;
    const view = new DataView(this.input.buffer, this.input.byteOffset);
    const size = view.getUint32(4, true);
    if (this.input.length < size) return null;
    const reply = {
      id: view.getUint16(0, true),
      command: view.getUint16(2, true),
      flags: view.getUint32(8, true),
      errno: view.getUint32(12, true),
      body: this.input.slice(16, size),
    };
    this.input = this.input.slice(size);
    return reply;
  }

  /** Has the server ended the connection? */
  ended(): boolean {
    const got = receive(this.bench.calls, this.fd, new Uint8Array(65536), 0);
    return !got.ok || got.value.closed;
  }

  greet(): void {
    const reply = this.ask(1, version());
    assert.equal(reply?.flags, 1);
  }

  close(): void {
    if (!this.open) return;
    this.open = false;
    this.bench.calls.close(this.fd);
  }
}

export function version(major = 0, minor = 0, text = '{"capabilities":{"max_msg_fds":16}}\0'): Uint8Array {
  return Uint8Array.of(major, 0, minor, 0, ...Buffer.from(text));
}

/** Little-endian words of 32 bits. */
export function words(...values: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(4 * values.length);
  const view = new DataView(bytes.buffer);
  for (const [i, value] of values.entries()) view.setUint32(4 * i, value, true);
  return bytes;
}
