import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { errorsDocument, readCatalogues, renderErrors } from '../tools/errors-doc.ts';

const house = resolve(import.meta.dirname, '..');

test('docs/errors.md is what the catalogues say', async () => {
  assert.equal(
    readFileSync(errorsDocument, 'utf8'),
    renderErrors(await readCatalogues()),
    'run: tools/node tools/errors-doc.ts --write',
  );
});

test('every code that a package fails with stands in a catalogue', async () => {
  const known = new Set([...(await readCatalogues()).values()].flatMap((catalogue) => Object.keys(catalogue)));
  const unknown: string[] = [];
  for (const room of readdirSync(join(house, 'packages'))) {
    const folder = join(house, 'packages', room, 'src');
    for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
      if (!name.endsWith('.ts')) continue;
      const text = readFileSync(join(folder, name), 'utf8');
      for (const [, code] of text.matchAll(/(?<![.\w])fail\(\s*'([^']+)'/g)) {
        if (code !== undefined && !known.has(code)) unknown.push(`${room}/${name}: ${code}`);
      }
    }
  }
  assert.deepEqual(unknown, []);
});
