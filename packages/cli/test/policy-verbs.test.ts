import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, before, test } from 'node:test';
import { run } from '../src/main.ts';
import { fakeContext } from './fake-context.ts';

const house = resolve(import.meta.dirname, '../../..');
let folder = '';

const POLICY = `version: 1
boot-critical: [disk]
rules:
  - id: disk
    match: { bus: virtio, type: block, serial: root, hotplugged: false }
    level: limited
  - id: nic
    match: { bus: virtio, type: net, hotplugged: false }
    level: limited
    features: { forbid: [RING_PACKED] }
`;

const device = (id: string, more: object) => ({
  id: `pci:${id}`,
  bus: 'virtio',
  transport: 'pci',
  location: id,
  type: 'net',
  virtioId: 1,
  vendor: 0x1af4,
  device: 0x1041,
  origin: 'boot',
  sriov: null,
  interfaces: [],
  ...more,
});
const INVENTORY = {
  version: 1,
  kernel: { release: '6.12.1', confidential: null, swiotlb: 'force' },
  devices: [
    device('0000:00:03.0', { type: 'block', virtioId: 2, device: 0x1042, serial: 'root', interfaces: ['block/vda'] }),
    device('0000:00:04.0', { features: { negotiated: ['VERSION_1'] } }),
    device('0000:00:05.0', { features: { negotiated: ['VERSION_1', 'RING_PACKED'] } }),
    device('0000:00:06.0', { type: 'balloon', virtioId: 5, device: 0x1045 }),
  ],
};

before(() => {
  folder = mkdtempSync(join(tmpdir(), 'airlock-verbs-'));
  const put = (name: string, text: string) => writeFileSync(join(folder, name), text);
  put('p.yaml', POLICY);
  put('strict.yaml', POLICY.replace('[RING_PACKED]', '[RING_PACKED, VERSION_1]'));
  put('same.yaml', POLICY.replace('id: nic', 'id: card'));
  put('bad.yaml', 'version: 1\nmdoe: audit\ndefault: no\n');
  put('shadow.yaml', POLICY.replace('rules:', 'rules:\n  - { id: all, match: {}, level: disconnected }'));
  put('i.json', JSON.stringify(INVENTORY));
  put('unseen.json', JSON.stringify({ ...INVENTORY, devices: INVENTORY.devices.map(({ origin: _, ...one }) => one) }));
  put('broken.json', '{"version":1,"kernel":{},"devices":[{"id":1}]}');
  mkdirSync(join(folder, 'dropped.d'));
  put('dropped.yaml', POLICY);
  put('dropped.d/10-site.yaml', 'version: 1\nrules:\n  - { id: site, match: { type: balloon }, level: limited }\n');
});
after(() => rmSync(folder, { recursive: true }));

async function airlock(args: string, stdin = '') {
  const context = fakeContext({ cwd: folder, stdin });
  const code = await run(context, args.split(' '));
  return { code, out: context.out(), err: context.err() };
}

test('check: fine, findings, problems, usage', async () => {
  const good = await airlock('policy check p.yaml');
  assert.equal(good.code, 0);
  assert.match(good.out, /1\. +disk +limited +boot-critical +p\.yaml:4/);
  assert.match(good.out, /default +disconnected/);
  const bad = await airlock('policy check bad.yaml p.yaml --quiet');
  assert.equal(bad.code, 1);
  assert.match(
    bad.out,
    /^bad\.yaml:2:1: error: unknown key "mdoe" in the policy \[unknown-key\]\n {4}did you mean mode\?$/m,
  );
  assert.match(bad.out, /^bad\.yaml:3:10: error/m);
  const shadow = await airlock('policy check shadow.yaml');
  assert.equal(shadow.code, 1);
  assert.match(shadow.out, /rule-unreachable/);
  assert.equal((await airlock('policy check')).code, 2);
  assert.equal((await airlock('policy check missing.yaml')).code, 1);
  const kernel = await airlock('policy check p.yaml --kernel-from i.json');
  assert.match(kernel.out, /hotplug-not-held/);
  assert.equal((await airlock('policy check p.yaml --kernel-from broken.json')).code, 2);
});

test('check: drop-ins are shown in their order, standard input has none', async () => {
  const { out } = await airlock('policy check dropped.yaml');
  assert.match(out, /1\. dropped\.yaml\n {2}2\. dropped\.d\/10-site\.yaml/);
  assert.match(out, /3\. +site +limited +dropped\.d\/10-site\.yaml:3/);
  const stdin = await airlock('policy check - --json', POLICY);
  assert.equal(stdin.code, 0);
  const report = JSON.parse(stdin.out);
  assert.deepEqual([report.ok, report.files, report.rules.length], [true, ['<stdin>'], 2]);
});

