import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { ok } from '@airlock/core/result.ts';
import { SPDM_VERSIONS } from '../src/algorithms.ts';
import { ALL_PREFERENCES } from '../src/negotiate.ts';
import { challenge } from '../src/requester/challenge.ts';
import { Connection } from '../src/requester/connection.ts';
import { getMeasurements } from '../src/requester/measurements.ts';
import { drive } from '../src/requester/procedure.ts';
import { getEndpointInfo, getMeasurementLog } from '../src/requester/requests.ts';
import { endSession, establishSession } from '../src/requester/session.ts';
import { start } from '../src/requester/start.ts';
import { EMULATOR, type EmulatorTransport, startResponder, withoutEmulator } from './support/emulator.ts';
import { sampleRequester } from './support/identities.ts';
import { must } from './support/must.ts';
import { crypto } from './support/pair.ts';
import { authenticate, useSession } from './support/whole-exchange.ts';

const PSK = new TextEncoder().encode('TestPskData\0');
const HINT = new TextEncoder().encode('TestPskHint\0');

interface Case {
  readonly options: readonly string[];
  readonly transport?: EmulatorTransport;
  /** The requester's key, where it is asked who it is. */
  readonly identity?: string;
  readonly clear?: boolean;
  readonly transferSize?: number;
}

async function runAll({ options, transport = 'MCTP', identity, clear = false, transferSize }: Case): Promise<string> {
  const mutual = identity === undefined ? ['--basic_mut_auth', 'NO', '--mut_auth', 'NO'] : [];
  const emulator = await startResponder(transport, [...mutual, ...options]);
  try {
    const { link, binding } = emulator;
    const connection = new Connection({
      crypto,
      binding,
      trust: () => ok(null),
      preferences: ALL_PREFERENCES,
      psk: { secret: PSK, hint: HINT },
      clearHandshake: clear,
      ...(identity === undefined ? {} : { identity: sampleRequester(crypto, identity) }),
      ...(transferSize === undefined ? {} : { transferSize }),
    });
    const believed = must(await drive(authenticate(connection), link));
    const blocks: unknown[] = JSON.parse(believed.measurements);
    assert.equal(blocks.length, 8);
    must(await drive(useSession(connection), link));
    must(await drive(useSession(connection, true), link));
    return believed.agreed;
  } finally {
    await emulator.stop();
  }
}

