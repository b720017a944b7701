/**
 * A device from its own side: a Unix socket on which a person or a test gives a word and gets one line of JSON. Every
 * model knows `facts`; what else, its `commands` say. One connection at a time; the next waits in line.
 */
import { asciiText } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { READABLE, type Reactor, type Watch, WRITABLE } from '@airlock/transport/reactor.ts';
import type { SystemCalls } from '@airlock/transport/system-calls.ts';
import { listenUnix, type UnixListener } from '@airlock/transport/unix-listener.ts';
import type { HostStream } from '../host-stream.ts';
import { socketStream } from '../socket-stream.ts';
import type { DeviceModel } from './model.ts';

const LINE_LIMIT = 4096;
/** Answers that nobody reads: no more words are taken while this much waits. */
const ANSWERS_LIMIT = 16 << 20;
const LINE_FEED = 0x0a;

/** Answers one line. Codes: `device-control-invalid`, and those of the model's commands. */
export function control(model: DeviceModel, line: string): Result<unknown> {
  const space = line.indexOf(' ');
  const word = space < 0 ? line : line.slice(0, space);
  const argument = space < 0 ? '' : line.slice(space + 1).trim();
  if (word === 'facts') return ok(model.facts?.() ?? {});
  const commands = model.commands ?? {};
  const command = Object.hasOwn(commands, word) ? commands[word] : undefined;
  if (command !== undefined) return command(argument);
  return fail('device-control-invalid', `no word ${JSON.stringify(word)}`, {
    hint: ['facts', ...Object.keys(commands)].join(', '),
  });
}

/** Listens at `path`. Codes: those of `listenUnix`. */
export function openControl(
  calls: SystemCalls,
  reactor: Reactor,
  path: string,
  model: DeviceModel,
): Result<{ close(): void }> {
  const listener = listenUnix(calls, path);
  return listener.ok ? ok(new Control(calls, reactor, listener.value, model)) : listener;
}

class Control {
  private readonly calls: SystemCalls;
  private readonly reactor: Reactor;
  private readonly listener: UnixListener;
  private readonly model: DeviceModel;
  private readonly watch: Watch;
  private stream: HostStream | null = null;
  private readonly input = new Uint8Array(LINE_LIMIT);
  private filled = 0;
  private output: Uint8Array[] = [];
  private waiting = 0;

  constructor(calls: SystemCalls, reactor: Reactor, listener: UnixListener, model: DeviceModel) {
    this.calls = calls;
    this.reactor = reactor;
    this.listener = listener;
    this.model = model;
    this.watch = reactor.watch(listener.fd, READABLE, () => this.accept());
  }

  private accept(): void {
    if (this.stream !== null) return;
    const accepted = this.listener.accept();
    if (!accepted.ok || accepted.value === null) return;
    this.watch.setEvents(0);
    this.stream = socketStream(this.calls, this.reactor, accepted.value);
    this.filled = 0;
    this.output = [];
    this.waiting = 0;
    this.wait();
  }

  private wait(): void {
    const reading = this.waiting < ANSWERS_LIMIT ? READABLE : 0;
    this.stream?.wait(reading | (this.waiting > 0 ? WRITABLE : 0), () => this.ready());
  }

  private ready(): void {
    const { stream } = this;
    if (stream === null) return;
    const count = this.waiting < ANSWERS_LIMIT ? stream.read(this.input.subarray(this.filled)) : 0;
    if (count < 0) {
      this.hangUp();
      return;
    }
    this.filled += count;
    for (;;) {
      const end = this.input.subarray(0, this.filled).indexOf(LINE_FEED);
      if (end < 0) break;
      this.answer(asciiText(this.input.subarray(0, end)).trim());
      this.input.copyWithin(0, end + 1, this.filled);
      this.filled -= end + 1;
    }
    // A line that never ends is none.
    if (this.filled === LINE_LIMIT) {
      this.hangUp();
      return;
    }
    while (this.output.length > 0) {
      const piece = this.output[0] ?? new Uint8Array(0);
      const sent = stream.write(piece);
      if (sent < 0) {
        this.hangUp();
        return;
      }
      this.waiting -= sent;
      if (sent < piece.length) {
        this.output[0] = piece.subarray(sent);
        break;
      }
      this.output.shift();
    }
    this.wait();
  }

  private answer(line: string): void {
    const answered = control(this.model, line);
    const shown = answered.ok ? { ok: true, value: answered.value ?? null } : { ok: false, error: answered.error };
    const bytes = new TextEncoder().encode(`${JSON.stringify(shown)}\n`);
    this.output.push(bytes);
    this.waiting += bytes.length;
  }

  private hangUp(): void {
    this.stream?.close();
    this.stream = null;
    this.watch.setEvents(READABLE);
  }

  close(): void {
    this.stream?.close();
    this.stream = null;
    this.watch.close();
    this.listener.close();
  }
}