test('eval: every device once, as table and as JSON', async () => {
  const { code, out } = await airlock('policy eval --inventory i.json p.yaml');
  assert.equal(code, 0);
  assert.match(out, /0000:00:03\.0 +virtio block +limited +disk/);
  assert.match(out, /0000:00:05\.0 +virtio net +disconnected +nic +feature-forbidden/);
  assert.match(out, /4 devices: 2 connected, 2 disconnected/);
  const json = await airlock('policy eval --json --inventory - p.yaml', JSON.stringify(INVENTORY));
  assert.deepEqual(
    json.out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).level),
    ['limited', 'limited', 'disconnected', 'disconnected'],
  );
  assert.equal((await airlock('policy eval --inventory i.json bad.yaml')).code, 1);
  assert.equal((await airlock('policy eval p.yaml')).code, 2);
  assert.equal((await airlock('policy eval --inventory - -')).code, 2);
  assert.match(
    (await airlock('policy eval --inventory broken.json p.yaml')).err,
    /broken\.json: inventory: devices\[0\]\.id is not text/,
  );
});

test('eval: a boot that no gate saw is said, and can be assumed', async () => {
  const unseen = await airlock('policy eval --inventory unseen.json p.yaml');
  assert.match(unseen.err, /--at-boot/);
  assert.match(unseen.out, /0 connected/);
  const assumed = await airlock('policy eval --at-boot --inventory unseen.json p.yaml');
  assert.equal(assumed.err, '');
  assert.match(assumed.out, /2 connected/);
});

test('eval: a virtual function is not there at boot, whatever is assumed', async () => {
  const { origin: _, ...card } = device('0000:00:04.0', { features: { negotiated: ['VERSION_1'] } });
  const part = { ...card, id: 'pci:0000:00:04.1', location: '0000:00:04.1', sriov: { role: 'virtual' } };
  writeFileSync(join(folder, 'parts.json'), JSON.stringify({ ...INVENTORY, devices: [card, part] }));
  const { out } = await airlock('policy eval --at-boot --inventory parts.json p.yaml');
  assert.match(out, /00:04\.0 .*limited +nic/);
  assert.match(out, /00:04\.1 +virtio net, a VF +disconnected/);
});

test('eval: claims are by device, and strict', async () => {
  writeFileSync(join(folder, 'claims.json'), JSON.stringify({ 'pci:0000:00:03.0': { tier: 'bound' } }));
  writeFileSync(join(folder, 'wrong.json'), JSON.stringify({ 'pci:0000:00:03.0': { tier: 'trusted' } }));
  const { out } = await airlock('policy eval --json --inventory i.json --claims claims.json p.yaml');
  assert.equal(JSON.parse(out.split('\n')[0] ?? '').tier, 'bound');
  assert.equal((await airlock('policy eval --inventory i.json --claims wrong.json p.yaml')).code, 2);
});

test('check opens the external engine as the agent would, and says why it cannot', async () => {
  for (const name of ['narrow-es256.tar.gz', 'narrow.tar.gz', 'es256.pub.pem', 'rs256.pub.pem']) {
    copyFileSync(join(house, 'packages/policy/test/vectors/opa', name), join(folder, name));
  }
  const check = async (external: string) => {
    writeFileSync(join(folder, 'opened.yaml'), `${POLICY}external: ${external}\n`);
    const { code, out } = await airlock('policy check --json opened.yaml');
    const { findings } = JSON.parse(out) as { findings: { code: string; message: string; hint?: string }[] };
    const [found] = findings.filter((one) => one.code === 'external-unusable');
    return { code, message: found?.message ?? '', hint: found?.hint };
  };
  const key = (name: string) => `verify: { key: ${name}.pub.pem }`;
  assert.equal((await check(`{ opa: narrow-es256.tar.gz, ${key('es256')} }`)).message, '');
  for (const [external, code] of [
    [`{ opa: lost.tar.gz, ${key('es256')} }`, 'external-file-unreadable'],
    [`{ opa: narrow-es256.tar.gz, ${key('lost')} }`, 'external-file-unreadable'],
    ['{ opa: narrow-es256.tar.gz }', 'bundle-key-missing'],
    [`{ opa: narrow.tar.gz, ${key('es256')} }`, 'bundle-unsigned'],
    [`{ opa: narrow-es256.tar.gz, ${key('rs256')} }`, 'bundle-signature-invalid'],
    [`{ opa: narrow-es256.tar.gz, ${key('es256')}, entrypoint: a/b }`, 'bundle-entrypoint-missing'],
    [`{ opa: opened.yaml, ${key('es256')} }`, 'bundle-unreadable'],
  ] as const) {
    const found = await check(external);
    assert.equal(found.code, 1, external);
    assert.match(found.message, new RegExp(`^every device would be denied: .*\\(${code}\\)$`), external);
  }
});