describe('DMTF’s responder, asked by us', { concurrency: 8, skip: withoutEmulator }, () => {
  for (const version of SPDM_VERSIONS) {
    for (const transport of ['MCTP', 'PCI_DOE', 'TCP'] as const) {
      test(`SPDM ${version} over ${transport}`, async () => {
        const agreed = await runAll({ transport, options: ['--ver', version] });
        assert.equal(JSON.parse(agreed).version, version);
      });
    }
    for (const mode of ['W_ENCAP', 'DIGESTS', 'WO_ENCAP'] as const) {
      test(`SPDM ${version}, the requester known by ${mode}`, async () => {
        await runAll({
          identity: 'rsa3072',
          clear: mode === 'W_ENCAP',
          options: ['--ver', version, '--mut_auth', mode, '--basic_mut_auth', mode === 'DIGESTS' ? 'BASIC' : 'NO'],
        });
      });
    }
  }

  for (const [asym, hash, dhe, aead] of [
    ['RSASSA_2048', 'SHA_256', 'FFDHE_2048', 'AES_128_GCM'],
    ['RSAPSS_2048', 'SHA_384', 'FFDHE_3072', 'AES_256_GCM'],
    ['RSASSA_3072', 'SHA_512', 'FFDHE_4096', 'CHACHA20_POLY1305'],
    ['RSAPSS_3072', 'SHA3_256', 'SECP_256_R1', 'AES_256_GCM'],
    ['RSASSA_4096', 'SHA3_384', 'SECP_384_R1', 'AES_128_GCM'],
    ['RSAPSS_4096', 'SHA3_512', 'SECP_521_R1', 'AES_256_GCM'],
    ['ECDSA_P256', 'SHA_256', 'SECP_256_R1', 'CHACHA20_POLY1305'],
    ['ECDSA_P521', 'SHA_512', 'SECP_521_R1', 'AES_256_GCM'],
    ['EDDSA_25519', 'SHA_256', 'SECP_256_R1', 'AES_256_GCM'],
    ['EDDSA_448', 'SHA_512', 'SECP_384_R1', 'AES_256_GCM'],
  ]) {
    test(`${asym}, ${hash}, ${dhe}, ${aead}`, async () => {
      const options = [
        '--ver',
        '1.2',
        '--asym',
        asym,
        '--hash',
        hash,
        '--meas_hash',
        hash,
        '--dhe',
        dhe,
        '--aead',
        aead,
      ];
      await runAll({ options: options.map(String) });
    });
  }

  for (const [pqc, kem] of [
    ['ML_DSA_44', 'ML_KEM_512'],
    ['ML_DSA_65', 'ML_KEM_768'],
    ['ML_DSA_87', 'ML_KEM_1024'],
  ] as const) {
    test(`SPDM 1.4: ${pqc}, ${kem}`, async () => {
      await runAll({ options: ['--ver', '1.4', '--asym', 'NONE', '--pqc_asym', pqc, '--dhe', 'NONE', '--kem', kem] });
    });
  }

  test('SPDM 1.4: ML_DSA_65 for both ends, in chunks both ways', async () => {
    await runAll({
      identity: 'mldsa65',
      transferSize: 1500,
      options: [
        ...['--ver', '1.4', '--asym', 'NONE', '--pqc_asym', 'ML_DSA_65', '--req_asym', 'NONE'],
        ...['--req_pqc_asym', 'ML_DSA_65', '--dhe', 'NONE', '--kem', 'ML_KEM_768', '--basic_mut_auth', 'NO'],
        ...[
          '--cap',
          'CACHE,CERT,CHAL,MEAS_SIG,MEAS_FRESH,ENCRYPT,MAC,MUT_AUTH,KEY_EX,PSK_WITH_CONTEXT,ENCAP,HBEAT,KEY_UPD,CHUNK',
        ],
      ],
    });
  });

  test('the measurement log and endpoint info, where it has them', async () => {
    const caps = 'CERT,CHAL,MEAS_SIG,ENCRYPT,MAC,KEY_EX,CHUNK,MEL,EP_INFO_SIG';
    const emulator = await startResponder('MCTP', ['--ver', '1.3', '--cap', caps]);
    try {
      const { link, binding } = emulator;
      const connection = new Connection({ crypto, binding, trust: () => ok(null) });
      must(await drive(authenticate(connection), link));
      assert.ok(must(await drive(getMeasurementLog(connection, null), link)).length > 16);
      assert.ok(must(await drive(getEndpointInfo(connection, { sign: 0 }), link)).statement !== null);
    } finally {
      await emulator.stop();
    }
  });

  for (const version of SPDM_VERSIONS) {
    test(`SPDM ${version}: a responder whose key is known, and has no certificate`, async () => {
      const caps = 'CHAL,MEAS_SIG,ENCRYPT,MAC,KEY_EX,PUB_KEY_ID';
      const emulator = await startResponder('MCTP', ['--ver', version, '--slot_id', '0xFF', '--cap', caps]);
      try {
        const { link, binding } = emulator;
        const peerKey = new Uint8Array(readFileSync(join(EMULATOR, 'ecp384', 'end_responder.key.pub.der')));
        const connection = new Connection({ crypto, binding, trust: () => ok(null), peerKey });
        must(await drive(start(connection), link));
        must(await drive(challenge(connection, 15, { summary: 'all' }), link));
        must(await drive(getMeasurements(connection, { operation: 'all', sign: 15 }), link));
        const { session } = must(await drive(establishSession(connection, { slot: 15 }), link));
        must(await drive(endSession(connection, session), link));
      } finally {
        await emulator.stop();
      }
    });
  }

  test('a responder whose versions are all too old is not spoken to', async () => {
    const emulator = await startResponder('MCTP', ['--ver', '1.1']);
    try {
      const { link, binding } = emulator;
      const preferences = { ...ALL_PREFERENCES, versions: ['1.2', '1.3'] as const };
      const connection = new Connection({ crypto, binding, trust: () => ok(null), preferences });
      const refused = await drive(start(connection), link);
      assert.equal(refused.ok ? '' : refused.error.code, 'version-unacceptable');
    } finally {
      await emulator.stop();
    }
  });
});
