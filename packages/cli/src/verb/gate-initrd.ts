/** `airlock gate initrd`: puts the gate in front of an initramfs, or makes a minimal one with it. */
import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { formatProblem, type Problem } from '@airlock/core/result.ts';
import { cacheFolder } from '@airlock/gate/build/node-gate-binary.ts';
import { type GatedInitrd, makeInitrd } from '@airlock/gate/build/node-initrd.ts';
import { GATE_ERRORS } from '@airlock/gate/errors.ts';
import { MODES } from '@airlock/policy/policy.ts';
import { type Context, EXIT, UsageError, type Values, type Verb } from '../verb.ts';

export const verb: Verb = {
  name: 'gate initrd',
  summary: 'make an initramfs whose first program is the gate',
  usage: '--policy FILE --out FILE (--initrd FILE | --kernel VERSION|PATH) [--mode MODE] [--json]',
  help: `
  --policy FILE  the policy that the machine boots behind, with its drop-ins; checked first
  --out FILE     where the initramfs is written
  --initrd FILE  an existing initramfs: cpio archives, plain or compressed with gzip, zstd, xz, lzma, lz4, bzip2 or lzo
  --kernel K     make a minimal initramfs instead, with the modules of this kernel: 6.1, 6.12 or 7.2 of the cache,
                 a release below /lib/modules, or the path of an image or of a folder with modules.dep
  --module NAME  one more module for a minimal initramfs; can be given more than once
  --mode MODE    learn, audit or enforce, instead of what the policy says; learn lasts 30 minutes where it says no time
  --json         what was made as JSON

The old /init is kept and runs after the gate, with the same arguments. The same input gives the same bytes; the digest
printed is that of the whole file, so that it can be part of a launch measurement.

  airlock gate initrd --initrd /boot/initrd.img-6.12 --policy policy.yaml --out /boot/initrd.img-6.12-airlock
  airlock gate initrd --kernel 7.2 --policy policies/lab.yaml --out lab.img
`,
  options: {
    policy: { type: 'string' },
    out: { type: 'string' },
    initrd: { type: 'string' },
    kernel: { type: 'string' },
    module: { type: 'string', multiple: true },
    mode: { type: 'string' },
    json: { type: 'boolean' },
  },
  async run(context, values, positionals) {
    if (positionals.length > 0) throw new UsageError(`takes no arguments, got "${positionals[0]}"`);
    const policy = text(values, 'policy') ?? needs('--policy FILE');
    const out = text(values, 'out') ?? needs('--out FILE');
    const initrd = text(values, 'initrd');
    const kernel = text(values, 'kernel');
    if (initrd === undefined && kernel === undefined) needs('--initrd FILE or --kernel VERSION');
    const asked = text(values, 'mode');
    const mode = MODES.find((one) => one === asked);
    if (asked !== undefined && mode === undefined)
      throw new UsageError(`--mode is one of ${MODES.join(', ')}, not "${asked}"`);
    const modules = ((values['module'] ?? []) as readonly string[]).map(String);
    if (modules.length > 0 && initrd !== undefined)
      throw new UsageError('--module is for minimal initramfs (--kernel)');
    const at = (path: string) => resolve(context.cwd, path);
    const made = await makeInitrd({
      // As it was given: the path stands in every decision.
      policy: context.cwd === process.cwd() ? policy : at(policy),
      cache: cacheFolder(context.env),
      modules,
      ...(initrd === undefined ? {} : { initrd: at(initrd) }),
      ...(kernel === undefined ? {} : { kernel: kernel.includes('/') ? at(kernel) : kernel }),
      ...(mode === undefined ? {} : { mode }),
    });
    if (made.initrd === undefined) return refuse(context, made.problems, values['json'] === true);
    const path = at(out);
    try {
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(`${path}.new`, made.initrd.bytes);
      renameSync(`${path}.new`, path);
    } catch (error) {
      rmSync(`${path}.new`, { force: true });
      const code = error instanceof Error && 'code' in error ? String(error.code) : 'not writable';
      context.stderr(`airlock gate initrd: ${out}: ${code}\n`);
      return EXIT.environment;
    }
    report(context, made.initrd, out, values['json'] === true);
    return EXIT.fine;
  },
};

function text(values: Values, name: string): string | undefined {
  const value = values[name];
  return typeof value === 'string' && value !== '' ? value : undefined;
}

function needs(what: string): never {
  throw new UsageError(`needs ${what}`);
}

function refuse(context: Context, problems: readonly Problem[], json: boolean): number {
  if (json) context.stdout(`${JSON.stringify({ problems })}\n`);
  for (const problem of problems) context.stderr(`${formatProblem(problem)}\n`);
  const environment = problems.some((problem) => problem.code in GATE_ERRORS);
  context.stderr(`airlock gate initrd: nothing was made${environment ? '' : ': the policy has errors'}\n`);
  return environment ? EXIT.environment : EXIT.findings;
}

function report(context: Context, made: GatedInitrd, out: string, json: boolean): void {
  const { bytes, added, digest, gate, mode, kind, segments, policy } = made;
  if (json) {
    context.stdout(
      `${JSON.stringify({ path: out, bytes: bytes.length, added, sha256: digest, gate, mode, kind, segments, files: policy.files })}\n`,
    );
    return;
  }
  const mb = (count: number) => `${(count / 1e6).toFixed(2)} MB`;
  const of =
    kind === 'minimal'
      ? 'minimal'
      : `${kind === 'other' ? 'existing' : kind}, ${segments.map((one) => one.compression).join(' + ')}`;
  context.stdout(`${out}
  policy   ${policy.files.join(', ')}: ${policy.rules.length} rules, ${mode}
  size     ${mb(bytes.length)} (${of}), ${mb(added)} of it the gate's
  sha256   ${digest}
`);
  if (policy.external !== undefined) {
    context.stderr(
      'airlock gate initrd: the policy names an external engine, which the gate cannot run: until the agent starts, only boot-critical devices are connected\n',
    );
  }
}
