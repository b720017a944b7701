/** The files that `list` and `info` read: nothing can be written but, with `--probe`, configuration space. */
import { existsSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { TRUST_LEVELS, type TrustLevel } from '@airlock/core/level.ts';
import { fail } from '@airlock/core/result.ts';
import type { Files } from '@airlock/linux/files.ts';
import { nodeFiles } from '@airlock/linux/node-files.ts';
import { type Context, UsageError, type Values } from './verb.ts';

export function deviceFiles(context: Context, values: Values): Files {
  const root = typeof values['root'] === 'string' ? resolve(context.cwd, values['root']) : '/';
  if (!existsSync(root) || !statSync(root).isDirectory()) throw new UsageError(`no such folder: ${root}`);
  const probing = values['probe'] === true;
  const files = nodeFiles({ root, writes: probing ? 'everything' : 'nothing' });
  const forbidden = async (path: string) => fail('write-forbidden', `${path}: not written`);
  return {
    ...files,
    write: (path, data, offset) =>
      probing && /^\/sys\/(bus\/pci\/)?devices\/.*\/config$/.test(path) && !path.includes('/../')
        ? files.write(path, data, offset)
        : forbidden(path),
    save: forbidden,
    append: forbidden,
  };
}

/** What the gate or the agent last did about a device, as far as it is shown here. */
export interface EnforcedLevel {
  readonly level: TrustLevel;
  readonly rule: string;
  readonly status: string;
  readonly detail: string;
}

/** By device id, from /run/airlock/enforcement.json; `undefined` when no gate has run. */
export async function readLevels(
  files: Files,
): Promise<ReadonlyMap<string, EnforcedLevel> | 'malformed' | 'denied' | undefined> {
  const bytes = await files.read('/run/airlock/enforcement.json', 16_777_216);
  if (!bytes.ok) {
    const { code } = bytes.error;
    return code === 'file-missing' ? undefined : code === 'file-denied' ? 'denied' : 'malformed';
  }
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(bytes.value).toString('utf8'));
  } catch {
    return 'malformed';
  }
  if (!Array.isArray(value)) return 'malformed';
  const levels = new Map<string, EnforcedLevel>();
  for (const entry of value as unknown[]) {
    const decision = member(entry, 'decision');
    const device = member(decision, 'device');
    const level = TRUST_LEVELS.find((name) => name === member(decision, 'level'));
    if (typeof device !== 'string' || level === undefined) return 'malformed';
    const rule = member(member(decision, 'rule'), 'id') ?? member(decision, 'reason');
    levels.set(device, {
      level,
      rule: String(rule ?? ''),
      status: String(member(entry, 'status') ?? ''),
      detail: String(member(decision, 'detail') ?? ''),
    });
  }
  return levels;
}

function member(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, key)
    ? (value as Record<string, unknown>)[key]
    : undefined;
}
