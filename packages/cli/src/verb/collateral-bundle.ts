/** `airlock collateral bundle`: what a verifier without a network needs, in one file. */
import { lstat, writeFile } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import {
  COLLATERAL_FILES,
  type CollateralFile,
  gatherCollateral,
  listCollateral,
  writeCollateralBundle,
} from '@airlock/evidence/collateral-bundle.ts';
import { nodeCrypto } from '@airlock/evidence/node-crypto.ts';
import { printable } from '@airlock/linux/attribute.ts';
import { collateralText, listFolder, readBytes } from '../evidence-input.ts';
import { type Context, EXIT, UsageError, type Values, type Verb } from '../verb.ts';

export const verb: Verb = {
  name: 'collateral bundle',
  summary:
    'certificates, revocation lists, Intel collateral, NVIDIA manifests in one file for verifiers without a network',
  usage: 'FILE|DIR... --out FILE',
  help: `
Puts the files, and those right below the folders, into one document with a digest of each. What is no collateral, and what
is there twice, is left out and said. airlock verify --collateral takes the document; airlock collateral show tells what in
it expires first. Fetch the files yourself, from the vendors' services; nothing is fetched here.

  --out FILE          where the document goes

Exit codes: 0 written, 1 nothing in it is collateral, 2 usage, 3 not written.

  airlock collateral bundle pcs/ amd/ rims/ --out collateral.json
`,
  options: { out: { type: 'string' } },
  run,
};

async function run(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  const out = values['out'];
  if (typeof out !== 'string') throw new UsageError('--out FILE is needed');
  if (positionals.length === 0) throw new UsageError('at least one FILE or DIR is needed');
  const files: CollateralFile[] = [];
  for (const path of await expand(context, positionals)) {
    const bytes = await readBytes(context, path);
    if (typeof bytes === 'string') throw new UsageError(`${printable(path)}: ${bytes}`);
    files.push({ name: printable(basename(path)), bytes });
  }
  const { kept, found, left } = gatherCollateral(files);
  for (const { name, why } of left) context.stderr(`airlock collateral bundle: ${name}: left out: ${printable(why)}\n`);
  if (kept.length === 0) {
    context.stderr('airlock collateral bundle: nothing to put into it\n');
    return EXIT.findings;
  }
  const made = Date.now();
  try {
    await writeFile(resolve(context.cwd, out), writeCollateralBundle(nodeCrypto(), { made, files: kept }));
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    context.stderr(`airlock collateral bundle: --out ${printable(out)}: ${code}\n`);
    return EXIT.environment;
  }
  context.stdout(collateralText(listCollateral(found), made, context));
  return EXIT.fine;
}

async function expand(context: Context, paths: readonly string[]): Promise<string[]> {
  const all: string[] = [];
  for (const path of paths) {
    const folder = await lstat(resolve(context.cwd, path)).then(
      (found) => found.isDirectory(),
      () => false,
    );
    const names = folder ? await listFolder(resolve(context.cwd, path)) : null;
    if (typeof names === 'string') throw new UsageError(`${printable(path)}: ${names}`);
    all.push(...(names === null ? [path] : names.map((name) => join(path, name))));
  }
  if (all.length > COLLATERAL_FILES) throw new UsageError(`more than ${COLLATERAL_FILES} files`);
  return all;
}
