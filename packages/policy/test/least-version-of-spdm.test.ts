import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkPolicy } from '../src/check.ts';
import { decide } from '../src/decide.ts';
import { decodeClaims } from '../src/inventory-json.ts';
import { SPDM_VERSIONS } from '../src/policy.ts';
import { verdictFor } from '../src/verdict.ts';
import { compile, machine, nic, parse, problemsOf, rules } from './policy-fixtures.ts';

const RULE = '{ id: a, match: {}, level: link, require: { identity: attested, spdm: ">=1.2" } }';
const claim = (spdm?: string) => ({
  ...({ device: nic().id, tier: 'attested', because: 'a test' } as const),
  ...(spdm === undefined ? {} : { spdm }),
});

test('a proof given in an older version, in none, or in one that nobody knows is not good enough', () => {
  const policy = compile(rules(RULE));
  const good = [...SPDM_VERSIONS, '1.0', '1.10', '2.0', '', undefined].filter(
    (version) => verdictFor(policy, nic(), claim(version)).reason === 'rule-matched',
  );
  assert.deepEqual(good, ['1.2', '1.3', '1.4']);
});

test('what is asked for, and what was found, is among the inputs', () => {
  const policy = compile(rules(RULE));
  const [old] = decide(policy, machine([nic()]), { [nic().id]: claim('1.1') });
  assert.deepEqual(
    old?.inputs.find(({ field }) => field === 'spdm'),
    { field: 'spdm', value: '1.1', wanted: '>=1.2', holds: false },
  );
  assert.equal(old?.reason, 'requirement-failed');
});

test('it is written ">=1.2"; everything else is a mistake with a hint', () => {
  for (const [written, hint] of [
    ['1.2', /">=1\.2", in quotes/],
    ['"1.3"', /">=1\.3", in quotes/],
    ['">=1.5"', /one of ">=1\.1"/],
    ['">1.2"', /one of/],
    ['attested', /one of/],
  ] as const) {
    const [problem] = problemsOf(rules(RULE.replace('">=1.2"', written)));
    assert.equal(problem?.code, 'bad-value', written);
    assert.match(problem?.hint ?? '', hint);
  }
  assert.deepEqual(problemsOf(rules(RULE.replace('">=1.2"', '">= 1.4"'))), []);
});

test('check warns where nobody has to be attested for it', () => {
  const findings = checkPolicy(parse(rules(RULE.replace('identity: attested, ', '').replace('link', 'limited'))));
  assert.ok(findings.some(({ code }) => code === 'requirement-not-attested'));
});

test('claims carry it as text, and as nothing else', () => {
  const good = decodeClaims({ 'pci:a': { tier: 'attested', spdm: '1.3' } });
  assert.ok(good.ok);
  assert.equal(good.value['pci:a']?.spdm, '1.3');
  const bad = decodeClaims({ 'pci:a': { tier: 'attested', spdm: 1.3 } });
  assert.equal(bad.ok ? '' : bad.error.code, 'claims-malformed');
});
