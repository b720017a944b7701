/** The policy as the lab's guest gets it: where rules of the lab's own come after it, a copy with them as a drop-in. */
import { copyFileSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { basename, dirname, extname, join, relative } from 'node:path';
import type { Problem } from '@airlock/core/result.ts';
import { decodePolicy } from '@airlock/policy/decode.ts';
import { loadPolicy } from '@airlock/policy/node-source.ts';

export interface LabPolicy {
  /** Of the main file. */
  readonly path: string;
  /** The drop-in's text; null where nothing was added. */
  readonly added: string | null;
}

/** Byte order puts it after whatever drop-ins there are. */
const DROP_IN = 'zz-lab.yaml';

/**
 * The policy with `rules` after its own, in the folder `into` with the files that rules name; where there are none it stays
 * where it is. `files` are those that the added rules name. The problems are those of the policy, and `lab-build`.
 */
export async function policyWith(
  policy: string,
  rules: readonly string[],
  files: Readonly<Record<string, string>>,
  into: string,
): Promise<{ readonly policy: LabPolicy } | { readonly problems: readonly [Problem, ...Problem[]] }> {
  if (rules.length === 0) return { policy: { path: policy, added: null } };
  const loaded = await loadPolicy(policy);
  const decoded = decodePolicy(loaded.documents);
  const [first, ...rest] = [...loaded.problems, ...decoded.problems];
  if (first !== undefined) return { problems: [first, ...rest] };
  const from = dirname(policy);
  // All of them belong beside the policy; one that is missing is for whoever makes the initramfs to name.
  const named = (decoded.policy?.rules ?? [])
    .flatMap(({ require }) => [...(require?.roots ?? []), ...(require?.measurements ?? [])])
    .filter((name) => existsSync(join(from, name)));
  const path = join(into, basename(policy));
  const drops = join(into, `${basename(policy, extname(policy))}.d`);
  const added = `version: 1\nrules:\n${rules.join('')}`;
  try {
    mkdirSync(drops, { recursive: true });
    for (const name of [...loaded.files.map((file) => relative(from, file)), ...new Set(named)])
      copyFileSync(join(from, name), join(into, name));
    for (const [name, text] of Object.entries(files)) writeFileSync(join(into, name), text);
    writeFileSync(join(drops, DROP_IN), added);
  } catch (error) {
    const message = `the policy's files: ${error instanceof Error ? error.message : error}`;
    return { problems: [{ code: 'lab-build', message }] };
  }
  // A rule of the same id, say.
  const all = await loadPolicy(path);
  const [wrong, ...more] = [...all.problems, ...decodePolicy(all.documents).problems];
  return wrong === undefined ? { policy: { path, added } } : { problems: [wrong, ...more] };
}
