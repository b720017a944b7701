import assert from 'node:assert/strict';
import { createHash, generateKeyPairSync, sign } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { Device } from '@airlock/core/device.ts';
import { formatProblem, ok, type Result } from '@airlock/core/result.ts';
import type { Attest } from '@airlock/gate/agent/attester.ts';
import { givesLess, wantsProof } from '@airlock/gate/agent/wants-proof.ts';
import { compilePolicy } from '@airlock/policy/compile.ts';
import { decodePolicy } from '@airlock/policy/decode.ts';
import { parseSources } from '@airlock/policy/node-source.ts';
import { gatherEvidence } from '@airlock/spdm/attest/gather.ts';
import { doeBinding } from '@airlock/spdm/doe/binding.ts';
import { answerDiscoveryObject } from '@airlock/spdm/doe/discovery.ts';
import { doeLink } from '@airlock/spdm/doe/link.ts';
import { type Clock, type ConfigSpace, openMailbox } from '@airlock/spdm/doe/mailbox.ts';
import { parsePciName } from '@airlock/spdm/identity/pci-name.ts';
import { ALL_PREFERENCES, DEFAULT_PREFERENCES } from '@airlock/spdm/negotiate.ts';
import { makeProfileDevice } from '@airlock/spdm/profile/node-device.ts';
import { DEFAULT_PROFILE } from '@airlock/spdm/profile/profile.ts';
import { Connection } from '@airlock/spdm/requester/connection.ts';
import { drive } from '@airlock/spdm/requester/procedure.ts';
import type { Responder } from '@airlock/spdm/responder/responder.ts';
import type { ResponderOptions } from '@airlock/spdm/responder/state.ts';
import { cbor, type Value } from '../../evidence/test/support/cbor.ts';
import { fakeMachine, NVME, ROOT_DISK } from '../../gate/test/agent-fake-machine.ts';
import { levelOf, policyOf, startAgent } from '../../gate/test/agent-harness.ts';
import { cmaName, dmtf, makeDevice, spdmCrypto } from '../../spdm/test/support/device-chain.ts';
import { MAILBOX_AT, type MailboxDevice, mailboxDevice } from '../../spdm/test/support/mailbox-device.ts';
import { MEASURED, responderOf } from '../../spdm/test/support/responder.ts';
import { otherIds, wayOf } from '../src/agent-attestation.ts';
import { claimFrom, readAnchors } from '../src/policy-anchors.ts';
import { fakeContext } from './fake-context.ts';

