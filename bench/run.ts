/**
 * `tools/node bench/run.ts [NAME…] [--json]`: every file of this folder that exports `bench`, or those named. Exits with 1
 * when the sides of a benchmark do not do the same, 2 for wrong use, 3 when something that a benchmark needs is missing.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type Bench, formatReport, measure } from './side-by-side.ts';

async function readBenches(): Promise<Map<string, Bench>> {
  const benches = new Map<string, Bench>();
  for (const file of readdirSync(import.meta.dirname).sort()) {
    if (!file.endsWith('.ts') || file === 'run.ts') continue;
    const module: { bench?: Bench } = await import(join(import.meta.dirname, file));
    if (module.bench !== undefined) benches.set(module.bench.name, module.bench);
  }
  return benches;
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
  const unknown = parsed.positionals.find((name) => !benches.has(name));
  if (unknown !== undefined) {
    process.stderr.write(`bench: there is no ${unknown}; there are: ${[...benches.keys()].join(', ')}\n`);
    return 2;
  }
  let code = 0;
  for (const [name, bench] of benches) {
    if (parsed.positionals.length > 0 && !parsed.positionals.includes(name)) continue;
    const progress = process.stderr.isTTY === true;
    if (progress) process.stderr.write(`${name} …`);
    const prepared = await bench.prepare().catch((error: unknown) => {
      process.stderr.write(
        `${progress ? '\r' : ''}${name}: ${error instanceof Error ? error.message : String(error)}\n`,
      );
      return null;
    });
    if (prepared === null) {
      code = 1;
      continue;
    }
    if (typeof prepared === 'string') {
      process.stderr.write(`${progress ? '\r' : ''}${name}: not run: ${prepared}\n`);
      code = 3;
      continue;
    }
    const report = await measure(bench, prepared);
    await prepared.close?.();
    if (progress) process.stderr.write('\r\x1b[K');
    process.stdout.write(parsed.values.json === true ? `${JSON.stringify(report)}\n` : `${formatReport(report)}\n`);
  }
  return code;
}

process.exitCode = await main(process.argv.slice(2));
