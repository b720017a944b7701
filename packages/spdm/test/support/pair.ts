/** Both ends of ours, with keys made for the test: the least of a certificate, because trust is judged elsewhere. */
import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { ok, type Result } from '@airlock/core/result.ts';
import { element, integer, octets, oid, sequence } from '../../../evidence/test/support/der.ts';
import type { SignatureName, SpdmVersion } from '../../src/algorithms.ts';
import { encodeCertificateChain } from '../../src/certificate-chain.ts';
import type { SigningKey } from '../../src/crypto.ts';
import { doeBinding } from '../../src/doe/binding.ts';
import { mctpBinding } from '../../src/mctp/binding.ts';
import { ALL_PREFERENCES, type Preferences } from '../../src/negotiate.ts';
import { nodeSpdmCrypto, signingKey } from '../../src/node-crypto.ts';
import { Connection, type RequesterOptions } from '../../src/requester/connection.ts';
import type { Procedure } from '../../src/requester/procedure.ts';
import { runAtOnce } from '../../src/requester/procedure.ts';
import { Responder } from '../../src/responder/responder.ts';
import type { ResponderMeasurement, ResponderOptions, ResponderSlot } from '../../src/responder/state.ts';

export const crypto = nodeSpdmCrypto();

const generators: Readonly<Record<string, () => KeyObject>> = {
  'ecdsa-p256': () => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey,
  'ecdsa-p384': () => generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey,
  'ecdsa-p521': () => generateKeyPairSync('ec', { namedCurve: 'P-521' }).privateKey,
  ed25519: () => generateKeyPairSync('ed25519').privateKey,
  ed448: () => generateKeyPairSync('ed448').privateKey,
  'ml-dsa-44': () => generateKeyPairSync('ml-dsa-44').privateKey,
  'ml-dsa-65': () => generateKeyPairSync('ml-dsa-65').privateKey,
  'ml-dsa-87': () => generateKeyPairSync('ml-dsa-87').privateKey,
  'slh-dsa-sha2-128f': () => generateKeyPairSync('slh-dsa-sha2-128f').privateKey,
};

export interface TestKey {
  readonly signing: SigningKey;
  readonly certificate: Uint8Array;
}

const keys = new Map<string, TestKey>();

/** The same key each time for a name; `rsa…` is made with the modulus that the name says. */
export function testKey(algorithm: SignatureName, name = ''): TestKey {
  const known = keys.get(algorithm + name);
  if (known !== undefined) return known;
  const size = /^rsa(?:ssa|pss)-(\d+)$/.exec(algorithm)?.[1];
  const generate =
    size === undefined
      ? generators[algorithm]
      : () => generateKeyPairSync('rsa', { modulusLength: Number(size) }).privateKey;
  if (generate === undefined) throw new Error(`no generator of ${algorithm}`);
  const key = generate();
  const made = { signing: signingKey(key), certificate: leastCertificate(key) };
  keys.set(algorithm + name, made);
  return made;
}

/** As much of a certificate as a key is read out of. */
export function leastCertificate(key: KeyObject): Uint8Array {
  const spki = new Uint8Array(createPublicKey(key).export({ format: 'der', type: 'spki' }));
  const algorithm = sequence(oid('1.2.840.10045.4.3.2'));
  const body = sequence(
    element(0xa0, integer(2)),
    integer(1),
    algorithm,
    sequence(),
    sequence(),
    sequence(),
    spki,
    element(0xa3, sequence(sequence(oid('2.5.29.15'), octets(Uint8Array.of(3, 2, 7, 0x80))))),
  );
  return sequence(body, algorithm, element(0x03, Uint8Array.of(0, 0)));
}

export const MEASUREMENTS: readonly ResponderMeasurement[] = [
  { index: 1, typeCode: 0, raw: false, value: new Uint8Array(72).fill(1), tcb: true },
  { index: 2, typeCode: 1, raw: false, value: new Uint8Array(72).fill(2), tcb: true },
  { index: 5, typeCode: 6, raw: true, value: new Uint8Array(8).fill(3), tcb: false },
  { index: 0xfd, typeCode: 4, raw: true, value: new Uint8Array(100).fill(4), tcb: false },
];

export interface PairOptions {
  readonly version: SpdmVersion;
  readonly signature?: SignatureName;
  readonly requesterSignature?: SignatureName;
  readonly preferences?: Partial<Preferences>;
  readonly responder?: Partial<ResponderOptions>;
  readonly requester?: Partial<RequesterOptions>;
  readonly mutual?: 'plain' | 'encapsulated' | 'digests';
  readonly binding?: 'doe' | 'mctp';
}

export interface Pair {
  readonly connection: Connection;
  readonly responder: Responder;
  /** The responder's answer to bytes of the binding. */
  answer(bytes: Uint8Array): Uint8Array;
  run<T>(procedure: Procedure<T>): Result<T>;
}

export const PSK = { secret: new Uint8Array(32).fill(7), hint: Uint8Array.of(1, 2, 3) };

export function makePair(options: PairOptions): Pair {
  const { version, signature = 'ecdsa-p256', requesterSignature = 'ecdsa-p256' } = options;
  const binding = options.binding === 'mctp' ? mctpBinding : doeBinding;
  const key = testKey(signature);
  const slot: ResponderSlot = { certificates: [key.certificate], key: key.signing };
  const own = testKey(requesterSignature, 'requester');
  const preferences: Preferences = {
    ...ALL_PREFERENCES,
    versions: [version],
    signatures: [signature],
    requesterSignatures: [requesterSignature],
    exchanges: ['secp256r1'],
    ...options.preferences,
  };
  const hash = preferences.hashes[0] ?? 'sha256';
  const known = encodeCertificateChain(crypto, version, hash, own.certificate, [own.certificate]);
  const { mutual } = options;
  const responder = new Responder({
    crypto,
    binding,
    algorithms: { ...preferences, measurementHash: 'sha256' },
    slots: new Map([[0, slot]]),
    measurements: MEASUREMENTS,
    psk: (hint) =>
      hint.length === PSK.hint.length && hint.every((byte, i) => byte === PSK.hint[i]) ? PSK.secret : undefined,
    ...(mutual === undefined ? {} : { mutual: { mode: mutual, trust: () => ok(null), known } }),
    ...options.responder,
  });
  const connection = new Connection({
    crypto,
    binding,
    trust: () => ok(null),
    preferences,
    psk: PSK,
    ...(mutual === undefined
      ? {}
      : {
          identity: {
            slot: 0,
            key: own.signing,
            chain: (agreed) =>
              encodeCertificateChain(crypto, agreed.version, agreed.hash, own.certificate, [own.certificate]),
          },
        }),
    ...options.requester,
  });
  const answer = (bytes: Uint8Array) => {
    const answered = responder.answer(bytes);
    if (!answered.ok) throw new Error(`${answered.error.code}: ${answered.error.message}`);
    return answered.value;
  };
  return { connection, responder, answer, run: (procedure) => runAtOnce(procedure, answer) };
}