test('eval and explain ask the external engine; diff and test say that they do not', async () => {
  for (const name of ['narrow-es256.tar.gz', 'es256.pub.pem']) {
    copyFileSync(join(house, 'packages/policy/test/vectors/opa', name), join(folder, name));
  }
  const external = (opa: string) =>
    `${POLICY}external: { opa: ${opa}, verify: { key: es256.pub.pem, algorithm: ES256 }, timeout-ms: 10000 }\n`;
  writeFileSync(join(folder, 'engine.yaml'), external('narrow-es256.tar.gz'));
  writeFileSync(join(folder, 'lost.yaml'), external('lost.tar.gz'));
  const narrowed = await airlock('policy eval --inventory i.json engine.yaml');
  assert.match(narrowed.out, /0000:00:03\.0 +virtio block +disconnected +disk +external-narrowed/);
  const lost = await airlock('policy explain --device vda --inventory i.json lost.yaml');
  assert.match(lost.err, /^lost\.yaml:11:11: the bundle .* \[external-file-unreadable\]$/m);
  assert.match(lost.out, /level +disconnected\n.*\n +reason +external-failed/);
  assert.match((await airlock('policy diff p.yaml engine.yaml --inventory i.json')).err, /rules alone/);
});

test('explain: rule, place, reason, inputs, and what would change it', async () => {
  const packed = await airlock('policy explain --device 00:05.0 --inventory i.json p.yaml');
  assert.equal(packed.code, 0);
  assert.match(packed.out, /rule +nic, p\.yaml:7/);
  assert.match(packed.out, /feature-forbidden: rule nic forbids RING_PACKED/);
  assert.match(packed.out, /- features\.negotiated +with RING_PACKED +no RING_PACKED/);
  assert.match(packed.out, /limited by nic, p\.yaml:7/);
  const byName = await airlock('policy explain --device vda --inventory i.json p.yaml');
  assert.match(byName.out, /^pci:0000:00:03\.0 +virtio block/);
  const near = await airlock('policy explain --device pci:0000:00:03.1 --inventory i.json p.yaml');
  assert.equal(near.code, 2);
  assert.match(near.err, /did you mean pci:0000:00:03\.0\?/);
  assert.match((await airlock('policy explain --device 0000 --inventory i.json p.yaml')).err, /4 devices have 0000/);
});

test('diff: gains and losses are findings, another name is not', async () => {
  const same = await airlock('policy diff p.yaml p.yaml --inventory i.json');
  assert.deepEqual([same.code, same.out], [0, 'no device of 4 is treated otherwise\n']);
  const renamed = await airlock('policy diff p.yaml same.yaml --inventory i.json');
  assert.equal(renamed.code, 0);
  assert.match(renamed.out, /nic -> card/);
  const strict = await airlock('policy diff p.yaml strict.yaml --inventory i.json --inventory unseen.json');
  assert.equal(strict.code, 1);
  assert.match(
    strict.out,
    /^- +i\.json +pci:0000:00:04\.0 +virtio net +limited -> disconnected +nic -> nic \(feature-forbidden\)$/m,
  );
  assert.match((await airlock('policy diff p.yaml dropped.yaml --inventory i.json')).out, /^\+ .*balloon/m);
  assert.equal((await airlock('policy diff p.yaml --inventory i.json')).code, 2);
  assert.equal((await airlock('policy diff p.yaml strict.yaml')).code, 2);
});

