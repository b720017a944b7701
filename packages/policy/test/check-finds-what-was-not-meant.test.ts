import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Device } from '@airlock/core/device.ts';
import fc from 'fast-check';
import { type CheckContext, checkPolicy, FINDINGS } from '../src/check.ts';
import { compilePolicy } from '../src/compile.ts';
import { covers } from '../src/cover.ts';
import { NO, YES } from '../src/facts.ts';
import { ACTIONS, CARRIED_OUT, NOTICED, VIOLATIONS } from '../src/policy.ts';
import { anyDevice, anyRules, compile, device, machine, parse, rules } from './policy-fixtures.ts';

const found = (text: string, context: CheckContext = {}) =>
  checkPolicy(parse(text), context).map((one) => `${one.at?.line ?? 0} ${one.severity} ${one.code}`);
const has = (text: string, finding: string, context: CheckContext = {}) => {
  const list = found(text, context);
  assert.ok(list.includes(finding), `${text}\nwanted ${finding}\nfound  ${list.join(', ')}`);
};
const hasNot = (text: string, code: string, context: CheckContext = {}) => {
  const list = found(text, context);
  assert.ok(!list.some((one) => one.endsWith(` ${code}`)), `${text}\nfound ${list.join(', ')}`);
};
const seen = new Set<string>();
const fires = (text: string, finding: string, context: CheckContext = {}) => {
  has(text, finding, context);
  seen.add(finding.split(' ')[2] ?? '');
};

const net = '{ id: net, match: { bus: virtio, type: net }, level: limited }';

test('a rule behind a broader one', () => {
  fires(
    rules(net, '{ id: n, match: { bus: virtio, type: net, vendor: 0x1af4 }, level: disconnected }'),
    '4 error rule-unreachable',
  );
  fires(rules('{ id: all, match: {}, level: disconnected }', net), '4 error rule-unreachable');
  has(
    rules('{ id: a, match: { class: storage }, level: limited }', '{ id: b, match: { class: nvme }, level: limited }'),
    '4 error rule-unreachable',
  );
  has(
    rules(
      '{ id: a, match: { revision: [0..3, 4] }, level: limited }',
      '{ id: b, match: { revision: 2..4 }, level: limited }',
    ),
    '4 error rule-unreachable',
  );
  has(
    rules(
      '{ id: a, match: { location: "0000:*" }, level: limited }',
      '{ id: b, match: { location: "0000:00:*" }, level: limited }',
    ),
    '4 error rule-unreachable',
  );
  has(
    rules(
      '{ id: a, match: { identity: ">=attested" }, level: limited }',
      '{ id: b, match: { identity: bound }, level: limited }',
    ),
    '4 error rule-unreachable',
  );
  hasNot(rules('{ id: a, match: { bus: virtio, type: net, vendor: 1 }, level: limited }', net), 'rule-unreachable');
  hasNot(
    rules('{ id: a, match: { class: nvme }, level: limited }', '{ id: b, match: { class: storage }, level: limited }'),
    'rule-unreachable',
  );
  hasNot(
    rules(
      '{ id: a, match: { revision: [0..2, 4] }, level: limited }',
      '{ id: b, match: { revision: 2..4 }, level: limited }',
    ),
    'rule-unreachable',
  );
});

