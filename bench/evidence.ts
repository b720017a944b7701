/**
 * SEV-SNP reports a second, beside what node:crypto verifies of the same curve in the same run. Warm: the VCEK's key and
 * chain are known, as for a fleet that comes back; the peer is one P-384 verification with an imported key. Cold: a VCEK
 * that was never seen; the peer does the same cryptography and nothing else: import the VCEK's key, verify VCEK, ASK and
 * ARK, verify the report. With nothing known the peer takes in the keys of ASK and ARK, too. All certificates are made here,
 * RSA-4096-PSS as AMD's are.
 */
import { constants, createPublicKey, generateKeyPairSync, type KeyObject, sign, verify } from 'node:crypto';
import { nodeCrypto } from '@airlock/evidence/node-crypto.ts';
import { readSnpReport } from '@airlock/evidence/snp/report.ts';
import { verifySnp } from '@airlock/evidence/snp/verify.ts';
import { type Certificate, readCertificate } from '@airlock/evidence/x509/certificate.ts';
import type { TrustedRoot } from '@airlock/evidence/x509/chain.ts';
import { keyDigest } from '@airlock/evidence/x509/chain.ts';
import {
  bits,
  boolean,
  element,
  ia5,
  integer,
  octets,
  oid,
  sequence,
  time,
  utf8,
} from '../packages/evidence/test/support/der.ts';
import type { Bench, Side } from './side-by-side.ts';

const AMD = '1.3.6.1.4.1.3704.1';
const TCB = { bootloader: 4, tee: 0, snp: 24, microcode: 219 };
const PSS = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 48 };

function must<T>(result: { ok: true; value: T } | { ok: false; error: { code: string; message: string } }): T {
  if (result.ok) return result.value;
  throw new Error(`${result.error.code}: ${result.error.message}`);
}

interface Party {
  readonly name: string;
  readonly key: KeyObject;
  readonly publicKey: KeyObject;
}

const rsa = (name: string): Party => {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 4096 });
  return { name, key: privateKey, publicKey };
};

const sha384 = sequence(oid('2.16.840.1.101.3.4.2.2'), element(0x05));
const pss = sequence(
  oid('1.2.840.113549.1.1.10'),
  sequence(
    element(0xa0, sha384),
    element(0xa1, sequence(oid('1.2.840.113549.1.1.8'), sha384)),
    element(0xa2, integer(48)),
  ),
);

function issue(
  subject: Party,
  issuer: Party,
  extensions: readonly (readonly [string, Uint8Array])[],
  critical: boolean,
): Uint8Array {
  const name = (text: string) => sequence(element(0x31, sequence(oid('2.5.4.3'), utf8(text))));
  const tbs = sequence(
    ...[element(0xa0, integer(2)), integer(1), pss, name(issuer.name)],
    ...[sequence(time('2024-01-01'), time('2034-01-01')), name(subject.name)],
    new Uint8Array(subject.publicKey.export({ format: 'der', type: 'spki' })),
    element(
      0xa3,
      sequence(
        ...extensions.map(([id, value]) => sequence(oid(id), ...(critical ? [boolean(true)] : []), octets(value))),
      ),
    ),
  );
  return sequence(tbs, pss, bits(new Uint8Array(sign('sha384', tbs, { key: issuer.key, ...PSS }))));
}

function makeReport(vcek: Party): Uint8Array {
  const bytes = new Uint8Array(1184);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 3, true);
  view.setBigUint64(8, 0x3001fn, true);
  view.setUint32(0x34, 1, true);
  for (const at of [0x38, 0x180, 0x1e0, 0x1f0])
    bytes.set([TCB.bootloader, TCB.tee, 0, 0, 0, 0, TCB.snp, TCB.microcode], at);
  bytes.set([0x19, 1, 1], 0x188);
  bytes.fill(0x5a, 0x1a0, 0x1e0);
  const signature = sign('sha384', bytes.subarray(0, 0x2a0), { key: vcek.key, dsaEncoding: 'ieee-p1363' });
  bytes.set(signature.subarray(0, 48).reverse(), 0x2a0);
  bytes.set(signature.subarray(48).reverse(), 0x2e8);
  return bytes;
}

