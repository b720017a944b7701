/** A CCA token: the platform's key signs for the platform, whose challenge is the realm's key, which signs for the realm. */
import { hex } from '@airlock/core/bytes.ts';
import { sameBytes } from '../bytes.ts';
import { type Appraisal, createChecklist, verdictOf } from '../check.ts';
import { verifyCose } from '../cose.ts';
import type { Crypto } from '../crypto.ts';
import { checkMeasurement, checkNonce } from '../expectations.ts';
import type { CcaToken } from './token.ts';

export interface CcaInput {
  readonly crypto: Crypto;
  readonly token: CcaToken;
  /** SubjectPublicKeyInfos of platforms (CPAK) that the verifier trusts. */
  readonly trustedKeys?: readonly Uint8Array[];
  /** Those that came with the evidence: anybody can make such a pair. */
  readonly keys: readonly Uint8Array[];
  readonly nonce?: Uint8Array;
  /** Any of these as the realm's initial measurement. */
  readonly measurements?: readonly Uint8Array[];
  readonly allowed?: ReadonlySet<string>;
}

const KEY_LIMIT = 16;

export function verifyCca(input: CcaInput): Appraisal {
  const { crypto, token } = input;
  const { platform, realm } = token;
  const list = createChecklist(input.allowed);
  const trusted = input.trustedKeys ?? [];
  const keys = [...trusted, ...input.keys].slice(0, KEY_LIMIT);
  const platformKey = keys.find((spki) => verifyCose(crypto.publicKey(spki), platform.message));
  list.check('cca.platform-signature', platformKey !== undefined, {
    expected: `${platform.message.name} with the platform’s key (CPAK)`,
    found: platformKey !== undefined ? 'good' : keys.length === 0 ? 'no key was given' : 'wrong',
  });
  if (platformKey !== undefined) {
    const known = trusted.includes(platformKey);
    list.check('cca.key', known, {
      expected: 'a key that the verifier trusts',
      found: known ? 'given by the verifier' : 'a key that came with the evidence: nobody vouches for it',
    });
  }
  const realmGood = verifyCose(crypto.publicKey(realm.keySpki), realm.message);
  list.check('cca.realm-signature', realmGood, {
    expected: `${realm.message.name} with the realm’s key (RAK)`,
    found: realmGood ? 'good' : 'wrong',
  });
  const digest = crypto.hash(realm.keyHash, realm.key);
  const bound = sameBytes(digest, platform.challenge);
  list.check('cca.binding', bound, {
    expected: `${hex(digest)}, the ${realm.keyHash} of the realm’s key`,
    found: bound ? 'the same' : hex(platform.challenge),
    where: {
      field: platform.profile.includes('2026') ? 'platform token, workload binding' : 'platform token, challenge',
    },
  });
  const secured = token.lifecycle >> 8 === 0x30;
  list.check('cca.lifecycle', secured, {
    expected: '0x3000 to 0x30ff, secured',
    found: `0x${token.lifecycle.toString(16)}`,
    where: { field: 'platform token, lifecycle' },
  });
  checkNonce(list, input.nonce, realm.challenge, { field: 'realm token, challenge' });
  checkMeasurement(list, input.measurements, realm.initialMeasurement, { field: 'realm initial measurement' });
  return {
    kind: 'arm-cca',
    title: 'Arm CCA token',
    verdict: verdictOf(list.checks),
    checks: list.checks,
    claims: {
      measurement: hex(realm.initialMeasurement),
      'extensible-measurements': realm.extensibleMeasurements.map(hex),
      challenge: hex(realm.challenge),
      personalization: hex(realm.personalization),
      'implementation-id': hex(token.implementationId),
      'instance-id': hex(token.instanceId),
      lifecycle: `0x${token.lifecycle.toString(16)}`,
      'platform-config': platform.configuration === null ? 'absent' : hex(platform.configuration),
      'software-components': platform.components.map(({ type, measurement, version, signer }) => ({
        type: type ?? 'absent',
        measurement: hex(measurement),
        version: version ?? 'absent',
        signer: hex(signer),
      })),
    },
  };
}
