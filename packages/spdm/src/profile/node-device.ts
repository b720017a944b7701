/** A device out of a profile: its keys and certificates, and a responder for each connection. */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { sameBytes } from '@airlock/evidence/bytes.ts';
import { readCertificate } from '@airlock/evidence/x509/certificate.ts';
import { answerDiscoveryObject } from '../doe/discovery.ts';
import { decodePciMessage, encodePciMessage, PCI_SIG_STANDARD, PCI_SIG_VENDOR } from '../doe/pci-protocol.ts';
import { createIdeResponder } from '../ide-km/responder.ts';
import type { VendorMessage } from '../messages/vendor-defined.ts';
import { ALL_PREFERENCES } from '../negotiate.ts';
import { nodeSpdmCrypto, signingKey } from '../node-crypto.ts';
import { Responder } from '../responder/responder.ts';
import type { ResponderOptions, ResponderSlot } from '../responder/state.ts';
import type { Binding } from '../secured/binding.ts';
import { createTdispResponder } from '../tdisp/responder.ts';
import { type Answer, createLiar, type IdentityLie, isMessageLie, isTdispLie } from './hostile.ts';
import { createTdispLiar, reportOf } from './hostile-tdisp.ts';
import { cmaNameExtension, issueCertificate, issueRevocationList, RESPONDER_EXTENSIONS, type Signer } from './issue.ts';
import type { Profile, ProfileInterface } from './profile.ts';

export interface ProfileDevice {
  /** DER of the root that a verifier of this device would trust; for `wrong-root` it is not the chain’s. */
  readonly root: Uint8Array;
  /** DER of revocation lists, of the root and of the issuer of the leaf; none for a chain out of files. */
  readonly lists: readonly Uint8Array[];
  /** A responder that knows of no other connection. */
  open(binding: Binding): Answer;
}

const DAY = 24 * 60 * 60 * 1000;
const YEAR = 365 * DAY;
const LEAF_SERIAL = 0x1001;

/**
 * `now` in milliseconds; `files` are what the profile names, a chain in DER certificates and a private key. Codes:
 * `certificate-invalid`, `der-*`, `signing-key-invalid`, `profile-invalid`. Devices of one `maker` have one root.
 */
export function makeProfileDevice(
  profile: Profile,
  now: number,
  files: { readonly chain: readonly Uint8Array[]; readonly key: Uint8Array } | null,
  maker: MadeUpMaker = makeUpMaker(now),
): Result<ProfileDevice> {
  const made = files === null ? ok(makeUp(profile, now, maker)) : fromFiles(files);
  if (!made.ok) return made;
  const { slot, root, lists } = made.value;
  const remembered = new Map<number, Uint8Array>();
  return ok({
    root,
    lists,
    open(binding) {
      const responder = new Responder(optionsOf(profile, binding, slot));
      const discovers = binding.name === 'doe';
      const honest: Answer = (message) =>
        (discovers ? answerDiscoveryObject(message) : undefined) ?? responder.answer(message);
      const { hostile } = profile;
      return hostile !== null && isMessageLie(hostile) ? createLiar(hostile, binding, honest, remembered) : honest;
    },
  });
}

interface Made {
  readonly slot: ResponderSlot;
  readonly root: Uint8Array;
  readonly lists: readonly Uint8Array[];
}

function newSigner(name: string): Signer & { readonly key: KeyObject } {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-384' });
  return {
    name,
    key: privateKey,
    spki: new Uint8Array(publicKey.export({ format: 'der', type: 'spki' })),
    sign: (message) => new Uint8Array(sign('sha384', message, privateKey)),
  };
}

/** Who issues the certificates of made-up devices. */
export interface MadeUpMaker {
  readonly root: Signer;
  readonly middle: Signer;
  /** DER: the root's own certificate, and that of what issues its devices' certificates. */
  readonly certificates: readonly [Uint8Array, Uint8Array];
  nextSerial(): number;
}

/** `now` in milliseconds. */
export function makeUpMaker(now: number): MadeUpMaker {
  const root = newSigner('Airlock made-up maker');
  const middle = newSigner('Airlock made-up maker, devices');
  const authority = (subject: Signer, serial: number) =>
    issueCertificate({
      ...periodAround(now),
      ...{ subject: subject.name, spki: subject.spki, issuer: root, serial, authority: true },
    });
  let serial = LEAF_SERIAL;
  return { root, middle, certificates: [authority(root, 1), authority(middle, 2)], nextSerial: () => serial++ };
}

const periodAround = (now: number) => ({ notBefore: now - DAY, notAfter: now + 10 * YEAR });

