/** QEMU's control socket: one JSON object a line. Strict, bounded, with a time limit on every question. */
import type { Socket } from 'node:net';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { lineSplitter } from './lines.ts';

export interface QmpEvent {
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
}

export interface Qmp {
  /** Asks QEMU; gives what stands in `return`. Codes: `qmp-refused`, `qmp-timeout`, `qmp-closed`, `qmp-malformed`. */
  execute(command: string, args?: Readonly<Record<string, unknown>>): Promise<Result<unknown>>;
  /** The first event that fits, of those seen already or to come. Codes: `qmp-timeout`, `qmp-closed`. */
  event(fits: (event: QmpEvent) => boolean, seconds: number): Promise<Result<QmpEvent>>;
  close(): void;
}

/** The longest line that QEMU may send, and how many events are kept. */
const LINE_LIMIT = 1 << 20;
const EVENTS_KEPT = 1000;

/** Takes a connected socket through greeting and qmp_capabilities. Codes as `Qmp.execute`. */
export async function openQmp(socket: Socket, seconds = 20): Promise<Result<Qmp>> {
  const split = lineSplitter(LINE_LIMIT);
  const events: QmpEvent[] = [];
  const watchers = new Set<() => void>();
  const asked = new Map<number, (answer: Result<unknown>) => void>();
  let greeted = false;
  let broken: Result<never> | undefined;
  let lastId = 0;

  function fall(code: string, message: string): void {
    broken ??= fail(code, message);
    for (const answer of asked.values()) answer(broken);
    asked.clear();
    for (const look of watchers) look();
    socket.destroy();
  }

  socket.on('data', (bytes: Buffer) => {
    for (const line of split(bytes)) {
      if (broken) return;
      const message = line.cut ? undefined : parseObject(line.text);
      if (message === undefined) return fall('qmp-malformed', 'QEMU sent a line that is not a JSON object');
      if ('QMP' in message) greeted = true;
      else if (typeof message['event'] === 'string') {
        const data = message['data'];
        events.push({ event: message['event'], data: isRecord(data) ? data : {} });
        if (events.length > EVENTS_KEPT) events.shift();
      } else if (typeof message['id'] === 'number') {
        const answer = asked.get(message['id']);
        asked.delete(message['id']);
        const error = message['error'];
        if ('return' in message) answer?.(ok(message['return']));
        else if (isRecord(error)) answer?.(fail('qmp-refused', `${error['class']}: ${error['desc']}`));
        else return fall('qmp-malformed', 'QEMU answered with neither return nor error');
      } else return fall('qmp-malformed', 'QEMU sent an object that is no greeting, event or answer');
    }
    for (const look of [...watchers]) look();
  });
  socket.on('error', () => fall('qmp-closed', 'the control socket broke'));
  socket.on('close', () => fall('qmp-closed', 'QEMU closed the control socket'));

  /** Waits until `look` gives something, or the time is over. */
  function until<T>(look: () => T | undefined, limit: number, what: string): Promise<Result<T>> {
    return new Promise((resolve) => {
      const done = (result: Result<T>) => {
        clearTimeout(timer);
        watchers.delete(check);
        resolve(result);
      };
      const timer = setTimeout(() => done(fail('qmp-timeout', `${what}: nothing in ${limit} s`)), limit * 1000);
      const check = () => {
        const found = look();
        if (found !== undefined) done(ok(found));
        else if (broken) done(broken);
      };
      watchers.add(check);
      check();
    });
  }

  const qmp: Qmp = {
    execute(command, args) {
      if (broken) return Promise.resolve(broken);
      lastId += 1;
      const id = lastId;
      return new Promise((resolve) => {
        const timer = setTimeout(() => {
          asked.delete(id);
          resolve(fail('qmp-timeout', `${command}: no answer in ${seconds} s`));
        }, seconds * 1000);
        asked.set(id, (answer) => {
          clearTimeout(timer);
          resolve(answer.ok ? answer : fail(answer.error.code, `${command}: ${answer.error.message}`));
        });
        socket.write(`${JSON.stringify({ execute: command, arguments: args ?? {}, id })}\n`);
      });
    },
    event: (fits, limit) => until(() => events.find(fits), limit, 'event'),
    close: () => socket.destroy(),
  };
  const greeting = await until(() => greeted || undefined, seconds, 'greeting');
  if (!greeting.ok) return greeting;
  const ready = await qmp.execute('qmp_capabilities');
  return ready.ok ? ok(qmp) : ready;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isRecord(value) ? value : undefined;
  } catch {
    return undefined;
  }
}
