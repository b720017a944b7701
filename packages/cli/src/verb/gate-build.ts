/** `airlock gate build`: the boot gate's binary, built into the cache folder. */
import { formatProblem } from '@airlock/core/result.ts';
import { buildGate, cacheFolder } from '@airlock/gate/build/node-gate-binary.ts';
import { EXIT, UsageError, type Verb } from '../verb.ts';

export const verb: Verb = {
  name: 'gate build',
  summary: 'build the boot gate, one static program for the initramfs',
  usage: '[--json]',
  help: `
  --json         path, size and SHA-256 as JSON

The binary is kept in the cache folder under a key made of its sources and of QuickJS: a second run is instant.
"airlock gate initrd" builds it by itself.
`,
  options: { json: { type: 'boolean' } },
  async run(context, values, positionals) {
    if (positionals.length > 0) throw new UsageError(`takes no arguments, got "${positionals[0]}"`);
    const built = await buildGate({ cache: cacheFolder(context.env) });
    if (!built.ok) {
      context.stderr(`airlock gate build: ${formatProblem(built.error)}\n`);
      return EXIT.environment;
    }
    const { path, bytes, digest, cached } = built.value;
    context.stdout(
      values['json'] === true
        ? `${JSON.stringify({ path, bytes, digest, cached })}\n`
        : `${path}\n  ${(bytes / 1e6).toFixed(2)} MB, sha256 ${digest}${cached ? ', already built' : ''}\n`,
    );
    return EXIT.fine;
  },
};
