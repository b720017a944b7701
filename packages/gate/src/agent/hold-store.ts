/** Holds on this machine: /run/airlock/quarantine.json, of this boot and beyond a restart of the agent. */
import { asciiText } from '@airlock/core/bytes.ts';
import type { Decision } from '@airlock/core/decision.ts';
import type { Problem, Result } from '@airlock/core/result.ts';
import type { Files } from '@airlock/linux/files.ts';
import { HOLDS_BYTES, HOLDS_LIMIT, type Hold, readHolds, writeHolds } from './holds.ts';
import { STATE } from './state.ts';

export interface LoadedHolds {
  readonly holds: readonly Hold[];
  readonly problem: Problem | null;
}

/**
 * A file that is there and cannot be used does not let anything in: whatever `earlier` (enforcement.json) says was
 * withheld stays in quarantine.
 */
export async function loadHolds(
  files: Files,
  boot: string | null,
  earlier: ReadonlyMap<string, Decision>,
): Promise<LoadedHolds> {
  const bytes = await files.read(STATE.holds, HOLDS_BYTES);
  if (!bytes.ok && bytes.error.code === 'file-missing') return { holds: [], problem: null };
  const read = bytes.ok ? readHolds(asciiText(bytes.value), boot) : bytes;
  if (read.ok) return { holds: read.value, problem: null };
  const holds = [...earlier.values()]
    .filter(({ reason }) => reason === 'withheld')
    .slice(0, HOLDS_LIMIT)
    .map(({ device, detail }): Hold => {
      // What it was for is only in the words now.
      return { device, action: 'remove', violation: 'driver-violation', detail: detail.slice(0, 512), since: 0 };
    });
  return {
    holds,
    problem: {
      ...read.error,
      message: `${STATE.holds}: ${read.error.message}`,
      hint: `${holds.length} devices that were withheld at the last enforcement stay in quarantine`,
    },
  };
}

export function saveHolds(files: Files, holds: readonly Hold[], boot: string | null): Promise<Result<void>> {
  return files.save(STATE.holds, writeHolds(holds, boot), 0o600);
}
