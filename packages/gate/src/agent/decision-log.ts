/**
 * The decision log, /run/airlock/events.ndjson: one event a line, numbered without a gap backwards. It may fail (a full
 * /run) and never holds up the agent: what could not be written is counted, said, and still reaches who watches.
 */
import type { Event, EventBody } from '@airlock/core/event.ts';
import type { Files } from '@airlock/linux/files.ts';
import { STATE } from './state.ts';

export interface DecisionLog {
  /** Numbers the event, tells listeners, writes it in its turn. */
  add(body: EventBody): Event;
  /** Calls for every event from now on; the returned function ends that. */
  listen(call: (event: Event) => void): () => void;
  /** The latest events, oldest first, at most RECENT. */
  recent(): readonly Event[];
  /** Events that did not reach the file, and why not the last time. */
  readonly lost: { readonly count: number; readonly because: string | null };
  /** Resolves once everything up to now is written or lost. */
  flush(): Promise<void>;
}

export const RECENT = 1000;
/** Bytes at which events.ndjson becomes events.1.ndjson: both together stay below twice that and a bit. */
const ROTATE_AT = 2 * 1024 * 1024;
/** Bytes that may wait to be written. */
const WAITING_LIMIT = 1024 * 1024;
const CHUNK = 1024 * 1024;

/** `now` gives milliseconds since 1970. Goes on from the highest number that the file holds. */
export async function openDecisionLog(files: Files, now: () => number): Promise<DecisionLog> {
  const before = await scan(files);
  let sequence = before.sequence;
  let size = before.size;
  let torn = before.torn;
  const listeners = new Set<(event: Event) => void>();
  const kept: Event[] = [];
  const lost = { count: 0, because: null as string | null };
  let waiting: string[] = [];
  let waitingBytes = 0;
  let writing: Promise<void> | undefined;

  function lose(count: number, because: string): void {
    lost.count += count;
    lost.because = because;
  }

  async function write(): Promise<void> {
    while (waiting.length > 0) {
      const lines = waiting;
      waiting = [];
      waitingBytes = 0;
      // A write that failed half way left a line without an end: what comes next begins on a line of its own.
      const text = `${torn ? '\n' : ''}${lines.join('')}`;
      const appended = await files.append(STATE.events, text);
      torn = !appended.ok;
      if (!appended.ok) {
        lose(lines.length, appended.error.message);
        await makeRoom();
        continue;
      }
      size += text.length;
      if (size >= ROTATE_AT) await rotate();
    }
    writing = undefined;
  }

  async function rotate(): Promise<void> {
    const text = await files.read(STATE.events, 4 * ROTATE_AT);
    if (text.ok) await files.save(STATE.eventsBefore, text.value, 0o640);
    const emptied = await files.save(STATE.events, '', 0o640);
    // Where that fails it is tried again after as much again.
    size = 0;
    if (!emptied.ok) lose(0, emptied.error.message);
    torn = false;
  }

  /** /run is full: the older half of the log is the first thing that can go. */
  async function makeRoom(): Promise<void> {
    await files.save(STATE.eventsBefore, '', 0o640);
  }

  return {
    add(body) {
      sequence++;
      const event: Event = { ...body, at: now(), sequence };
      kept.push(event);
      if (kept.length > RECENT) kept.shift();
      const line = `${JSON.stringify(event)}\n`;
      if (waitingBytes + line.length > WAITING_LIMIT) {
        lose(1, 'more events than can be written');
      } else {
        waiting.push(line);
        waitingBytes += line.length;
        writing ??= Promise.resolve().then(write);
      }
      for (const call of listeners) call(event);
      return event;
    },
    listen(call) {
      listeners.add(call);
      return () => void listeners.delete(call);
    },
    recent: () => [...kept],
    lost,
    async flush() {
      while (writing !== undefined) await writing;
    },
  };
}

/** Length, highest number and whether the last line has its end, whatever stands in the file. */
async function scan(files: Files): Promise<{ size: number; sequence: number; torn: boolean }> {
  let size = 0;
  let sequence = 0;
  let carry = '';
  let torn = false;
  // Both files: the log may have been emptied a moment before.
  for (const path of [STATE.eventsBefore, STATE.events]) {
    size = 0;
    carry = '';
    for (let chunk = 0; chunk < 64; chunk++) {
      const bytes = await files.readAt(path, size, CHUNK);
      if (!bytes.ok || bytes.value.length === 0) break;
      size += bytes.value.length;
      const lines = `${carry}${Buffer.from(bytes.value).toString('latin1')}`.split('\n');
      carry = (lines.pop() ?? '').slice(0, CHUNK);
      for (const line of lines) sequence = Math.max(sequence, sequenceOf(line));
    }
    sequence = Math.max(sequence, sequenceOf(carry));
    torn = carry !== '';
  }
  return { size, sequence, torn };
}

function sequenceOf(line: string): number {
  try {
    const value: unknown = JSON.parse(line);
    const sequence = typeof value === 'object' && value !== null ? Reflect.get(value, 'sequence') : undefined;
    return typeof sequence === 'number' && Number.isSafeInteger(sequence) && sequence > 0 ? sequence : 0;
  } catch {
    return 0;
  }
}
