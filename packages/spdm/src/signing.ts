/** What a signature covers: from 1.2 on a prefix that names version and purpose, and a digest; before, the messages. */
import { asciiBytes, concat } from '@airlock/evidence/bytes.ts';
import { type HashName, type SignatureName, type SpdmVersion, since } from './algorithms.ts';
import type { SigningKey, SpdmCrypto, VerifyingKey } from './crypto.ts';

/** SPDM-context of DSP0274 1.2 and later, one for each message that is signed. */
export const PURPOSE = {
  challengeAuth: 'responder-challenge_auth signing',
  measurements: 'responder-measurements signing',
  keyExchange: 'responder-key_exchange_rsp signing',
  endpointInfo: 'responder-endpoint_info signing',
  requesterChallengeAuth: 'requester-challenge_auth signing',
  finish: 'requester-finish signing',
  requesterEndpointInfo: 'requester-endpoint_info signing',
} as const;
export type Purpose = (typeof PURPOSE)[keyof typeof PURPOSE];

export interface SigningSuite {
  readonly version: SpdmVersion;
  readonly hash: HashName;
  readonly algorithm: SignatureName;
}

/** Bytes of combined_spdm_prefix: the version four times, then the context at the end of 36 bytes. */
const PREFIX_SIZE = 100;

function prefix(version: SpdmVersion, purpose: Purpose): Uint8Array {
  const bytes = new Uint8Array(PREFIX_SIZE);
  bytes.set(asciiBytes(`dmtf-spdm-v${version}.*`.repeat(4)));
  bytes.set(asciiBytes(purpose), PREFIX_SIZE - purpose.length);
  return bytes;
}

function formOf({ algorithm, hash }: SigningSuite, purpose: Purpose) {
  const context = algorithm === 'ed25519' || !/^(ed448|ml-dsa|slh-dsa)/.test(algorithm) ? '' : purpose;
  return { algorithm, hash, context: asciiBytes(context) };
}

function messageOf(crypto: SpdmCrypto, suite: SigningSuite, purpose: Purpose, parts: readonly Uint8Array[]) {
  return since(suite.version, '1.2')
    ? concat(prefix(suite.version, purpose), crypto.hash(suite.hash, ...parts))
    : concat(...parts);
}

/** SPDMsign over the concatenated `transcript`; `undefined` when the key is none of the algorithm. */
export function signTranscript(
  crypto: SpdmCrypto,
  suite: SigningSuite,
  key: SigningKey,
  purpose: Purpose,
  transcript: readonly Uint8Array[],
): Uint8Array | undefined {
  return key.sign(formOf(suite, purpose), messageOf(crypto, suite, purpose, transcript));
}

/** SPDMsignatureVerify. Signatures of 1.1 are taken big-endian only, as 1.2 made explicit. */
export function verifyTranscript(
  crypto: SpdmCrypto,
  suite: SigningSuite,
  key: VerifyingKey,
  purpose: Purpose,
  transcript: readonly Uint8Array[],
  signature: Uint8Array,
): boolean {
  return key.verify(formOf(suite, purpose), messageOf(crypto, suite, purpose, transcript), signature);
}
