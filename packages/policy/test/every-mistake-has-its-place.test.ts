import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodePolicy, PROBLEM_LIMIT } from '../src/decode.ts';
import { POLICY_ERRORS } from '../src/errors.ts';
import { readYaml } from '../src/yaml.ts';
import { parse, problemsOf } from './policy-fixtures.ts';

/** Text, then each expected problem as `line:column code` and a part of message and hint. */
const mistakes: readonly (readonly [string, string, string])[] = [
  ['', '1:1 policy-empty', 'version: 1'],
  ['mode: enforce', '1:1 missing-key', 'no version'],
  ['version: 2', '1:10 bad-value', 'version 1'],
  ['version: 1\nmdoe: audit', '2:1 unknown-key', 'did you mean mode?'],
  ['version: 1\nversion: 1', '2:1 duplicate-key', 'first at line 1'],
  ['version: 1\nmode: permissive', '2:7 unknown-name', 'one of learn, audit, enforce'],
  ['version: 1\nmode: learn', '2:7 keys-conflict', 'learn: { for: 30m }'],
  ['version: 1\nlearn: { for: 30m }', '2:1 keys-conflict', 'no effect'],
  ['version: 1\nmode: learn\nlearn: { for: 30 }', '3:15 wrong-type', 'write "30" in quotes'],
  ['version: 1\nmode: learn\nlearn: { for: 3 weeks }', '3:15 bad-value', '24h'],
  ['version: 1\nmode: learn\nlearn: { for: 9d }', '3:15 bad-value', 'a week at most'],
  ['version: 1\ndefault: no', '2:10 unknown-name', '"no" is not a trust level'],
  ['version: 1\ndefault: false', '2:10 wrong-type', 'found false'],
  ['version: 1\ndefault: 1', '2:10 wrong-type', 'the number 1'],
  ['version: 1\nplatform: [swiotlb]', '2:11 wrong-type', 'found a list'],
  ['version: 1\nplatform: { require: [swiotlb-froce] }', '2:23 unknown-name', 'did you mean swiotlb-force?'],
  ['version: 1\nplatform: { require: swiotlb }', '2:22 wrong-type', 'write it as [ ... ]'],
  ['version: 1\nplatform: { forbid: [hotplugs] }', '2:22 unknown-name', 'did you mean hotplug?'],
  ['version: 1\nboot-critical: []', '2:16 bad-value', 'leave the key out'],
  ['version: 1\nrules: { a: 1 }', '2:8 wrong-type', 'found a map'],
  ['version: 1\nrules:', '2:7 wrong-type', 'found nothing'],
  ['version: 1\nrules: [{ id: a, level: limited }]', '2:9 missing-key', 'no match'],
  ['version: 1\nrules: [{ id: A b, match: {}, level: limited }]', '2:15 bad-value', 'small letters'],
  ['version: 1\nrules: [{ id: 7, match: {}, level: limited }]', '2:15 wrong-type', 'quotes'],
  ['version: 1\nrules: [{ name: a, id: a, match: {}, level: limited }]', '2:11 unknown-key', 'named by id'],
  ['version: 1\nrules: [{ id: a, match: {}, action: allow, level: limited }]', '2:29 unknown-key', 'level:'],
  ['version: 1\nrules: [{ id: a, match: { bus: pcie }, level: limited }]', '2:32 unknown-name', 'did you mean pci?'],
  ['version: 1\nrules: [{ id: a, match: { type: blok }, level: limited }]', '2:33 unknown-name', 'did you mean block?'],
  ['version: 1\nrules: [{ id: a, match: { type: 0 }, level: limited }]', '2:33 bad-value', 'VIRTIO type'],
  ['version: 1\nrules: [{ id: a, match: { vendor: 15b3 }, level: limited }]', '2:35 bad-value', 'write 0x15b3'],
  ['version: 1\nrules: [{ id: a, match: { vendor: 010 }, level: limited }]', '2:35 bad-value', 'a vendor id'],
  ['version: 1\nrules: [{ id: a, match: { vendor: 1e3 }, level: limited }]', '2:35 bad-value', 'a vendor id'],
  ['version: 1\nrules: [{ id: a, match: { vendor: 0o17 }, level: limited }]', '2:35 bad-value', 'a vendor id'],
  ['version: 1\nrules: [{ id: a, match: { vendor: -1 }, level: limited }]', '2:35 bad-value', 'a vendor id'],
  ['version: 1\nrules: [{ id: a, match: { device: 0x10000 }, level: limited }]', '2:35 bad-value', 'a device id'],
  [
    'version: 1\nrules: [{ id: a, match: { vendor: 99999999999999999999 }, level: limited }]',
    '2:35 bad-value',
    'vendor',
  ],
  ['version: 1\nrules: [{ id: a, match: { vendor: [] }, level: limited }]', '2:35 bad-value', 'empty'],
  ['version: 1\nrules: [{ id: a, match: { vendor: [[1]] }, level: limited }]', '2:36 wrong-type', 'found a list'],
  ['version: 1\nrules: [{ id: a, match: { class: 0x108 }, level: limited }]', '2:34 bad-value', 'leading zeros'],
  [
    'version: 1\nrules: [{ id: a, match: { class: netwrok }, level: limited }]',
    '2:34 unknown-name',
    'did you mean network?',
  ],
  ['version: 1\nrules: [{ id: a, match: { revision: 3..1 }, level: limited }]', '2:37 bad-value', '1..3'],
  ['version: 1\nrules: [{ id: a, match: { revision: ">65535" }, level: limited }]', '2:37 bad-value', 'a revision'],
  [
    'version: 1\nrules: [{ id: a, match: { serial: 0123 }, level: limited }]',
    '2:35 wrong-type',
    'write "0123" in quotes',
  ],
  ['version: 1\nrules: [{ id: a, match: { serial: "" }, level: limited }]', '2:35 bad-value', 'serial'],
  [
    'version: 1\nrules: [{ id: a, match: { hotplugged: no }, level: limited }]',
    '2:39 wrong-type',
    'only true and false',
  ],
  ['version: 1\nrules: [{ id: a, match: { identity: ">=atested" }, level: limited }]', '2:37 unknown-name', 'attested'],
  [
    'version: 1\nrules: [{ id: a, match: { location: "*a*b*c*d*e*f*g*h*i" }, level: limited }]',
    '2:37 bad-value',
    'eight',
  ],
  ['version: 1\nrules: [{ id: a, match: { subsystem: {} }, level: limited }]', '2:38 missing-key', 'empty'],
  [
    'version: 1\nrules: [{ id: a, match: { bus: usb, transport: pci }, level: limited }]',
    '2:25 keys-conflict',
    'virtio',
  ],
  [
    'version: 1\nrules: [{ id: a, match: {}, level: limited, features: { forbid: [RING_PAKED] } }]',
    '2:66 unknown-name',
    'RING_PACKED',
  ],
  [
    'version: 1\nrules: [{ id: a, match: {}, level: limited, features: { forbid: [VERSION_1], require: [VIRTIO_F_VERSION_1] } }]',
    '2:55 keys-conflict',
    'both',
  ],
  [
    'version: 1\nrules: [{ id: a, match: {}, level: tcb, otherwise: { level: limited } }]',
    '2:9 keys-conflict',
    'never holds',
  ],
  [
    'version: 1\nrules: [{ id: a, match: {}, level: tcb, require: { roots: ../x.pem } }]',
    '2:59 bad-value',
    'without a path',
  ],
  [
    'version: 1\nrules: [{ id: a, match: {}, level: limited, protect: { disk: { encryption: aes-gcm, integrity: hmac-sha256 } } }]',
    '2:62 keys-conflict',
    'aead',
  ],
  [
    'version: 1\nrules: [{ id: a, match: {}, level: limited, protect: { disk: { integrity: hmac-sha256 } } }]',
    '2:62 missing-key',
    'encryption',
  ],
  ['version: 1\non: { ring-violations: [log] }', '2:7 unknown-key', 'did you mean ring-violation?'],
  ['version: 1\non: { ring-violation: [qarantine] }', '2:24 unknown-name', 'did you mean quarantine?'],
  ['version: 1\nmodules: { disable-loading: now }', '2:29 unknown-name', 'after-gate'],
  ['version: 1\nexternal: { entrypoint: a/b }', '2:11 missing-key', 'opa'],
  ['version: 1\nexternal: { opa: b.tar.gz, timeout-ms: 0 }', '2:40 bad-value', 'milliseconds'],
  ['version: 1\nexternal: { opa: b.tar.gz, verify: { key: k.pem, algorithm: none } }', '2:61 unknown-name', 'ES256'],
  ['a: &x 1', '1:7 yaml-alias', 'anchor'],
  ['version: 1\ndefault: *x', '2:10 yaml-alias', 'x'],
  ['version: !!int 1', '1:16 yaml-tag', 'tag'],
  ['<<: { version: 1 }', '1:1 yaml-merge-key', 'write the values out'],
  ['version: 1\n---\nversion: 1', '2:1 yaml-many-documents', 'one document'],
  ['? [a]\n: 1', '1:3 yaml-key', 'plain text'],
  ['version: 1\n\tmode: audit', '2:1 yaml-syntax', 'ab'],
  ['version: 1\nmode: "audit', '2:', 'quote'],
  ['version: 1\u0007', '1:11 yaml-syntax', 'control character 0x07'],
  ['version: [1', '1:', ''],
  ['%YAML 1.1\n---\nversion: 1\nrules: []', '1:1 yaml-directive', 'remove it'],
  ['\ufeff# hi\n\n%TAG ! x\n---\nversion: 1', '1:1 yaml-directive', 'remove it'],
  ['just text', '1:1 wrong-type', 'the policy (a map)'],
];

