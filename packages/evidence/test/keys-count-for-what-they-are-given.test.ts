import assert from 'node:assert/strict';
import { generateKeyPairSync, sign } from 'node:crypto';
import { test } from 'node:test';
import { type AppraiseOptions, appraise } from '../src/appraise.ts';
import { cborBytes } from '../src/cbor.ts';
import type { Corim, Environment } from '../src/corim/corim.ts';
import { readCoseSign1 } from '../src/cose.ts';
import { nodeCrypto } from '../src/node-crypto.ts';
import { recognise } from '../src/recognise.ts';
import { referencesOfCorim } from '../src/references.ts';
import { must, signer } from './support/authority.ts';
import { cpak, token } from './support/cca-realm.ts';
import { join } from './support/der.ts';
import { attestBytes, bincode } from './support/tpm-machine.ts';

const crypto = nodeCrypto();
const asOf = Date.parse('2026-01-01');
const zeros = (length: number) => '00'.repeat(length);
const CCA = 'http://arm.com/cca/ssd/1';
const environment: Environment = {
  ...{ classId: `implementation-id:${zeros(32)}`, vendor: 'ACME', model: 'RoadRunner' },
  ...{ layer: null, index: null, instance: zeros(33) },
};
const PCRS = Array.from({ length: 24 }, () => new Uint8Array(32));
const corim = (more: Partial<Corim> = {}, where: Partial<Environment> = {}): Corim => ({
  ...{ id: 'made', profile: CCA, validity: { from: null, until: null }, references: [], endorsements: [] },
  ...{ attestKeys: [{ environment: { ...environment, ...where }, spki: cpak.spki }], conditions: [] },
  ...{ otherTriples: [], otherTags: [], signature: null, ...more },
});
function failed(files: readonly Uint8Array[], more: Partial<AppraiseOptions>) {
  const found = files.flatMap((bytes, i) => [...recognise(`file ${i}`, bytes).found]);
  const report = appraise(found, [], { crypto, asOf, ...more });
  const checks = report?.appraisals.flatMap((one) => one.checks) ?? [];
  return checks.filter(({ status }) => status === 'failed').map(({ id }) => id);
}
const endorsed = (one: Corim) => failed([token()], { references: [referencesOfCorim(one, 'x')] });

test('a CoRIM’s attestation key is that of one CCA platform, and of nothing else', () => {
  const open = ['reference.present'];
  assert.deepEqual(endorsed(corim()), open);
  assert.deepEqual(endorsed(corim({}, { classId: null, instance: null })), open);
  assert.deepEqual(endorsed(corim({ profile: null }, { vendor: 'Arm', model: 'CCA' })), open);
  const wrong = ['cca.platform-signature', ...open];
  assert.deepEqual(endorsed(corim({}, { instance: `01${zeros(32)}` })), wrong);
  assert.deepEqual(endorsed(corim({}, { classId: `implementation-id:01${zeros(31)}` })), wrong);
  assert.deepEqual(endorsed(corim({ profile: 'http://arm.com/psa/iot/1' })), wrong);
  assert.deepEqual(endorsed(corim({ profile: null })), wrong);
  assert.deepEqual(endorsed(corim({ profile: null }, { vendor: 'AMD', model: 'SEV-SNP' })), wrong);
});

test('a key that was given for a TPM signs no CCA token, and one of a platform no quote', () => {
  assert.deepEqual(failed([token()], { platformKeys: [cpak.spki] }), []);
  // A TPM signs any text for its owner that does not begin like its own.
  assert.deepEqual(failed([token()], { trustedKeys: [cpak.spki] }), ['cca.platform-signature']);
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const tpmKey = new Uint8Array(publicKey.export({ format: 'der', type: 'spki' }));
  const attest = attestBytes({ pcrs: PCRS });
  const quote = bincode(attest, new Uint8Array(sign('sha256', attest, privateKey)), PCRS);
  assert.deepEqual(failed([quote], { trustedKeys: [tpmKey] }), []);
  assert.deepEqual(failed([quote], { platformKeys: [tpmKey] }), ['tpm.signature']);
});

test('whoever signs reference values does not attest', () => {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const tpmKey = new Uint8Array(publicKey.export({ format: 'der', type: 'spki' }));
  const maker = signer('maker', 'P-256');
  const header = Uint8Array.of(0xa1, 0x01, 0x26);
  const signed = join(
    ...[Uint8Array.of(0x84, 0x6a), Buffer.from('Signature1'), cborBytes(header), Uint8Array.of(0x40, 0x40)],
  );
  const value = sign('sha256', signed, { key: maker.key, dsaEncoding: 'ieee-p1363' });
  const message = must(
    readCoseSign1(
      join(Uint8Array.of(0x84), cborBytes(header), Uint8Array.of(0xa0, 0x40), cborBytes(new Uint8Array(value))),
    ),
  );
  const signature = { message, signer: 'maker', validity: { from: null, until: null } };
  const references = [referencesOfCorim(corim({ attestKeys: [], signature }), 'x')];
  const attest = attestBytes({ pcrs: PCRS });
  const quote = bincode(attest, new Uint8Array(sign('sha256', attest, privateKey)), PCRS);
  const known = { references, referenceKeys: [maker.spki] };
  assert.deepEqual(failed([quote], { ...known, trustedKeys: [maker.spki, tpmKey] }), ['reference.present']);
  // A key that was given for a TPM vouches for no reference values.
  assert.deepEqual(failed([quote], { references, referenceKeys: [tpmKey], trustedKeys: [maker.spki, tpmKey] }), [
    ...['reference.present', 'reference.signature'],
  ]);
  // TPMT_SIGNATURE of ECDSA with SHA-256, by the maker.
  const forged = new Uint8Array(sign('sha256', attest, { key: maker.key, dsaEncoding: 'ieee-p1363' }));
  const part = (from: number) => join(Uint8Array.of(0, 32), forged.subarray(from, from + 32));
  const loose = join(Uint8Array.of(0, 0x18, 0, 0x0b), part(0), part(32));
  const given = JSON.stringify({
    ...{ message: Buffer.from(attest).toString('hex'), signature: Buffer.from(loose).toString('hex') },
    pcrs: PCRS.map((one) => Buffer.from(one).toString('hex')),
  });
  assert.deepEqual(failed([Buffer.from(given)], { trustedKeys: [maker.spki] }), []);
  assert.deepEqual(failed([Buffer.from(given)], { ...known, trustedKeys: [maker.spki, tpmKey, maker.spki.slice()] }), [
    ...['tpm.signature', 'reference.present'],
  ]);
});