const ID = 'pci:0000:00:08.0';
const NAME = 'Vendor=1b36:Device=0010:CC=010802:REV=02:SSVID=1b36:SSID=1100';
const genuine = makeDevice({ leaf: [cmaName(NAME), dmtf('1.3.6.1.4.1.412.274.2')] });
const sha384 = (bytes: Uint8Array) => createHash('sha384').update(bytes).digest('hex');
const REFERENCE = `version: 1
measurements:
${MEASURED.map(({ index, raw, value }) => (raw ? `  - { index: ${index}, raw: "${Buffer.from(value).toString('hex')}" }` : `  - { index: ${index}, digest: "sha384:${sha384(value)}" }`)).join('\n')}
`;
const OLDER = REFERENCE.replace(/index: 2, digest: "sha384:..../, 'index: 2, digest: "sha384:0000');
/** A CoRIM with those values, signed, good until that second. */
function corim(until: number, wrong = false): Uint8Array {
  const map = (entries: Record<number, Value>) =>
    new Map(Object.entries(entries).map(([key, value]) => [Number(key), value]));
  const values = MEASURED.map(({ index, raw, value }): Value => {
    const digest = createHash('sha384')
      .update(wrong ? 'other' : value)
      .digest();
    const number = { tag: 552, value: 7 };
    return map({ 0: index, 1: raw ? map({ 1: number }) : map({ 2: [[7, new Uint8Array(digest)]] }) });
  });
  const environment = map({ 0: map({ 1: 'ACME', 2: 'Drive' }) });
  const comid = map({ 1: map({ 0: 'made-up' }), 4: map({ 0: [[environment, values]] }) });
  const validity = map({ 1: { tag: 1, value: until } });
  const body = cbor({ tag: 501, value: map({ 0: 'acme', 1: [{ tag: 506, value: cbor(comid) }], 4: validity }) });
  const header = cbor(map({ 1: -7, 3: 'application/rim+cbor', 8: cbor(map({ 0: map({ 0: 'maker' }) })) }));
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const message = cbor(['Signature1', header, new Uint8Array(), body]);
  const signature = new Uint8Array(sign('sha256', message, { key: privateKey, dsaEncoding: 'ieee-p1363' }));
  return cbor({ tag: 18, value: [header, new Map(), body, signature] });
}

const LATER = 4_000_000_000;
const policyText = (require: string) => `version: 1
mode: enforce
default: limited
rules:
  - id: drive
    match: { bus: pci, class: nvme }
    require: { identity: attested, ${require} }
    level: limited
    otherwise: { level: disconnected }
`;

interface Setting {
  readonly require: string;
  readonly files?: Readonly<Record<string, string | Uint8Array>>;
  readonly responder?: Partial<ResponderOptions>;
  readonly space?: (device: MailboxDevice) => { readonly config: ConfigSpace; readonly clock: Clock };
  readonly limit?: number;
}

/** An agent whose drive answers over a DOE mailbox in memory, judged by files beside its policy. */
async function look(t: TestContext, { require, files = {}, responder: more, space, limit }: Setting) {
  const folder = mkdtempSync(join(tmpdir(), 'airlock-agent-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const pem = `-----BEGIN CERTIFICATE-----\n${Buffer.from(genuine.rootCertificate.der).toString('base64')}\n-----END CERTIFICATE-----\n`;
  for (const [name, text] of Object.entries({ 'maker.pem': pem, ...files })) writeFileSync(join(folder, name), text);
  const text = policyText(require);
  const policy = policyOf(text);
  const context = fakeContext({ cwd: folder });
  const anchors = await readAnchors(context, policy, folder);
  const responder: Responder = responderOf(genuine, more);
  const mailbox = mailboxDevice((object) => {
    const found = answerDiscoveryObject(object) ?? responder.answer(object);
    return found.ok ? found.value : undefined;
  });
  const { config, clock } = space?.(mailbox) ?? { config: mailbox, clock: mailbox.clock };
  const attest: Attest = async (device, signal) => {
    const nonce = new Uint8Array(32).fill(9);
    const place = openMailbox({ config, clock, offset: MAILBOX_AT, version: 1, cancelled: () => signal.aborted });
    const connection = new Connection({
      ...{ crypto: spdmCrypto, binding: doeBinding, trust: () => ok(null), preferences: DEFAULT_PREFERENCES },
    });
    const evidence = await drive(gatherEvidence(connection, { device: device.id, nonce }), doeLink(place, clock));
    if (!evidence.ok) {
      const because = formatProblem(evidence.error);
      return { way: wayOf(evidence.error.code), claim: { device: device.id, tier: 'claimed', because } };
    }
    const known = { nonce, function: parsePciName(NAME) ?? null, asOf: Date.now() };
    return { way: 'answered', claim: claimFrom(device, evidence.value, anchors, known) };
  };
  const compiled = compilePolicy(policy);
  const machine = fakeMachine([ROOT_DISK, { ...NVME, vendor: 0x1b36, device: 0x10, revision: 2 }]);
  const harness = await startAgent(machine, {
    policy: text,
    attestation: {
      attest,
      wants: (device) => wantsProof(compiled, device),
      givesLess: (device, before, after) => givesLess(compiled, device, before, after),
      retry: 10,
      ...(limit === undefined ? {} : { limit }),
    },
  });
  t.after(() => harness.agent.close('test'));
  await harness.agent.asked();
  const status = await harness.settle();
  const told = harness.of('attested').at(-1);
  return { level: levelOf(status, ID), driver: machine.driverOf(NVME.slot), told, err: context.err(), mailbox };
}

test('measurements as in the file: it is let in, and the claim says by which file', async (t) => {
  const { level, driver, told } = await look(t, {
    require: 'roots: [maker.pem], measurements: [v1.yaml, v2.yaml], spdm: ">=1.2"',
    files: { 'v1.yaml': OLDER, 'v2.yaml': REFERENCE },
  });
  assert.equal(level, 'limited enforced', told?.because);
  assert.equal(driver, 'nvme');
  assert.match(told?.because ?? '', /measurements as in v2\.yaml/);
  assert.match(told?.because ?? '', /not as in v1\.yaml: measurement\.value \(.*2/);
});

test('a signed CoRIM, which is the policy’s by lying beside it, vouches for measurements as well', async (t) => {
  const require = 'roots: [maker.pem], measurements: [acme.corim]';
  const { level, told } = await look(t, { require, files: { 'acme.corim': corim(LATER) } });
  assert.equal(level, 'limited enforced', told?.because);
  assert.match(told?.because ?? '', /measurements as in acme\.corim/);
});

test('reference values end while the agent runs', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'airlock-agent-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  writeFileSync(join(folder, 'acme.corim'), corim(1_800_000_000));
  const policy = policyOf(policyText('measurements: [acme.corim]'));
  const { references } = await readAnchors(fakeContext({ cwd: folder }), policy, folder);
  const at = (seconds: number) => references.get('acme.corim')?.referenceChecksAt(seconds * 1000);
  assert.ok(at(1_790_000_000)?.every(({ status }) => status !== 'failed'));
  assert.ok(at(1_810_000_000)?.some(({ id, status }) => id === 'reference.validity' && status === 'failed'));
});

test('one name is one file: that beside the policy’s main file, whichever of its files names it', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'airlock-agent-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  mkdirSync(join(folder, 'policy.d'));
  writeFileSync(join(folder, 'policy.d/v1.yaml'), REFERENCE);
  const rule = policyText('measurements: [v1.yaml]')
    .replace('id: drive', 'id: other')
    .slice(policyText('x').indexOf('rules:'));
  const { documents } = parseSources([
    { file: 'policy.yaml', text: policyText('measurements: [v1.yaml]') },
    { file: 'policy.d/10.yaml', text: `version: 1\n${rule}` },
  ]);
  const { policy, problems } = decodePolicy(documents);
  assert.deepEqual(problems, []);
  assert.ok(policy);
  const context = fakeContext({ cwd: folder });
  assert.equal((await readAnchors(context, policy, folder)).references.size, 0);
  assert.match(context.err(), /v1\.yaml: no such file/);
});

const refused: readonly [string, Setting, RegExp, RegExp?][] = [
  [
    'another measurement',
    { require: 'measurements: [v1.yaml], roots: [maker.pem]', files: { 'v1.yaml': OLDER } },
    /measurements as in none of the files named; not as in v1\.yaml: measurement\.value/,
  ],
  [
    'another measurement than a signed CoRIM has',
    { require: 'roots: [maker.pem], measurements: [a.corim]', files: { 'a.corim': corim(LATER, true) } },
    /not as in a\.corim: measurement\.value/,
  ],
  [
    'a CoRIM that is too old',
    { require: 'roots: [maker.pem], measurements: [a.corim]', files: { 'a.corim': corim(1_700_000_000) } },
    /not as in a\.corim: reference\.validity/,
  ],
  [
    'a measurement that is left out',
    {
      require: 'measurements: [v2.yaml], roots: [maker.pem]',
      files: { 'v2.yaml': REFERENCE },
      responder: { measurements: MEASURED.slice(0, 1) },
    },
    /not as in v2\.yaml: measurement\.present/,
  ],
  [
    'a measurement that nobody vouches for',
    {
      require: 'measurements: [v2.yaml], roots: [maker.pem]',
      files: { 'v2.yaml': REFERENCE.split('\n').slice(0, -2).join('\n') },
    },
    /not as in v2\.yaml: measurement\.listed/,
  ],
  [
    'a file of reference values that is not there',
    { require: 'measurements: [gone.yaml], roots: [maker.pem]' },
    /maker\.pem vouches for it, freshly$/,
    /gone\.yaml: no such file/,
  ],
  [
    'a file of reference values that is none',
    { require: 'measurements: [v.yaml], roots: [maker.pem]', files: { 'v.yaml': 'version: 2\n' } },
    /maker\.pem vouches for it, freshly$/,
    /v\.yaml/,
  ],
  [
    'a root that is no certificate',
    { require: 'roots: [v.pem]', files: { 'v.pem': 'hello\n' } },
    /no root certificate that the policy names can be read/,
    /no certificate in it/,
  ],
  [
    'a version that is too old',
    {
      require: 'roots: [maker.pem], spdm: ">=1.3"',
      responder: {
        algorithms: {
          ...ALL_PREFERENCES,
          versions: ['1.2'],
          hashes: ['sha384'],
          signatures: ['ecdsa-p384'],
          measurementHash: 'sha384',
        },
      },
    },
    /maker\.pem vouches for it/,
  ],
];
for (const [name, setting, because, err] of refused) {
  test(`it is not let in with ${name}`, async (t) => {
    const { level, driver, told, err: said } = await look(t, setting);
    assert.equal(level, 'disconnected enforced', told?.because);
    assert.equal(driver, null);
    assert.match(told?.because ?? '', because);
    if (err !== undefined) assert.match(said, err);
  });
}

/** Real time, and accesses that take as long as the host likes. */
function trickling(milliseconds: number) {
  return (device: MailboxDevice) => {
    const slow = async (access: Promise<Result<number>>): Promise<Result<number>> => {
      const end = performance.now() + milliseconds;
      while (performance.now() < end);
      return access;
    };
    return {
      config: { ...device, read32: (offset: number) => slow(device.read32(offset)) } satisfies ConfigSpace,
      clock: {
        now: () => performance.now(),
        wait: (time: number) =>
          new Promise<void>((done) => (time > 0 ? void setTimeout(done, time) : void setImmediate(done))),
      },
    };
  };
}

test('one that trickles is given up at the limit, its mailbox aborted, and the agent goes on meanwhile', async (t) => {
  let beats = 0;
  const beat = setInterval(() => beats++, 10);
  t.after(() => clearInterval(beat));
  const { level, told, mailbox } = await look(t, {
    require: 'roots: [maker.pem]',
    space: trickling(2),
    limit: 300,
  });
  assert.equal(level, 'disconnected enforced');
  assert.equal(told?.way, 'silent');
  assert.match(told?.because ?? '', /no whole answer within 0\.3 s/);
  assert.ok(beats >= 10, `${beats} beats`);
  assert.ok(mailbox.aborts >= 1);
  const { reads } = mailbox;
  await new Promise((done) => setTimeout(done, 50));
  assert.equal(mailbox.reads, reads, 'nothing runs on behind it');
});

test('a root’s file may say which of its certificates are revoked', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'airlock-agent-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const revoked = makeProfileDevice({ ...DEFAULT_PROFILE, name: NAME, hostile: 'revoked' }, Date.now(), null);
  assert.ok(revoked.ok);
  const { root, lists, open } = revoked.value;
  const pem = (label: string, der: Uint8Array) =>
    `-----BEGIN ${label}-----\n${Buffer.from(der).toString('base64')}\n-----END ${label}-----\n`;
  writeFileSync(join(folder, 'bare.pem'), pem('CERTIFICATE', root));
  writeFileSync(
    join(folder, 'full.pem'),
    [pem('CERTIFICATE', root), ...lists.map((der) => pem('X509 CRL', der))].join(''),
  );
  const nonce = new Uint8Array(32).fill(3);
  const connection = new Connection({ crypto: spdmCrypto, binding: doeBinding, trust: () => ok(null) });
  const answer = open(doeBinding);
  const link = { exchange: async (bytes: Uint8Array) => answer(bytes), wait: async () => undefined };
  const evidence = await drive(gatherEvidence(connection, { device: ID, nonce }), link);
  assert.ok(evidence.ok);
  const claim = async (file: string) => {
    const anchors = await readAnchors(fakeContext({ cwd: folder }), policyOf(policyText(`roots: [${file}]`)), folder);
    return claimFrom({ id: ID }, evidence.value, anchors, {
      nonce,
      function: parsePciName(NAME) ?? null,
      asOf: Date.now(),
    });
  };
  assert.equal((await claim('bare.pem')).tier, 'attested');
  const full = await claim('full.pem');
  assert.equal(full.tier, 'claimed');
  assert.match(full.because, /chain\.revocation/);
});

test('what is no answer, what could not be asked, and what is a wrong answer are told apart', () => {
  const ways = {
    silent: [
      'doe-timeout',
      'doe-busy',
      'doe-gone',
      'doe-answer-invalid',
      'peer-busy',
      'peer-error',
      'message-malformed',
      'file-timeout',
    ],
    unasked: ['config-locked-down', 'file-denied', 'file-missing'],
    answered: ['doe-absent', 'doe-unsupported', 'signature-wrong', 'nothing-signed'],
  };
  for (const [way, codes] of Object.entries(ways)) for (const code of codes) assert.equal(wayOf(code), way, code);
});

test('ids that the kernel does not remember are another device’s', () => {
  const shown = parsePciName(NAME);
  assert.ok(shown);
  const device = {
    vendor: 0x1b36,
    device: 0x10,
    class: 0x010802,
    revision: 2,
    subsystem: { vendor: 0x1b36, device: 0x1100 },
  } as Device;
  assert.deepEqual(otherIds(device, shown), []);
  assert.deepEqual(otherIds({ ...device, vendor: 1 }, shown), ['another vendor']);
  assert.deepEqual(otherIds({ ...device, device: 1 }, shown), ['another device']);
  assert.deepEqual(otherIds({ ...device, class: 1, revision: 1 }, shown), ['another class', 'another revision']);
  assert.deepEqual(otherIds({ ...device, subsystem: { vendor: 1, device: 0x1100 } }, shown), ['another subsystem']);
  assert.deepEqual(otherIds({ ...device, subsystem: null }, { ...shown, subsystem: null }), []);
});
