import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ok } from '@airlock/core/result.ts';
import { SPDM_VERSIONS } from '../src/algorithms.ts';
import { doeBinding } from '../src/doe/binding.ts';
import { mctpBinding } from '../src/mctp/binding.ts';
import { REQUEST } from '../src/messages/codes.ts';
import { ALL_PREFERENCES } from '../src/negotiate.ts';
import { Responder } from '../src/responder/responder.ts';
import type { MutualMode, ResponderOptions } from '../src/responder/state.ts';
import { tcpBinding } from '../src/tcp/binding.ts';
import { withoutEmulator } from './support/emulator.ts';
import { sampleSlot } from './support/identities.ts';
import { crypto, MEASUREMENTS } from './support/pair.ts';
import { runAgainst } from './support/served-responder.ts';

const PSK = new TextEncoder().encode('TestPskData\0');
const CONNECTION = 'VCA,DIGEST,CERT,CHAL,MEAS';
const SESSION = 'KEY_EX,PSK,KEY_UPDATE,HEARTBEAT,MEAS,DIGEST,CERT';

function makeResponder(key: string, more: Partial<ResponderOptions> = {}): Responder {
  const slot = sampleSlot(key, 'responder');
  return new Responder({
    crypto,
    binding: mctpBinding,
    algorithms: { ...ALL_PREFERENCES, measurementHash: 'sha384' },
    slots: new Map([
      [0, slot],
      [1, slot],
    ]),
    measurements: MEASUREMENTS,
    psk: () => PSK,
    ...more,
  });
}

async function run(
  responder: Responder,
  options: readonly string[],
  mutual = false,
  steps = [CONNECTION, SESSION],
  transport = 'MCTP',
) {
  const [connection = '', session = ''] = steps;
  const { code, output, requests } = await runAgainst(responder, 'spdm_requester_emu', [
    ...['--trans', transport, '--meas_op', 'ALL', '--basic_mut_auth', 'NO', ...(mutual ? [] : ['--mut_auth', 'NO'])],
    ...['--exe_conn', connection, '--exe_session', session, ...options],
  ]);
  assert.equal(code, 0, output.slice(-500));
  assert.equal(responder.sessions, 0);
  return requests;
}

const trusting = (mode: MutualMode): Partial<ResponderOptions> => ({ mutual: { mode, trust: () => ok(null) } });

describe('DMTF’s requester, answered by us', { concurrency: 8, skip: withoutEmulator }, () => {
  for (const version of SPDM_VERSIONS) {
    test(`SPDM ${version}`, async () => {
      const requests = await run(makeResponder('ecp384'), ['--ver', version]);
      assert.ok(requests.length >= 25, `${requests.length} messages`);
    });
    test(`SPDM ${version}, the handshake in the clear`, async () => {
      await run(makeResponder('ecp384', { clearHandshake: true }), ['--ver', version]);
    });
    for (const mode of ['encapsulated', 'digests'] as const) {
      test(`SPDM ${version}, the requester known by ${mode}`, async () => {
        await run(makeResponder('ecp384', trusting(mode)), ['--ver', version], true);
      });
    }
  }

  for (const [transport, binding] of [
    ['PCI_DOE', doeBinding],
    ['TCP', tcpBinding],
  ] as const) {
    test(`over ${transport}`, async () => {
      const responder = makeResponder('ecp384', { binding });
      await run(responder, ['--ver', '1.3'], false, [CONNECTION, SESSION], transport);
    });
  }

  test('answers that need time', async () => {
    const late = {
      codes: [REQUEST.GET_DIGESTS, REQUEST.CHALLENGE, REQUEST.GET_MEASUREMENTS, REQUEST.KEY_EXCHANGE],
      exponent: 12,
    };
    await run(makeResponder('ecp384', { late }), ['--ver', '1.2']);
  });

  for (const version of ['1.3', '1.4']) {
    test(`SPDM ${version}, several keys, log, endpoint info, key pairs`, async () => {
      const more: Partial<ResponderOptions> = {
        multiKey: 'negotiable',
        measurementLog: new Uint8Array(16),
        endpointInfo: Uint8Array.of(1, 0, 0, 0, 5, 0, 0, 0, 0, 0),
      };
      const steps = ['MEL,EP_INFO,GET_KEY_PAIR_INFO'].map((one) => [`${CONNECTION},${one}`, `${SESSION},${one}`])[0];
      await run(makeResponder('ecp384', more), ['--ver', version], false, steps);
    });
  }

  for (const [key, version, ...options] of [
    ['rsa2048', '1.1', '--asym', 'RSASSA_2048', '--hash', 'SHA_256', '--dhe', 'FFDHE_2048', '--aead', 'AES_128_GCM'],
    ['rsa3072', '1.2', '--asym', 'RSAPSS_3072', '--hash', 'SHA3_384', '--dhe', 'FFDHE_3072'],
    ['rsa4096', '1.3', '--asym', 'RSAPSS_4096', '--hash', 'SHA3_512', '--dhe', 'FFDHE_4096'],
    ['rsa2048', '1.2', '--asym', 'RSAPSS_2048', '--hash', 'SHA_384', '--dhe', 'SECP_256_R1'],
    ['rsa3072', '1.3', '--asym', 'RSASSA_3072', '--aead', 'AES_128_GCM'],
    ['rsa4096', '1.1', '--asym', 'RSASSA_4096', '--dhe', 'SECP_384_R1'],
    ['ecp256', '1.1', '--asym', 'ECDSA_P256', '--hash', 'SHA3_256', '--aead', 'CHACHA20_POLY1305'],
    ['ecp521', '1.2', '--asym', 'ECDSA_P521', '--hash', 'SHA_512', '--dhe', 'SECP_521_R1'],
    ['ed25519', '1.2', '--asym', 'EDDSA_25519'],
    ['ed448', '1.3', '--asym', 'EDDSA_448'],
    ['mldsa44', '1.4', '--asym', 'NONE', '--pqc_asym', 'ML_DSA_44', '--dhe', 'NONE', '--kem', 'ML_KEM_512'],
    ['mldsa65', '1.4', '--asym', 'NONE', '--pqc_asym', 'ML_DSA_65', '--dhe', 'NONE', '--kem', 'ML_KEM_768'],
    ['mldsa87', '1.4', '--asym', 'NONE', '--pqc_asym', 'ML_DSA_87', '--dhe', 'NONE', '--kem', 'ML_KEM_1024'],
    [
      'slh-dsa-sha2-128s',
      '1.4',
      '--asym',
      'NONE',
      '--pqc_asym',
      'SLH_DSA_SHA2_128S',
      '--dhe',
      'NONE',
      '--kem',
      'ML_KEM_768',
    ],
  ] as const) {
    test(`${key} at ${version}`, async () => {
      await run(makeResponder(key), ['--ver', version, ...options]);
    });
  }

  test('ML-DSA-65 for both ends: the requester’s chain comes in chunks within the session', async () => {
    const options = ['--asym', 'NONE', '--pqc_asym', 'ML_DSA_65', '--req_asym', 'NONE', '--req_pqc_asym', 'ML_DSA_65'];
    const exchange = ['--dhe', 'NONE', '--kem', 'ML_KEM_768'];
    await run(makeResponder('mldsa65', trusting('encapsulated')), ['--ver', '1.4', ...options, ...exchange], true);
  });
});
