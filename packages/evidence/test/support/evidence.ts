/** The folder of real evidence: AIRLOCK_EVIDENCE, or ../shared/evidence beside the repository. */
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const folder = process.env['AIRLOCK_EVIDENCE'] ?? resolve(import.meta.dirname, '../../../../../shared/evidence');

/** A reason to skip by name, or false. */
export const missing: string | false = existsSync(join(folder, 'EXPECTED.md'))
  ? false
  : `no evidence in ${folder}; AIRLOCK_EVIDENCE names its folder`;

export const evidencePath = (name: string): string => join(folder, name);
export const evidence = (name: string): Uint8Array => new Uint8Array(readFileSync(evidencePath(name)));
