/** docs/errors.md from every package's `errors.ts`. `tools/node tools/errors-doc.ts --write` writes it; a test holds it current. */
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { ErrorCatalogue } from '@airlock/core/result.ts';

const house = resolve(import.meta.dirname, '..');
export const errorsDocument = join(house, 'docs', 'errors.md');

/** Room → code → meaning, in the order of the rooms' names. A file may export several catalogues; all count. */
export async function readCatalogues(): Promise<Map<string, ErrorCatalogue>> {
  const catalogues = new Map<string, ErrorCatalogue>();
  for (const room of readdirSync(join(house, 'packages')).sort()) {
    const file = join(house, 'packages', room, 'src', 'errors.ts');
    if (!existsSync(file)) continue;
    const module: Record<string, ErrorCatalogue> = await import(file);
    catalogues.set(room, Object.assign({}, ...Object.values(module)));
  }
  return catalogues;
}

export function renderErrors(catalogues: Map<string, ErrorCatalogue>): string {
  const parts = [
    '# Error codes',
    'Made from the `errors.ts` of each package by `tools/node tools/errors-doc.ts --write`. A code is stable; a message is not.',
  ];
  for (const [room, catalogue] of catalogues) {
    parts.push(`## ${room}`);
    const rows = Object.entries(catalogue).sort(([a], [b]) => (a < b ? -1 : 1));
    parts.push(
      [
        '| code | meaning |',
        '|---|---|',
        ...rows.map(([code, text]) => `| \`${code}\` | ${text.replaceAll('|', '\\|')} |`),
      ].join('\n'),
    );
  }
  return `${parts.join('\n\n')}\n`;
}

if (import.meta.main) {
  const text = renderErrors(await readCatalogues());
  if (process.argv[2] === '--write') writeFileSync(errorsDocument, text);
  else process.stdout.write(text);
}