export const bench: Bench = {
  name: 'evidence',
  title: 'SEV-SNP reports verified, beside what node:crypto does of the same signatures',
  unit: 'reports',
  show: 'rate',
  async prepare() {
    const crypto = nodeCrypto();
    const forgetful = nodeCrypto({ keys: 0 });
    const [ark, ask] = [rsa('ARK-Milan'), rsa('SEV-Milan')];
    const vcek: Party = { name: 'SEV-VCEK', ...keyPair() };
    const authority = [
      ['2.5.29.19', sequence(boolean(true))],
      ['2.5.29.15', element(0x03, Uint8Array.of(1, 0x06))],
    ] as const;
    const arkDer = issue(ark, ark, authority, true);
    const askDer = issue(ask, ark, authority, true);
    const spl = Object.entries({ '3.1': 4, '3.2': 0, '3.3': 24, '3.8': 219 }).map(
      ([id, value]) => [`${AMD}.${id}`, integer(value)] as const,
    );
    const vcekDer = issue(
      vcek,
      ask,
      [[`${AMD}.1`, integer(0)], [`${AMD}.2`, ia5('Milan-B0')], ...spl, [`${AMD}.4`, new Uint8Array(64).fill(0x5a)]],
      false,
    );
    const [arkCertificate, askCertificate] = [must(readCertificate(arkDer)), must(readCertificate(askDer))];
    const known = [must(readCertificate(vcekDer)), askCertificate, arkCertificate];
    const roots: readonly TrustedRoot[] = [{ name: 'ARK-Milan', spki: keyDigest(crypto, arkCertificate) }];
    const bytes = makeReport(vcek);
    const asOf = Date.parse('2026-01-01');

    const judge = (certificates: readonly Certificate[], by = crypto): string =>
      verifySnp({ crypto: by, report: must(readSnpReport(bytes)), certificates, asOf, roots }).verdict;
    const warm: Side = {
      name: 'airlock, VCEK known',
      run(times) {
        for (let i = 0; i < times; i++) if (judge(known) !== 'accepted') throw new Error('rejected');
      },
    };
    const cold: Side = {
      name: 'airlock, nothing known',
      run(times) {
        for (let i = 0; i < times; i++) {
          const fresh = [vcekDer, askDer, arkDer].map((der) => must(readCertificate(der)));
          if (judge(fresh, forgetful) !== 'accepted') throw new Error('rejected');
        }
      },
    };
    const coldVcek: Side = {
      name: 'airlock, a VCEK never seen',
      run(times) {
        for (let i = 0; i < times; i++)
          if (judge([must(readCertificate(vcekDer)), askCertificate, arkCertificate], forgetful) !== 'accepted')
            throw new Error('rejected');
      },
    };

    const signed = bytes.subarray(0, 0x2a0);
    const signature = must(readSnpReport(bytes)).signature;
    // The same signature as SEQUENCE { r, s }, which node:crypto verifies faster than r || s.
    const derForm = sequence(integerOf(signature.subarray(0, 48)), integerOf(signature.subarray(48)));
    const limit = (key: KeyObject) => verify('sha384', signed, { key, dsaEncoding: 'ieee-p1363' }, signature);
    const p384: Side = {
      name: 'crypto.verify P-384',
      run(times) {
        for (let i = 0; i < times; i++) if (!limit(vcek.publicKey)) throw new Error('wrong');
      },
    };
    const spki = new Uint8Array(vcek.publicKey.export({ format: 'der', type: 'spki' }));
    const [leaf, middle, root] = known as [Certificate, Certificate, Certificate];
    const bare: Side = {
      name: 'the same signatures alone',
      run(times) {
        for (let i = 0; i < times; i++) {
          const good =
            verify('sha384', leaf.tbs, { key: ask.publicKey, ...PSS }, leaf.signature) &&
            verify('sha384', middle.tbs, { key: ark.publicKey, ...PSS }, middle.signature) &&
            verify('sha384', root.tbs, { key: ark.publicKey, ...PSS }, root.signature) &&
            limit(createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' }));
          if (!good) throw new Error('wrong');
        }
      },
    };
    const taken: Side = {
      name: 'the same, all keys taken in',
      run(times) {
        for (let i = 0; i < times; i++) {
          const [vcekKey, askKey, arkKey] = known.map((one) =>
            createPublicKey({ key: Buffer.from(one.spki), format: 'der', type: 'spki' }),
          ) as [KeyObject, KeyObject, KeyObject];
          const good =
            verify('sha384', leaf.tbs, { key: askKey, ...PSS }, leaf.signature) &&
            verify('sha384', middle.tbs, { key: arkKey, ...PSS }, middle.signature) &&
            verify('sha384', root.tbs, { key: arkKey, ...PSS }, root.signature) &&
            limit(vcekKey);
          if (!good) throw new Error('wrong');
        }
      },
    };
    const der: Side = {
      name: 'P-384, DER form',
      run(times) {
        for (let i = 0; i < times; i++)
          if (!verify('sha384', signed, vcek.publicKey, derForm)) throw new Error('wrong');
      },
    };
    return { ours: [warm, coldVcek, cold], peers: [p384, der, bare, taken], operations: 1 };
  },
};

/** Unsigned, big-endian, as a DER INTEGER. */
function integerOf(bytes: Uint8Array): Uint8Array {
  const start = bytes.findIndex((byte) => byte !== 0);
  const least = bytes.subarray(Math.max(0, start));
  return element(0x02, (least[0] ?? 0) >= 0x80 ? Uint8Array.of(0, ...least) : least);
}

function keyPair(): { readonly key: KeyObject; readonly publicKey: KeyObject } {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-384' });
  return { key: privateKey, publicKey };
}
