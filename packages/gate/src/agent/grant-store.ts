/** Grants on this machine: those of this boot in /run/airlock, those without an end in /var/lib/airlock. */
import { asciiText } from '@airlock/core/bytes.ts';
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import type { Files } from '@airlock/linux/files.ts';
import { addGrant, GRANTS_BYTES, GRANTS_LIMIT, type GrantRecord, readGrants, writeGrants } from './grants.ts';
import { STATE } from './state.ts';

export interface Loaded {
  readonly grants: readonly GrantRecord[];
  /** Files that are there and do not count. */
  readonly problems: readonly Problem[];
}

/** `boot` null (the boot cannot be told): only those without an end count. A missing file is no problem. */
export async function loadGrants(files: Files, boot: string | null): Promise<Loaded> {
  const problems: Problem[] = [];
  const take = async (path: string, of: string | null): Promise<GrantRecord[]> => {
    const bytes = await files.read(path, GRANTS_BYTES);
    if (!bytes.ok) {
      if (bytes.error.code !== 'file-missing') problems.push(bytes.error);
      return [];
    }
    const grants = readGrants(asciiText(bytes.value), of);
    if (grants.ok) return grants.value;
    problems.push({ ...grants.error, message: `${path}: ${grants.error.message}` });
    return [];
  };
  let grants: GrantRecord[] = await take(STATE.permanentGrants, null);
  if (boot !== null) for (const grant of await take(STATE.grants, boot)) grants = addGrant(grants, grant);
  return { grants, problems };
}

/** Those of this boot. Codes: those of `Files`, `clock-unreadable`, `grants-too-many`. */
export async function saveGrants(
  files: Files,
  grants: readonly GrantRecord[],
  boot: string | null,
): Promise<Result<void>> {
  if (boot === null) return fail('clock-unreadable', 'the id of this boot is not known');
  return save(
    files,
    STATE.grants,
    grants.filter(({ kept }) => kept !== true),
    boot,
  );
}

/** Those without an end. Codes: those of `Files`, `grants-too-many`. */
export async function savePermanentGrants(files: Files, grants: readonly GrantRecord[]): Promise<Result<void>> {
  return save(
    files,
    STATE.permanentGrants,
    grants.filter(({ kept }) => kept === true),
    null,
  );
}

async function save(
  files: Files,
  path: string,
  grants: readonly GrantRecord[],
  boot: string | null,
): Promise<Result<void>> {
  const text = writeGrants(grants, boot);
  if (grants.length > GRANTS_LIMIT || text.length > GRANTS_BYTES) {
    return fail('grants-too-many', `${path}: no more than ${GRANTS_LIMIT} grants`);
  }
  const saved = await files.save(path, text, 0o600);
  return saved.ok ? ok(undefined) : saved;
}
