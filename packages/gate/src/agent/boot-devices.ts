/** What the gate wrote down of the devices that were there at boot, and what is left of it by now. */
import { asciiText } from '@airlock/core/bytes.ts';
import type { Problem } from '@airlock/core/result.ts';
import type { Files } from '@airlock/linux/files.ts';
import { STATE } from './state.ts';

const LIMIT = 4 * 1024 * 1024;

/** As `Origins.boot`; undefined when no gate ran. Inode numbers that cannot be read are not known, and no problem. */
export async function loadBootDevices(files: Files): Promise<ReadonlyMap<string, string | null> | undefined> {
  const ids = await readJson(files, STATE.bootDevices);
  if (!Array.isArray(ids) || !ids.every((id) => typeof id === 'string')) return undefined;
  const inodes = await readJson(files, STATE.bootInodes);
  const known = new Map<string, unknown>(
    typeof inodes === 'object' && inodes !== null && !Array.isArray(inodes) ? Object.entries(inodes) : [],
  );
  return new Map(
    ids.map((id) => {
      const inode = known.get(id);
      return [id, typeof inode === 'string' && /^\d{1,20}$/.test(inode) ? inode : null];
    }),
  );
}

/** For those who look without an agent, and for the next one. */
export async function saveBootDevices(files: Files, boot: ReadonlyMap<string, string | null>): Promise<Problem | null> {
  const ids = await files.save(STATE.bootDevices, `${JSON.stringify([...boot.keys()])}\n`, 0o600);
  const inodes = await files.save(STATE.bootInodes, `${JSON.stringify(Object.fromEntries(boot))}\n`, 0o600);
  return ids.ok ? (inodes.ok ? null : inodes.error) : ids.error;
}

async function readJson(files: Files, path: string): Promise<unknown> {
  const bytes = await files.read(path, LIMIT);
  if (!bytes.ok) return undefined;
  try {
    return JSON.parse(asciiText(bytes.value));
  } catch {
    return undefined;
  }
}
