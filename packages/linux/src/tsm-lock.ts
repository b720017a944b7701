/**
 * Asks the kernel's TSM to lock a function for this VM, to let it run, and to give it up: `tsm/lock`, `tsm/accept`,
 * `tsm/unlock` of the series of March 2026. Each is read back: a write that was taken says nothing.
 */
import { asciiText } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { TdiState } from '@airlock/spdm/tdisp/interface.ts';
import { parseFlag } from './attribute.ts';
import type { Files } from './files.ts';
import { parseTsmName } from './tsm.ts';

export interface TsmHold {
  readonly tsm: string | null;
  readonly state: TdiState;
}

/** Which TSM holds the function, and how. Codes: `tsm-absent`, `attribute-malformed`, those of `Files`. */
export async function readTsmHold(files: Files, folder: string): Promise<Result<TsmHold>> {
  const lock = await files.read(`${folder}/tsm/lock`, 64);
  if (!lock.ok)
    return lock.error.code === 'file-missing'
      ? fail('tsm-absent', 'this kernel has no TSM that locks this function for a VM (no tsm/lock)')
      : lock;
  const accept = await files.read(`${folder}/tsm/accept`, 64);
  if (!accept.ok) return accept;
  const tsm = parseTsmName(asciiText(lock.value));
  const accepted = parseFlag(asciiText(accept.value));
  if (tsm === undefined) return fail('attribute-malformed', `${folder}/tsm/lock holds no name of a TSM`);
  if (accepted === undefined) return fail('attribute-malformed', `${folder}/tsm/accept is neither 0 nor 1`);
  if (tsm === null && accepted) return fail('attribute-malformed', `${folder}/tsm: accepted, and locked by no TSM`);
  return ok({ tsm, state: tsm === null ? 'CONFIG_UNLOCKED' : accepted ? 'RUN' : 'CONFIG_LOCKED' });
}

/** Codes: of `readTsmHold`, `tsm-held` (it is locked already), `tsm-refused` (the kernel took it, and did nothing). */
export async function lockByTsm(files: Files, folder: string, tsm: string): Promise<Result<void>> {
  return change(files, folder, {
    from: 'CONFIG_UNLOCKED',
    file: 'lock',
    data: tsm,
    to: { tsm, state: 'CONFIG_LOCKED' },
  });
}

/** Only from the lock: a kernel of the series takes a second `accept` and maps the device twice. Codes: as `lockByTsm`. */
export async function acceptByTsm(files: Files, folder: string, tsm: string): Promise<Result<void>> {
  return change(files, folder, { from: 'CONFIG_LOCKED', file: 'accept', data: '1', to: { tsm, state: 'RUN' } });
}

/** Codes: as `lockByTsm`. */
export async function unlockByTsm(files: Files, folder: string, tsm: string): Promise<Result<void>> {
  return change(files, folder, { from: null, file: 'unlock', data: tsm, to: { tsm: null, state: 'CONFIG_UNLOCKED' } });
}

interface Change {
  /** Null: any but the one that it leads to. */
  readonly from: TdiState | null;
  readonly file: string;
  readonly data: string;
  readonly to: TsmHold;
}

async function change(files: Files, folder: string, { from, file, data, to }: Change): Promise<Result<void>> {
  const before = await readTsmHold(files, folder);
  if (!before.ok) return before;
  const { state, tsm } = before.value;
  if (from === null ? state === to.state : state !== from)
    return fail(
      'tsm-held',
      `the function is in ${state}${tsm === null ? '' : `, held by ${tsm}`}: tsm/${file} is not for that`,
    );
  const written = await files.write(`${folder}/tsm/${file}`, data);
  if (!written.ok) return written;
  const after = await readTsmHold(files, folder);
  if (!after.ok) return after;
  return after.value.tsm === to.tsm && after.value.state === to.state
    ? ok(undefined)
    : fail('tsm-refused', `after ${data} was written to tsm/${file} the function is in ${after.value.state}`);
}
