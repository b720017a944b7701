/** `airlock collateral show`: what collateral there is, and what expires first. */
import { listCollateral } from '@airlock/evidence/collateral-bundle.ts';
import { readTime, timeText } from '@airlock/evidence/time.ts';
import { collateralText, readCollateral } from '../evidence-input.ts';
import { type Context, EXIT, UsageError, type Values, type Verb } from '../verb.ts';

export const verb: Verb = {
  name: 'collateral show',
  summary: 'what collateral there is, and what expires first',
  usage: 'BUNDLE|DIR... [--as-of DATE] [--json]',
  help: `
Lists what a document of airlock collateral bundle, or a folder, holds: what expires first stands first. Digests of a
document are held against its contents.

  --as-of DATE        for this date, 2026-11-20, instead of now
  --json              as one JSON value

Exit codes: 0 everything is valid on the date, 1 something is not, 2 usage.

  airlock collateral show collateral.json
  airlock collateral show pcs/ --as-of 2026-12-24
`,
  options: { 'as-of': { type: 'string' }, json: { type: 'boolean' } },
  run,
};

async function run(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  if (positionals.length === 0) throw new UsageError('at least one BUNDLE or DIR is needed');
  const text = values['as-of'];
  const asOf = typeof text === 'string' ? readTime(text) : Date.now();
  if (asOf === undefined) throw new UsageError(`--as-of ${String(text)}: a date such as 2026-11-20`);
  const found = await readCollateral(context, 'collateral show', positionals);
  if (typeof found === 'string') throw new UsageError(found);
  const entries = listCollateral(found);
  if (values['json'] === true) {
    const date = (moment: number | null) => (moment === null ? null : timeText(moment));
    const items = entries.map(({ from, until, ...rest }) => ({ ...rest, from: date(from), until: date(until) }));
    context.stdout(`${JSON.stringify({ asOf: timeText(asOf), items }, null, 2)}\n`);
  } else context.stdout(collateralText(entries, asOf, context));
  const valid = entries.every(({ from, until }) => (from ?? asOf) <= asOf && asOf <= (until ?? asOf));
  return entries.length > 0 && valid ? EXIT.fine : EXIT.findings;
}