test('a match that nothing can meet', () => {
  for (const match of [
    '{ bus: pci, type: net }',
    '{ bus: virtio, type: nvme }',
    '{ bus: usb, class: network }',
    '{ bus: platform, vendor: 1 }',
    '{ bus: platform, features: { negotiated: RING_PACKED } }',
    '{ transport: mmio, function: virtual }',
    '{ bus: virtio, type: net, serial: x }',
    '{ bus: virtio, type: net, device: 0x1042 }',
  ]) {
    fires(rules(`{ id: a, match: ${match}, level: limited }`), '3 error match-contradictory');
  }
  for (const match of [
    '{ class: network }',
    '{ bus: virtio, class: network }',
    '{ bus: [pci, virtio], type: net }',
    '{ type: net, device: [0x1000, 0x1041] }',
    '{ type: 9p }',
    '{ transport: mmio, type: net, device: 0x1042 }',
  ]) {
    hasNot(rules(`{ id: a, match: ${match}, level: limited }`), 'match-contradictory');
  }
  const forbids = (kind: string, match: string) =>
    `version: 1\nplatform: { forbid: [${kind}] }\nrules:\n  - { id: a, match: ${match}, level: limited }\n`;
  has(forbids('hotplug', '{ hotplugged: true }'), '4 error match-contradictory');
  has(forbids('usb', '{ bus: usb }'), '4 error match-contradictory');
  has(forbids('virtio-mmio', '{ transport: mmio }'), '4 error match-contradictory');
  has(forbids('vdpa', '{ transport: vdpa }'), '4 error match-contradictory');
  has(forbids('sriov-virtual', '{ function: virtual }'), '4 error match-contradictory');
});

test('levels, tiers and grants that do not go together', () => {
  fires(rules('{ id: a, match: { vendor: 1 }, level: tcb }'), '3 warning level-above-tier');
  has(
    rules('{ id: a, match: { vendor: 1 }, level: tcb, require: { identity: attested } }'),
    '3 error level-above-tier',
  );
  hasNot(rules('{ id: a, match: { vendor: 1 }, level: tcb, require: { identity: bound } }'), 'level-above-tier');
  hasNot(rules('{ id: a, match: { identity: bound }, level: tcb }'), 'level-above-tier');
  fires(
    rules('{ id: a, match: { vendor: 1 }, level: tcb, require: { identity: bound }, otherwise: { level: tcb } }'),
    '3 error otherwise-above-tier',
  );
  hasNot(
    rules('{ id: a, match: { vendor: 1 }, level: tcb, require: { identity: bound }, otherwise: { level: link } }'),
    'otherwise-above-tier',
  );
  fires(rules('{ id: a, match: { vendor: 1 }, level: limited, grant: limited }'), '3 warning grant-without-effect');
  hasNot(rules('{ id: a, match: { vendor: 1 }, level: disconnected, grant: limited }'), 'grant-without-effect');
  fires(
    rules('{ id: a, match: { vendor: 1 }, level: limited, require: { roots: a.pem } }'),
    '3 warning requirement-not-attested',
  );
  hasNot(
    rules('{ id: a, match: { vendor: 1 }, level: limited, require: { roots: a.pem, identity: attested } }'),
    'requirement-not-attested',
  );
});

test('defaults that let in, modes that only report', () => {
  fires('version: 1\ndefault: limited\nrules: []', '1 warning default-connects');
  fires(rules('{ id: a, match: {}, level: limited }'), '3 warning matches-everything');
  fires('version: 1\nmode: audit\ndefault: limited\nrules: []', '1 note mode-not-enforcing');
  fires(rules(net), '1 note boot-critical-none');
});

test('what the machine needs to boot', () => {
  const boot = (name: string, ...list: string[]) =>
    rules(...list).replace('rules:', `boot-critical: [${name}]\nrules:`);
  fires(boot('nte', net), '2 error boot-critical-unknown');
  fires(boot('net', '{ id: net, match: { type: net }, level: disconnected }'), '4 error boot-critical-denied');
  has(boot('net', '{ id: all, match: {}, level: disconnected }', net), '5 error boot-critical-denied');
  has(
    boot('net', '{ id: net, match: { type: net }, level: tcb, require: { identity: bound } }'),
    '4 error boot-critical-denied',
  );
  hasNot(
    boot(
      'net',
      '{ id: net, match: { type: net }, level: tcb, require: { identity: bound }, otherwise: { level: limited } }',
    ),
    'boot-critical-denied',
  );
  has(
    boot('net', '{ id: old, match: { type: net, revision: 0 }, level: disconnected }', net),
    '5 warning boot-critical-denied',
  );
  hasNot(boot('net', '{ id: disk, match: { type: block }, level: disconnected }', net), 'boot-critical-denied');
  has(
    boot('net', '{ id: net, match: { type: net }, level: limited, features: { forbid: [RING_PACKED] } }'),
    '4 note boot-critical-denied',
  );
  hasNot(boot('"pci:0000:00:03.0"', net), 'boot-critical-unknown');
});

