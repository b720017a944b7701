/** The files below /run/airlock by which the gate hands over to the agent, and to whoever asks. */
import type { Event, EventBody } from '@airlock/core/event.ts';
import type { Enforcement, Outcome } from '@airlock/core/plan.ts';
import type { Problem } from '@airlock/core/result.ts';
import type { Files } from '@airlock/linux/files.ts';

export const STATE = '/run/airlock';

/** gate.json */
export interface GateState {
  readonly version: 1;
  readonly mode: string;
  readonly policy: { readonly files: readonly string[] };
  readonly kernel: string;
  /** From the gate's first line to its last. */
  readonly milliseconds: number;
  readonly problems: readonly Problem[];
  /** What holds of the machine as a whole, and what this kernel cannot hold. */
  readonly machine: readonly Outcome[];
}

/** Collects what happens, numbered from 1. `now` is milliseconds since boot. */
export interface EventLog {
  readonly events: readonly Event[];
  note(body: EventBody): void;
}

export function eventLog(now: () => number): EventLog {
  const events: Event[] = [];
  return {
    events,
    note: (body) => void events.push({ ...body, at: Math.round(now() * 1000) / 1000, sequence: events.length + 1 }),
  };
}

/** Writes what is to be kept; the problems are those of files that could not be written (`state-unwritable`). */
export async function saveState(
  files: Files,
  state: {
    readonly gate: GateState;
    /** `Origins.boot` */
    readonly boot: ReadonlyMap<string, string | null>;
    readonly enforcements: readonly Enforcement[];
    readonly events: readonly Event[];
  },
): Promise<Problem[]> {
  const problems: Problem[] = [];
  const save = async (name: string, text: string) => {
    const saved = await files.save(`${STATE}/${name}`, text, 0o600);
    if (!saved.ok) problems.push({ code: 'state-unwritable', message: saved.error.message });
  };
  await save('boot-devices.json', `${JSON.stringify([...state.boot.keys()])}\n`);
  await save('boot-inodes.json', `${JSON.stringify(Object.fromEntries(state.boot))}\n`);
  await save('enforcement.json', `${JSON.stringify(state.enforcements)}\n`);
  await save('events.ndjson', state.events.map((event) => `${JSON.stringify(event)}\n`).join(''));
  // Last: where gate.json stands, the others do.
  await save('gate.json', `${JSON.stringify(state.gate)}\n`);
  return problems;
}
