/** `airlock evidence reference`: the PCRs of a boot that is known to be good, as `verify --reference` takes them. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { resolve } from 'node:path';
import { formatProblem } from '@airlock/core/result.ts';
import type { Appraisal } from '@airlock/evidence/check.ts';
import { appraiseMachine } from '@airlock/evidence/machine/appraise.ts';
import { isBundle, readBundle } from '@airlock/evidence/machine/bundle.ts';
import { nodeCrypto } from '@airlock/evidence/node-crypto.ts';
import { recognise } from '@airlock/evidence/recognise.ts';
import { type BootEvent, LAUNCH_PCRS, LINUX_PCR, linuxBoot } from '@airlock/evidence/tpm/boot-events.ts';
import { printable } from '@airlock/linux/attribute.ts';
import { readBytes } from '../evidence-input.ts';
import { type Context, EXIT, UsageError, type Values, type Verb } from '../verb.ts';

export const verb: Verb = {
  name: 'evidence reference',
  summary: 'reference values from a boot that you know to be good: what its TPM measured',
  usage: 'FILE [--pcr LIST] [--cmdline TEXT --initrd FILE] [--name TEXT] [--json]',
  help: `
FILE is what airlock evidence collect wrote in a guest that has a TPM. Prints the PCRs of its quote as YAML (docs/evidence.md,
Reference values) for airlock verify --reference, with the events that make them, so that a later difference is named.
The quote must be good, and its event log must replay to it; that the boot was a good one, and that the TPM is the guest's,
is your word: later boots are held against it.

  --pcr LIST          which PCRs (default: 0,2,4,7, and of 8,9,11,12 those that were measured into)
  --cmdline TEXT      with --initrd: PCR 9 not as it was but as it will be with this command line (as /proc/cmdline
  --initrd FILE       shows it) and this initramfs, where Linux's EFI stub alone measures there: QEMU's -kernel with OVMF
  --name TEXT         of the set
  --json              as JSON, which --reference takes as well

Exit codes: 0 written, 1 the evidence is not good, 2 usage.

  airlock evidence reference first.json > boot.yaml
  airlock verify machine.json --nonce 6f1d... --key first.json --reference boot.yaml
  airlock evidence reference first.json --initrd new.img --cmdline "$(cat cmdline)" > next.yaml
`,
  options: {
    pcr: { type: 'string' },
    cmdline: { type: 'string' },
    initrd: { type: 'string' },
    name: { type: 'string' },
    json: { type: 'boolean' },
  },
  run,
};

const PLATFORM_PCRS: readonly number[] = [0, 2, 4, 7];
const CMDLINE_LIMIT = 4096;

async function run(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  const [path, stray] = positionals;
  if (path === undefined || stray !== undefined) throw new UsageError('one FILE is needed');
  const wanted = pcrsOf(values['pcr']);
  const { cmdline, initrd, name } = values;
  if ((typeof cmdline === 'string') !== (typeof initrd === 'string'))
    throw new UsageError('--cmdline and --initrd make one value: give both');
  if (typeof cmdline === 'string' && (cmdline.length > CMDLINE_LIMIT || /[\0\n]/.test(cmdline)))
    throw new UsageError(`--cmdline: one line of up to ${CMDLINE_LIMIT} letters`);
  if (typeof name === 'string' && !/^[\x20-\x7e]{1,64}$/.test(name))
    throw new UsageError('--name: 1 to 64 ASCII letters');
  const quote = await readQuote(context, path);
  if (typeof quote === 'string') throw new UsageError(`${printable(path)}: ${quote}`);
  if (quote.verdict !== 'accepted') {
    for (const { status, id, expected, found } of quote.checks)
      if (status === 'failed')
        context.stderr(
          `airlock evidence reference: ${id}: expected ${printable(expected)}, found ${printable(found)}\n`,
        );
    return EXIT.findings;
  }
  const pcrs = mapOf(quote.claims['pcrs']);
  const events = mapOf(quote.claims['events']);
  const computed =
    typeof cmdline === 'string' && typeof initrd === 'string'
      ? linuxBoot(nodeCrypto(), { cmdline, initrd: await digestOf(context, initrd) })
      : null;
  const set: { [key: string]: unknown } = { kind: 'tpm-2.0', ...(typeof name === 'string' ? { name } : {}) };
  for (const pcr of wanted ?? [...new Set([...PLATFORM_PCRS, ...LAUNCH_PCRS])].sort((a, b) => a - b)) {
    const key = String(pcr);
    const own = pcr === LINUX_PCR ? computed : null;
    const value = own === null ? pcrs[key] : Buffer.from(own.value).toString('hex');
    if (typeof value !== 'string') throw new UsageError(`--pcr ${key}: the quote does not cover it`);
    if (wanted === null && !PLATFORM_PCRS.includes(pcr) && /^0+$/.test(value)) continue;
    set[`pcr${key}`] = value;
    const made: unknown = own === null ? events[key] : own.events;
    if (Array.isArray(made) && made.length > 0) set[`pcr${key}-events`] = made;
  }
  const document = { version: 1, sets: [set] };
  context.stdout(values['json'] === true ? `${JSON.stringify(document, null, 2)}\n` : yamlOf(set));
  return EXIT.fine;
}

/** The TPM's appraisal, its key taken for what the file says; or why there is none. */
async function readQuote(context: Context, path: string): Promise<Appraisal | string> {
  const read = await readBytes(context, path);
  if (typeof read === 'string') return read;
  const text = Buffer.from(read).toString('latin1');
  if (!isBundle(text)) return 'not what airlock evidence collect writes';
  const bundle = readBundle(text);
  if (!bundle.ok) return formatProblem(bundle.error);
  const parts = bundle.value.vm.flatMap((part) => recognise(part.name, part.bytes).found);
  const trustedKeys = parts.flatMap(({ item }) => (item.kind === 'public-key' ? [item.spki] : []));
  const { vm } = appraiseMachine(bundle.value, [], { crypto: nodeCrypto(), asOf: Date.now(), trustedKeys });
  const quotes = vm.filter(({ kind }) => kind === 'tpm-2.0');
  const [quote] = quotes;
  if (quote === undefined || quotes.length > 1) return 'it holds no TPM quote, or several';
  return quote;
}