test('files of anchors and reference values', () => {
  const text = rules(
    '{ id: a, match: { vendor: 1 }, level: link, require: { identity: attested, roots: [a.pem, b.pem], measurements: m.corim } }',
  );
  fires(text, '3 error reference-missing', { beside: ['policy.yaml', 'a.pem', 'm.corim'] });
  fires(text, '0 warning reference-unused', { beside: ['a.pem', 'b.pem', 'm.corim', 'old.pem'] });
  assert.deepEqual(
    found(text, { beside: ['a.pem', 'b.pem', 'm.corim'] }).filter((one) => one.includes('reference')),
    [],
  );
  const dead = rules(
    '{ id: all, match: {}, level: disconnected }',
    '{ id: a, match: { vendor: 1 }, level: link, require: { identity: attested, roots: a.pem } }',
  );
  fires(dead, '4 warning reference-not-read', { beside: ['a.pem'] });
});

test('what this machine does not have or cannot do', () => {
  const on = (release: string, kernel = {}) => ({ machine: machine([device()], { release, ...kernel }) });
  fires(
    'version: 1\nplatform: { require: [memory-encryption] }\nrules: []',
    '2 error platform-does-not-hold',
    on('7.2.1', { confidential: null }),
  );
  hasNot('version: 1\nplatform: { require: [memory-encryption] }\nrules: []', 'platform-does-not-hold', on('7.2.1'));
  const forbid = 'version: 1\nplatform: { forbid: [hotplug] }\nrules: []';
  fires(forbid, '2 warning hotplug-not-held', on('6.12.117+deb13-amd64'));
  hasNot(forbid, 'hotplug-not-held', on('7.2.12+deb13-amd64'));
  hasNot(`${forbid}\nmodules: { disable-loading: after-gate }`, 'hotplug-not-held', on('6.1.0'));
  const tcb = rules('{ id: a, match: { vendor: 1 }, level: tcb, require: { identity: bound } }');
  fires(tcb, '3 warning level-not-enforceable', on('7.2.1'));
  const link = rules('{ id: a, match: { vendor: 1 }, level: link, require: { identity: attested } }');
  has(link, '3 warning level-not-enforceable', on('6.12.1'));
  hasNot(link, 'level-not-enforceable', on('7.2.1'));
});

test('features, protection and engines', () => {
  fires(
    rules('{ id: a, match: { type: block, transport: mmio }, level: limited, features: { forbid: [RING_PACKED] } }'),
    '3 note features-checked-late',
  );
  has(
    rules('{ id: a, match: { type: block }, level: limited, features: { forbid: [BLK_F_DISCARD] } }'),
    '3 note features-checked-late',
  );
  hasNot(
    rules('{ id: a, match: { type: block }, level: limited, features: { forbid: [RING_PACKED] } }'),
    'features-checked-late',
  );
  fires(
    rules('{ id: a, match: { type: net }, level: limited, protect: { disk: { encryption: aes-xts } } }'),
    '3 warning protect-without-effect',
  );
  has(
    rules('{ id: a, match: { type: block }, level: limited, protect: { network: tls } }'),
    '3 warning protect-without-effect',
  );
  const engine = 'version: 1\nexternal: { opa: x.tar.gz }\nrules: []';
  const problem = { code: 'bundle-key-missing', message: 'it is signed', hint: 'verify: { key: ... }' };
  fires(engine, '2 error external-unusable', { externalProblem: problem });
  fires(engine, '2 warning external-unsigned', { externalProblem: null });
  const found = checkPolicy(parse(engine), { externalProblem: problem });
  const unusable = found.find((one) => one.code === 'external-unusable');
  assert.equal(unusable?.message, 'every device would be denied: it is signed (bundle-key-missing)');
  assert.equal(unusable?.hint, 'verify: { key: ... }');
  hasNot('version: 1\nexternal: { opa: x.tar.gz, verify: { key: k.pem } }\nrules: []', 'external-unsigned');
});

