import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { auditDocument, renderAudit } from '../../../tools/audit-doc.ts';
import { CHECKS } from '../src/audit/catalogue.ts';
import { AREAS, SEVERITIES } from '../src/audit/finding.ts';

test('docs/audit.md lists the checks as the code has them', () => {
  const text = readFileSync(auditDocument, 'utf8');
  assert.ok(CHECKS.every(({ id }) => text.includes(`### ${id}\n`)));
  assert.ok(text === renderAudit(text), 'run: tools/node tools/audit-doc.ts --write');
});

test('every check says what it is, in words that end where sentences end', () => {
  for (const check of CHECKS) {
    assert.match(check.id, /^[a-z0-9]+(-[a-z0-9]+)+$/);
    assert.ok(AREAS.includes(check.area), check.id);
    assert.ok(check.looksAt.length > 0, check.id);
    assert.match(check.why, /\.$/, check.id);
    assert.match(check.fix, /\.$/, check.id);
    assert.doesNotMatch(check.title, /\.$/, check.id);
    assert.ok(/^[\x20-\x7e]*$/.test(check.title + check.why + check.fix + check.reference), check.id);
    if (check.elsewhere !== null) {
      assert.ok(
        SEVERITIES.indexOf(check.elsewhere) >= SEVERITIES.indexOf(check.severity),
        `${check.id} weighs more elsewhere`,
      );
    }
  }
});

test('a reference is a kernel document, a manual page, the standard, or a section of the Intel specification', () => {
  for (const { id, reference } of CHECKS) {
    assert.match(
      reference,
      /^(Documentation\/[\w./-]+|VIRTIO 1\.2, [\d.]+ [\w ]+|[\w.-]+\(\d\)|Intel TDX Linux Guest Kernel Security Specification, "[^"]+")$/,
      id,
    );
  }
});