function pcrsOf(value: Values[string]): readonly number[] | null {
  if (value === undefined) return null;
  const words = String(value).split(',');
  const numbers = words.map((word) => (/^(1?[0-9]|2[0-3])$/.test(word) ? Number(word) : Number.NaN));
  const wrong = words.find((_, i) => Number.isNaN(numbers[i]));
  if (wrong !== undefined) throw new UsageError(`--pcr ${printable(wrong)}: numbers from 0 to 23, such as 4,7,9`);
  return [...new Set(numbers)].sort((a, b) => a - b);
}

function mapOf(claim: unknown): { readonly [name: string]: unknown } {
  return typeof claim === 'object' && claim !== null && !Array.isArray(claim) ? { ...claim } : {};
}

/** SHA-256; an initramfs may be large. */
async function digestOf(context: Context, path: string): Promise<Uint8Array> {
  const hash = createHash('sha256');
  try {
    for await (const chunk of createReadStream(resolve(context.cwd, path))) hash.update(chunk);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    throw new UsageError(`--initrd ${printable(path)}: ${code === 'ENOENT' ? 'no such file' : code}`);
  }
  return hash.digest();
}

function yamlOf(set: { readonly [key: string]: unknown }): string {
  const lines = ['version: 1', 'sets:'];
  let lead = '  - ';
  for (const [key, value] of Object.entries(set)) {
    if (Array.isArray(value)) {
      lines.push(`${lead}${key}:`);
      for (const event of value as readonly BootEvent[])
        lines.push(`      - { name: ${JSON.stringify(event.name)}, digest: '${event.digest}' }`);
    } else lines.push(`${lead}${key}: ${key === 'kind' ? value : `'${String(value).replaceAll("'", "''")}'`}`);
    lead = '    ';
  }
  return `${lines.join('\n')}\n`;
}