test('answers to violations that nothing notices, and actions that nothing carries out', () => {
  const text = (body: string) => `version: 1\nrules: []\non:\n${body}`;
  fires(text('  needs-reset: [log]\n  ring-violation: [log, quarantine]\n'), '5 warning violation-not-noticed');
  fires(text('  needs-reset: [log, revoke-keys]\n'), '4 warning action-not-carried-out');
  for (const violation of VIOLATIONS) {
    const { length } = checkPolicy(parse(text(`  ${violation}: [${ACTIONS.join(', ')}]\n`))).filter(
      (one) => one.severity === 'warning',
    );
    assert.equal(length, NOTICED.includes(violation) ? 1 : 2, violation);
  }
  hasNot(text(NOTICED.map((one) => `  ${one}: [${CARRIED_OUT.join(', ')}]\n`).join('')), 'violation-not-noticed');
});

test('what only a verifier holds is said to be held by no gate', () => {
  const attested = 'version: 1\nplatform: { attestation: { kinds: [amd-sev-snp] } }\nrules: []';
  fires(attested, '2 note attestation-not-held-here');
  hasNot('version: 1\nplatform: { require: [memory-encryption] }\nrules: []', 'attestation-not-held-here');
});

test('a rule of virtual functions that asks them to be there before they can be', () => {
  const text = (match: string) => `version: 1\nrules:\n  - { id: a, match: ${match}, level: limited }`;
  fires(text('{ function: virtual, hotplugged: false }'), '3 warning virtual-functions-come-late');
  hasNot(text('{ function: virtual }'), 'virtual-functions-come-late');
});

test('every finding was seen to fire', () => {
  assert.deepEqual(
    Object.keys(FINDINGS).filter((code) => !seen.has(code)),
    [],
  );
});

test('a rule that check calls unreachable decides no device; a match that it calls contradictory meets none', () => {
  const noise = fc.record({ devices: fc.array(anyDevice, { minLength: 1, maxLength: 12 }), rules: anyRules });
  let unreachable = 0;
  fc.assert(
    fc.property(noise, ({ devices, rules: list }) => {
      const policy = parse(rules(...list));
      const compiled = compilePolicy(policy);
      for (const a of compiled.rules) {
        for (const b of compiled.rules) {
          if (a === b || !covers(a.rule.match, b.rule.match)) continue;
          unreachable++;
          for (const one of devices) {
            if (b.match(one, 'claimed') === YES) assert.equal(a.match(one, 'claimed'), YES, JSON.stringify(one));
            if (b.match(one, 'claimed') !== NO) assert.notEqual(a.match(one, 'claimed'), NO, JSON.stringify(one));
          }
        }
      }
    }),
    { numRuns: 400 },
  );
  assert.ok(unreachable > 50, 'the property was tried');
});

test('a contradiction holds for every device that a kernel shows', () => {
  const shown: Device[] = [
    device(),
    device({ type: 'net', virtioId: 1, device: 0x1041, class: 0x020000 }),
    device({ transport: 'mmio' }),
  ];
  for (const match of [
    '{ bus: pci, type: net }',
    '{ bus: virtio, type: nvme }',
    '{ bus: virtio, type: net, device: 0x1042 }',
  ]) {
    const [rule] = compile(rules(`{ id: a, match: ${match}, level: limited }`)).rules;
    for (const one of shown) assert.equal(rule?.match(one, 'claimed'), NO);
  }
});
