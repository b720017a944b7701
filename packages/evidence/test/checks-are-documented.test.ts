import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { checksDocument, renderChecks } from '../../../tools/checks-doc.ts';
import { CHECKS, type CheckEntry } from '../src/catalogue.ts';

test('docs/checks.md is what the catalogue says', () => {
  assert.ok(readFileSync(checksDocument, 'utf8') === renderChecks(), 'run: tools/node tools/checks-doc.ts --write');
});

test('every check of the catalogue is made somewhere', () => {
  // Checks of devices are made in the room of SPDM, which stands below this one.
  const code = ['../src', '../../spdm/src']
    .map((room) => resolve(import.meta.dirname, room))
    .flatMap((folder) =>
      readdirSync(folder, { recursive: true, encoding: 'utf8' })
        .filter((name) => name.endsWith('.ts') && name !== 'catalogue.ts')
        .map((name) => readFileSync(join(folder, name), 'utf8')),
    )
    .join('\n');
  const idle = Object.keys(CHECKS).filter((id) => !code.includes(`'${id}'`));
  assert.deepEqual(idle, []);
});

test('whether evidence is genuine is nobody’s to waive', () => {
  const waivable = Object.entries<CheckEntry>(CHECKS).flatMap(([id, { waivable: may }]) => (may === true ? [id] : []));
  assert.deepEqual(
    waivable.filter((id) => /^chain\.|signature|root|path|revoked|nonce|binding|key$|pcrs/.test(id)),
    [],
  );
});
