import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { decodePolicy } from '@airlock/policy/decode.ts';
import { loadPolicy } from '@airlock/policy/node-source.ts';
import { policyWith } from '../src/lab-policy.ts';

const RULE = `  - id: added
    match: { bus: pci, class: nvme }
    require: { identity: attested, roots: [maker.pem] }
    level: limited
`;

const POLICY = `version: 1
mode: enforce
rules:
  - id: own
    match: { bus: pci, class: network }
    require: { identity: attested, roots: [own.pem] }
    level: limited
`;

function setting(
  t: TestContext,
  text: string,
): {
  readonly policy: string;
  readonly into: string;
  readonly folder: string;
} {
  const folder = mkdtempSync(join(tmpdir(), 'airlock-policy-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  writeFileSync(join(folder, 'p.yaml'), text);
  return { policy: join(folder, 'p.yaml'), into: join(folder, 'into'), folder };
}

test('a policy that gets no rule stays where it is, whatever is wrong with it', async (t) => {
  const { policy, into } = setting(t, 'version: 2\n');
  assert.deepEqual(await policyWith(policy, [], {}, into), { policy: { path: policy, added: null } });
});

test('added rules come after those of the policy and of its drop-ins, and what rules name lies beside them', async (t) => {
  const { policy, into, folder } = setting(t, POLICY);
  writeFileSync(join(folder, 'own.pem'), 'own');
  mkdirSync(join(folder, 'p.d'));
  writeFileSync(
    join(folder, 'p.d/10-more.yaml'),
    'version: 1\nrules:\n  - id: more\n    match: { bus: usb }\n    level: limited\n',
  );
  const made = await policyWith(policy, [RULE], { 'maker.pem': 'maker' }, into);
  assert.ok('policy' in made, JSON.stringify(made));
  const loaded = await loadPolicy(made.policy.path);
  assert.deepEqual(
    decodePolicy(loaded.documents).policy?.rules.map(({ id }) => id),
    ['own', 'more', 'added'],
  );
  assert.equal(made.policy.added, `version: 1\nrules:\n${RULE}`);
  for (const [name, text] of [
    ['own.pem', 'own'],
    ['maker.pem', 'maker'],
  ] as const)
    assert.equal(readFileSync(join(into, name), 'utf8'), text);
});

test('an id that the policy has already is an error of the policy, not a rule that is never asked', async (t) => {
  const { policy, into } = setting(t, POLICY.replace('id: own', 'id: added'));
  const made = await policyWith(policy, [RULE], {}, into);
  assert.ok('problems' in made);
  assert.equal(made.problems[0].code, 'duplicate-id');
});

test('a policy with errors is refused as it is', async (t) => {
  const { policy, into } = setting(t, 'version: 2\n');
  const made = await policyWith(policy, [RULE], {}, into);
  assert.ok('problems' in made);
});
