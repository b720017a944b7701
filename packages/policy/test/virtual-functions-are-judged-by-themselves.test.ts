/** SR-IOV: a virtual function is a device with rules, proofs and grants of its own. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Claims } from '@airlock/core/claim.ts';
import type { Decision } from '@airlock/core/decision.ts';
import type { Device } from '@airlock/core/device.ts';
import { checkPolicy } from '../src/check.ts';
import { compilePolicy } from '../src/compile.ts';
import { decide } from '../src/decide.ts';
import { generatePolicy } from '../src/generate.ts';
import { decodeInventory } from '../src/inventory-json.ts';
import { machine, nic, parse, problemsOf } from './policy-fixtures.ts';

const PHYSICAL = 'pci:0000:01:00.0';
const physical = nic({ id: PHYSICAL, sriov: { role: 'physical', enabled: 2, total: 2 } });
const virtual = (index: number, given: Partial<Device> = {}): Device =>
  nic({
    id: `pci:0000:01:00.${index + 1}`,
    location: `0000:01:00.${index + 1}`,
    origin: 'hotplug',
    sriov: { role: 'virtual', physical: PHYSICAL, index },
    ...given,
  });

const policyOf = (...rules: readonly string[]) => `version: 1\nrules: [${rules.join(', ')}]`;

function decided(text: string, devices: readonly Device[], claims: Claims = {}): readonly Decision[] {
  return decide(compilePolicy(parse(text)), machine(devices), claims);
}
const levels = (decisions: readonly Decision[]) => decisions.map(({ level, rule }) => `${level} ${rule?.id ?? '-'}`);

test('physical and virtual functions with the same ids meet different rules', () => {
  const text = policyOf(
    '{ id: card, match: { class: network, function: physical }, level: limited }',
    '{ id: first, match: { physical-function: "0000:01:00.0", location: "0000:01:00.1" }, level: limited }',
    '{ id: rest, match: { function: virtual }, level: disconnected }',
  );
  assert.deepEqual(levels(decided(text, [physical, virtual(0), virtual(1), nic({ id: 'pci:0000:02:00.0' })])), [
    'limited card',
    'limited first',
    'disconnected rest',
    'disconnected -',
  ]);
});

test('nothing that the physical function proves is its virtual functions’, and the other way round', () => {
  const text = policyOf('{ id: proven, match: { class: network }, require: { identity: attested }, level: link }');
  const claim = (device: string): Claims => ({ [device]: { device, tier: 'attested', because: 'it signed' } });
  const devices = [physical, virtual(0)];
  assert.deepEqual(levels(decided(text, devices, claim(PHYSICAL))), ['link proven', 'disconnected proven']);
  assert.deepEqual(levels(decided(text, devices, claim('pci:0000:01:00.1'))), ['disconnected proven', 'link proven']);
  const borrowed: Claims = { 'pci:0000:01:00.1': { device: PHYSICAL, tier: 'bound', because: 'a proof of another' } };
  assert.deepEqual(levels(decided(text, devices, borrowed)), ['disconnected proven', 'disconnected proven']);
});

test('a virtual function of nobody, and a function that hides what it is, meet no rule of a place; they do meet a denial', () => {
  const nobodys = virtual(0, { sriov: { role: 'virtual' } });
  const { sriov: _, ...plain } = virtual(1);
  const hidden: Device = plain;
  const places = policyOf('{ id: here, match: { physical-function: "*" }, level: limited }');
  const [one, two] = decided(places, [nobodys, hidden]);
  assert.deepEqual([one?.level, two?.level], ['disconnected', 'disconnected']);
  const denied = policyOf(
    '{ id: no, match: { physical-function: "0000:01:00.*" }, level: disconnected }',
    '{ id: all, match: {}, level: limited }',
  );
  assert.deepEqual(
    decided(denied, [nobodys, hidden]).map(({ level, reason }) => [level, reason]),
    [
      ['disconnected', 'fact-unknown'],
      ['disconnected', 'fact-unknown'],
    ],
  );
  const forbidden = 'version: 1\ndefault: limited\nplatform: { forbid: [sriov-virtual] }';
  assert.deepEqual(
    decided(forbidden, [physical, nobodys, hidden, nic({ sriov: null })]).map(({ level }) => level),
    ['limited', 'disconnected', 'disconnected', 'limited'],
  );
});

const findings = (text: string) => checkPolicy(parse(text)).map(({ code, severity }) => `${severity} ${code}`);

test('check: what no virtual function can meet, and what it can only meet too late', () => {
  const rule = (match: string, more = '') => `${policyOf(`{ id: a, match: ${match}, level: limited }`)}${more}`;
  const never = 'error match-contradictory';
  const late = 'warning virtual-functions-come-late';
  assert.ok(findings(rule('{ function: physical, physical-function: "0000:01:00.0" }')).includes(never));
  assert.ok(findings(rule('{ bus: usb, physical-function: "*" }')).includes(never));
  assert.ok(findings(rule('{ physical-function: "*" }', '\nplatform: { forbid: [sriov-virtual] }')).includes(never));
  assert.ok(findings(rule('{ function: virtual, hotplugged: false }')).includes(late));
  assert.ok(findings(rule('{ physical-function: "*" }', '\nplatform: { forbid: [hotplug] }')).includes(late));
  assert.equal(findings(rule('{ function: virtual }')).includes(late), false);
  assert.equal(findings(rule('{ function: [physical, virtual], hotplugged: false }')).includes(late), false);
});

test('check: a rule of a place is shadowed by one of all virtual functions, not the other way round', () => {
  const rules = (...matches: readonly string[]) =>
    policyOf(...matches.map((match, i) => `{ id: r${i}, match: ${match}, level: limited }`));
  const dead = 'error rule-unreachable';
  assert.ok(findings(rules('{ function: virtual }', '{ physical-function: "0000:01:00.0" }')).includes(dead));
  assert.ok(
    findings(rules('{ physical-function: "0000:01:*" }', '{ physical-function: "0000:01:00.0" }')).includes(dead),
  );
  for (const [first, second] of [
    ['{ physical-function: "*" }', '{ function: virtual }'],
    ['{ physical-function: "0000:01:00.0" }', '{ physical-function: "0000:02:00.0" }'],
    ['{ physical-function: "0000:01:00.0" }', '{ location: "0000:01:00.0" }'],
  ] as const) {
    assert.equal(findings(rules(first, second)).includes(dead), false, `${first} ${second}`);
  }
});

test('a policy made from a machine with virtual functions lets them in when they come again', () => {
  const bound = (device: Device): Device => ({
    ...device,
    nodes: [{ bus: 'pci', name: device.location, driver: 'a_driver' }],
  });
  const devices = [bound(physical), bound(virtual(0)), virtual(1, { device: 0x101f })];
  const text = generatePolicy(machine(devices), { mode: 'enforce' });
  assert.match(text, /function: physical, hotplugged: false/);
  assert.match(text, /physical-function: "0000:01:00\.0" \}/);
  assert.deepEqual(
    findings(text).filter((one) => one.includes('virtual')),
    [],
  );
  const after = devices.map((device) => ({ ...device, nodes: [] }));
  assert.deepEqual(
    decided(text, after).map(({ level }) => level),
    ['limited', 'limited', 'disconnected'],
  );
});

test('a place that is none, and an inventory whose SR-IOV part is none, are refused', () => {
  for (const wrong of ['[]', '5', '"a b"', '{ vendor: 1 }', '"*a*b*c*d*e*f*g*h*i*"']) {
    const problems = problemsOf(policyOf(`{ id: a, match: { physical-function: ${wrong} }, level: limited }`));
    assert.equal(problems.length, 1, wrong);
  }
  for (const sriov of [
    { role: 'virtual', physical: 5 },
    { role: 'virtual', physical: ['pci:0000:01:00.0'] },
    { role: 'virtual', index: -1 },
    { role: 'physical', enabled: 'two' },
    { role: 'physical', total: 0.5 },
    { role: 'physical', autoprobe: 0 },
    { role: 'both' },
  ]) {
    const read = decodeInventory({ ...machine([]), devices: [{ ...physical, sriov }] });
    assert.equal(read.ok ? '' : read.error.code, 'inventory-malformed', JSON.stringify(sriov));
  }
  assert.ok(decodeInventory(JSON.parse(JSON.stringify(machine([physical, virtual(0)])))).ok);
});