test('each mistake is found where it stands, with a code and a way out', () => {
  const missed: string[] = [];
  for (const [text, place, part] of mistakes) {
    const problems = problemsOf(text);
    const seen = problems.map(
      (one) => `${one.at?.line}:${one.at?.column} ${one.code} ${one.message} ${one.hint ?? ''}`,
    );
    const found = seen.some((line) => line.startsWith(place) && line.toLowerCase().includes(part.toLowerCase()));
    if (!found) missed.push(`${JSON.stringify(text)}: wanted ${place} ... ${part}, found ${seen.join(' | ')}`);
    for (const problem of problems) assert.ok(Object.hasOwn(POLICY_ERRORS, problem.code), problem.code);
  }
  assert.deepEqual(missed, []);
});

test('all mistakes are reported, in the order of the text', () => {
  const problems = problemsOf(
    'version: 1\nmode: audti\ndefalt: limited\nrules:\n  - { id: a, match: { bus: pc1 }, level: limitd }\n  - { id: b, mtch: {}, level: tcb }\n',
  );
  assert.deepEqual(
    problems.map((one) => `${one.at?.line} ${one.code}`),
    ['2 unknown-name', '3 unknown-key', '5 unknown-name', '5 unknown-name', '6 missing-key', '6 unknown-key'],
  );
});