test('test: passes, failures with place, coverage', async () => {
  const put = (text: string) => writeFileSync(join(folder, 'p.test.yaml'), text);
  const head = 'version: 1\ninventory: i.json\ncases:\n';
  put(`${head}  - { name: disk, device: "pci:0000:00:03.0", expect: { level: limited, rule: disk } }\n`);
  const good = await airlock('policy test p.yaml');
  assert.deepEqual([good.code, good.out], [0, 'p.test.yaml: 1 cases passed, 1 of 2 rules reached\n']);
  const full = await airlock('policy test --full-coverage p.test.yaml');
  assert.equal(full.code, 1);
  assert.match(full.out, /no case reaches nic/);
  put(`${head}  - { name: disk, device: "pci:0000:00:06.0", expect: { level: limited, reason: rule-matched } }\n`);
  const failed = await airlock('policy test .');
  assert.equal(failed.code, 1);
  assert.match(
    failed.out,
    /wrong disk +p\.test\.yaml:4\n +level is disconnected, expected limited\n +reason is default, expected rule-matched/,
  );
  put(`${head}  - { name: x, device: "pci:gone", expect: { level: limited } }\n`);
  assert.match((await airlock('policy test p.yaml')).out, /no device pci:gone/);
  put(`${head}  - { name: x, device: { bus: virtio, type: blok }, expect: { levle: limited } }\n`);
  const wrong = await airlock('policy test p.yaml');
  assert.equal(wrong.code, 1);
  assert.match(wrong.err, /p\.test\.yaml:4:\d+: .*did you mean level\?/);
  assert.equal((await airlock('policy test nowhere')).code, 2);
  assert.equal((await airlock('policy test strict.yaml')).code, 2);
});

test('the profiles pass their own tests, with every rule reached', async () => {
  const { code, out } = await airlock(`policy test --full-coverage ${join(house, 'policies')}`);
  assert.equal(code, 0, out);
  assert.equal(out.trim().split('\n').length, 4);
  const check = await airlock(
    `policy check ${['tdx-hardened', 'confidential-default', 'audit-only', 'lab'].map((name) => join(house, 'policies', `${name}.yaml`)).join(' ')}`,
  );
  assert.equal(check.code, 0, check.out);
});

test('fmt: prints, checks, writes', async () => {
  const messy = 'rules: []\nversion:   1 # one\n';
  writeFileSync(join(folder, 'messy.yaml'), messy);
  assert.equal((await airlock('policy fmt messy.yaml')).out, 'version: 1 # one\nrules: []\n');
  assert.deepEqual(await airlock('policy fmt --check messy.yaml p.yaml'), { code: 1, out: 'messy.yaml\n', err: '' });
  assert.equal((await airlock('policy fmt --write messy.yaml p.yaml')).code, 0);
  assert.equal(readFileSync(join(folder, 'messy.yaml'), 'utf8'), 'version: 1 # one\nrules: []\n');
  assert.equal(readFileSync(join(folder, 'p.yaml'), 'utf8'), POLICY);
  assert.equal((await airlock('policy fmt -', messy)).out, 'version: 1 # one\nrules: []\n');
  assert.equal((await airlock('policy fmt --check -', messy)).code, 1);
  for (const args of [
    'policy fmt',
    'policy fmt --write --check p.yaml',
    'policy fmt --write -',
    'policy fmt p.yaml p.yaml',
  ]) {
    assert.equal((await airlock(args)).code, 2, args);
  }
  assert.equal((await airlock('policy fmt missing.yaml')).code, 1);
});

test('generate: a policy that check takes, from what was given', async () => {
  const { code, out } = await airlock('policy generate --from i.json --mode learn');
  assert.equal(code, 0);
  assert.match(out, /^mode: learn$/m);
  const checked = await airlock('policy check -', out);
  assert.equal(checked.code, 0, checked.out);
  assert.equal((await airlock('policy generate --mode strict')).code, 2);
  assert.equal((await airlock('policy generate --from broken.json')).code, 2);
});

test('what a recorded device is called reaches no terminal', async () => {
  const evil = {
    ...INVENTORY,
    devices: [device('\u001b[31m\n', { id: 'pci:\u001b[31m\nx', type: '\u001b]0;x\u0007', virtioId: undefined })],
  };
  for (const args of [
    'policy eval --inventory - p.yaml',
    'policy explain --device x --inventory - p.yaml',
    'policy diff p.yaml dropped.yaml --inventory -',
    'policy generate --from -',
  ]) {
    const { out, err } = await airlock(args, JSON.stringify(evil));
    assert.doesNotMatch(out + err, /[\u001b\u0007]/, args);
  }
});

test('schema prints what is published', async () => {
  const { out } = await airlock('policy schema');
  assert.equal(out, readFileSync(join(house, 'schema/policy.schema.json'), 'utf8'));
});