function makeUp({ name, hostile }: Profile, now: number, trusted: MadeUpMaker): Made {
  const lie = hostile as IdentityLie | null;
  const { root, middle, certificates, nextSerial } = lie === 'wrong-root' ? makeUpMaker(now) : trusted;
  const leaf = newSigner('Airlock made-up device');
  const serial = nextSerial();
  const shown = lie === 'other-device' && name !== null ? otherName(name) : name;
  const leafDer = issueCertificate({
    ...(lie === 'expired' ? { notBefore: now - 2 * YEAR, notAfter: now - YEAR } : periodAround(now)),
    ...{ subject: leaf.name, spki: leaf.spki, issuer: middle, serial, authority: false },
    extensions: [...RESPONDER_EXTENSIONS, ...(shown === null ? [] : [cmaNameExtension(shown)])],
  });
  return {
    slot: { certificates: [...certificates, leafDer], key: signingKey(leaf.key) },
    root: trusted.certificates[0],
    lists: [
      issueRevocationList(middle, lie === 'revoked' ? [serial] : [], now - DAY, now + YEAR),
      issueRevocationList(root, [], now - DAY, now + YEAR),
    ],
  };
}

/** The same name but for the last bit of its device id. */
function otherName(name: string): string {
  return name.replace(/(Device=[0-9a-f]{3})([0-9a-f])/i, (_, start: string, last: string) => {
    return `${start}${(Number.parseInt(last, 16) ^ 1).toString(16)}`;
  });
}

function fromFiles({ chain, key }: { readonly chain: readonly Uint8Array[]; readonly key: Uint8Array }): Result<Made> {
  let privateKey: KeyObject;
  try {
    const pem = key[0] === 0x2d;
    privateKey = createPrivateKey(
      pem ? { key: Buffer.from(key), format: 'pem' } : { key: Buffer.from(key), format: 'der', type: 'pkcs8' },
    );
  } catch {
    return fail('signing-key-invalid', 'not a private key in PEM or PKCS #8');
  }
  const certificates = chain.map((der) => readCertificate(der));
  const broken = certificates.find((one) => !one.ok);
  if (broken !== undefined && !broken.ok) return broken;
  const read = certificates.flatMap((one) => (one.ok ? [one.value] : []));
  const [first] = read;
  const leaf = read.at(-1);
  if (first === undefined || leaf === undefined) return fail('profile-invalid', 'the chain holds no certificate');
  const spki = new Uint8Array(createPublicKey(privateKey).export({ format: 'der', type: 'spki' }));
  if (!sameBytes(leaf.spki, spki))
    return fail('profile-invalid', 'the key is not the one of the last certificate; root first, leaf last');
  return ok({
    slot: { certificates: read.map(({ der }) => der), key: signingKey(privateKey) },
    root: first.der,
    lists: [],
  });
}

function optionsOf(profile: Profile, binding: Binding, slot: ResponderSlot): ResponderOptions {
  const { versions, measurements, hostile, tdisp } = profile;
  const signatures = ALL_PREFERENCES.signatures.filter((name) => slot.key.fits(name));
  const wrong = measurements.map((one) => ({ ...one, value: one.value.map((byte) => byte ^ 1) }));
  return {
    crypto: nodeSpdmCrypto(),
    binding,
    algorithms: { ...ALL_PREFERENCES, versions, signatures, measurementHash: 'sha384' },
    slots: new Map([[0, slot]]),
    measurements: hostile === 'wrong-measurement' ? wrong : measurements,
    ...(tdisp.length === 0 ? {} : { vendor: pciVendor(tdisp, hostile) }),
  };
}

/** TDISP and IDE_KM, in sessions only. */
function pciVendor(
  functions: readonly ProfileInterface[],
  hostile: Profile['hostile'],
): NonNullable<ResponderOptions['vendor']> {
  const crypto = nodeSpdmCrypto();
  const lie = hostile !== null && isTdispLie(hostile) ? hostile : null;
  const tdisp = createTdispResponder({
    interfaces: new Map(functions.map(({ id, report }) => [id, ({ flags }) => reportOf(lie, report, flags)])),
    random: (length) => crypto.random(length),
  });
  const answerTdisp = lie === null ? tdisp.answer : createTdispLiar(lie, tdisp);
  const port = { devfn: 0, bus: 0, segment: 0, registers: [0x0000_0042, 0] };
  const ide = createIdeResponder(Array.from({ length: 8 }, () => port));
  return (request: VendorMessage, session: number | null) => {
    if (session === null || request.standard !== PCI_SIG_STANDARD || !sameBytes(request.vendor, PCI_SIG_VENDOR))
      return null;
    const read = decodePciMessage(request.payload);
    if (!read.ok) return null;
    const { protocol, message } = read.value;
    const answer = protocol === 'tdisp' ? answerTdisp(session, message) : ide.answer(message);
    return answer.ok ? { ...request, payload: encodePciMessage({ protocol, message: answer.value }) } : null;
  };
}