test('two rules of one id, in one file or in two', () => {
  const one = 'version: 1\nrules:\n  - { id: a, match: {}, level: limited }\n';
  assert.equal(problemsOf(`${one}  - { id: a, match: {}, level: tcb }\n`)[0]?.code, 'duplicate-id');
  const parts = ['main.yaml', 'main.d/10.yaml'].map((file) => readYaml(one, file).node);
  const { problems } = decodePolicy(parts.filter((node) => node !== undefined));
  assert.equal(problems[0]?.at?.file, 'main.d/10.yaml');
  assert.match(problems[0]?.hint ?? '', /main\.yaml:3/);
});

test('numbers mean what they look like, in each form', () => {
  const policy = parse(
    'version: 1\nrules:\n  - { id: a, match: { vendor: [0x15b3, 5555, "0x15B3", "5555"], class: [0x0108, "0x01", nvme], revision: [2, 0x2, ">= 2", 1..0x3], type: [block, 2, 0x2, virtio-2, 9p, 9] }, level: limited }\n',
  );
  const match = policy.rules[0]?.match;
  assert.deepEqual(match?.vendor, [0x15b3, 0x15b3, 0x15b3, 0x15b3]);
  assert.deepEqual(
    match?.class?.map((one) => [one.value, one.bits]),
    [
      [0x108, 16],
      [1, 8],
      [0x108, 16],
    ],
  );
  assert.deepEqual(
    match?.revision?.map((one) => [one.min, one.max]),
    [
      [2, 2],
      [2, 2],
      [2, 0xffff],
      [1, 3],
    ],
  );
  assert.deepEqual(
    match?.type?.map((one) => one.virtio),
    [2, 2, 2, 2, 9, 9],
  );
});

test('a file full of mistakes does not flood the reader', () => {
  const problems = problemsOf(`version: 1\n${Array.from({ length: 5000 }, (_, i) => `k${i}: 1\n`).join('')}`);
  assert.equal(problems.length, PROBLEM_LIMIT + 1);
  assert.match(problems[PROBLEM_LIMIT]?.message ?? '', /^4900 more/);
});
