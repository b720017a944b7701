/**
 * `tools/node bench/run.ts [NAME…] [--json]`: every file of this folder that exports `bench` or `benches`, or those
 * named; `block` stands for all whose names begin with `block-`. Exits with 1 when the sides of a benchmark do not do the
 * same, 2 for wrong use, 3 when something that a benchmark needs is missing.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type Bench, formatReport, measure } from './side-by-side.ts';

async function readBenches(): Promise<Map<string, Bench>> {
  const benches = new Map<string, Bench>();
  for (const file of readdirSync(import.meta.dirname).sort()) {
    if (!file.endsWith('.ts') || file === 'run.ts') continue;
    const module: { bench?: Bench; benches?: readonly Bench[] } = await import(join(import.meta.dirname, file));
    for (const bench of [module.bench ?? [], module.benches ?? []].flat()) benches.set(bench.name, bench);
  }
  return benches;
}

function isNamed(name: string, by: string): boolean {
  return name === by || name.startsWith(`${by}-`);
}

async function main(args: readonly string[]): Promise<number> {
  let parsed: { values: { json?: boolean | undefined }; positionals: string[] };
  try {
    parsed = parseArgs({ args: [...args], options: { json: { type: 'boolean' } }, allowPositionals: true });
  } catch (error) {
    process.stderr.write(`bench: ${error instanceof Error ? error.message : String(error)}\n`);
    return 2;
  }
  const benches = await readBenches();
  const names = [...benches.keys()];
  const unknown = parsed.positionals.find((by) => !names.some((name) => isNamed(name, by)));
  if (unknown !== undefined) {
    process.stderr.write(`bench: there is no ${unknown}; there are: ${names.join(', ')}\n`);
    return 2;
  }
  let code = 0;
  for (const [name, bench] of benches) {
    if (parsed.positionals.length > 0 && !parsed.positionals.some((by) => isNamed(name, by))) continue;
    const progress = process.stderr.isTTY === true;
    if (progress) process.stderr.write(`${name} …`);
    // One that breaks, or whose peer does, keeps no other from being measured.
    const broken = (error: unknown) => {
      process.stderr.write(
        `${progress ? '\r' : ''}${name}: ${error instanceof Error ? error.message : String(error)}\n`,
      );
      return null;
    };
    const prepared = await bench.prepare().catch(broken);
    if (prepared === null) {
      code = 1;
      continue;
    }
    if (typeof prepared === 'string') {
      process.stderr.write(`${progress ? '\r' : ''}${name}: not run: ${prepared}\n`);
      code = 3;
      continue;
    }
    const report = await measure(bench, prepared).catch(broken);
    await prepared.close?.();
    if (report === null) {
      code = 1;
      continue;
    }
    if (progress) process.stderr.write('\r\x1b[K');
    process.stdout.write(parsed.values.json === true ? `${JSON.stringify(report)}\n` : `${formatReport(report)}\n`);
  }
  return code;
}

process.exitCode = await main(process.argv.slice(2));
