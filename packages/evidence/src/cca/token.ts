/** Arm CCA attestation tokens: a platform token and a realm token. Arm RMM specification, A7.2; draft-ffm-rats-cca-token. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { concat, fromHex } from '../bytes.ts';
import { type Cbor, isTag, readCbor } from '../cbor.ts';
import { type CoseSign1, readCoseSign1 } from '../cose.ts';
import type { Hash } from '../crypto.ts';

const CCA = 399;
const PLATFORM = 44234;
const REALM = 44241;

export type Claims = ReadonlyMap<number | string, Cbor>;

export interface CcaToken {
  readonly platform: { readonly message: CoseSign1; readonly claims: Claims; readonly challenge: Uint8Array };
  readonly realm: {
    readonly message: CoseSign1;
    readonly claims: Claims;
    readonly challenge: Uint8Array;
    readonly initialMeasurement: Uint8Array;
    readonly extensibleMeasurements: readonly Uint8Array[];
    readonly personalization: Uint8Array;
    /** As the token holds it: an uncompressed point. */
    readonly key: Uint8Array;
    readonly keySpki: Uint8Array;
    readonly keyHash: Hash;
  };
  readonly lifecycle: number;
  readonly implementationId: Uint8Array;
  readonly instanceId: Uint8Array;
}

/** A map, since names that others choose must not find what every object has. */
const HASHES: ReadonlyMap<Cbor | undefined, Hash> = new Map([
  ['sha-256', 'sha256'],
  ['sha-384', 'sha384'],
  ['sha-512', 'sha512'],
]);
/** Other tokens of Arm's have the same claims, signed for something else. */
const PLATFORM_PROFILE = /^(?:http:\/\/arm\.com\/CCA-SSD\/|tag:arm\.com,2023:cca_platform#)/;
/** SubjectPublicKeyInfo up to the point, by the point's length. */
const POINTS: Readonly<Record<number, string>> = {
  65: '3059301306072a8648ce3d020106082a8648ce3d030107034200',
  97: '3076301006072a8648ce3d020106052b81040022036200',
  133: '30819b301006072a8648ce3d020106052b8104002303818600',
};

/** SubjectPublicKeyInfo of an uncompressed point of P-256, P-384 or P-521; `undefined` for another length or form. */
export function pointSpki(point: Uint8Array): Uint8Array | undefined {
  const prefix = fromHex(POINTS[point.length] ?? '');
  return prefix === undefined || prefix.length === 0 || point[0] !== 4 ? undefined : concat(prefix, point);
}

export function isCcaToken(bytes: Uint8Array): boolean {
  return bytes.length > 64 && bytes[0] === 0xd9 && bytes[1] === 0x01 && bytes[2] === 0x8f;
}

/** Codes: `cca-token-invalid`, `cose-invalid`, `cbor-invalid`. */
export function readCcaToken(bytes: Uint8Array): Result<CcaToken> {
  const wrong = (what: string) => fail('cca-token-invalid', what);
  const read = readCbor(bytes);
  if (!read.ok) return read;
  if (!isTag(read.value, CCA) || !(read.value.value instanceof Map)) return wrong('no collection with tag 399');
  const collection: Claims = read.value.value;
  const part = (label: number): Result<{ message: CoseSign1; claims: Claims }> => {
    const raw = collection.get(label);
    if (!(raw instanceof Uint8Array)) return wrong(`no token ${label}`);
    const message = readCoseSign1(raw);
    if (!message.ok) return message;
    const claims = readCbor(message.value.payload);
    if (!claims.ok) return claims;
    return claims.value instanceof Map
      ? ok({ message: message.value, claims: claims.value })
      : wrong(`claims of ${label} are no map`);
  };
  const [platform, realm] = [part(PLATFORM), part(REALM)];
  if (!platform.ok) return platform;
  if (!realm.ok) return realm;
  const bytesAt = (claims: Claims, label: number, sizes: readonly number[]): Uint8Array | undefined => {
    const value = claims.get(label);
    return value instanceof Uint8Array && sizes.includes(value.length) ? value : undefined;
  };
  const digest = [32, 48, 64];
  const profile = platform.value.claims.get(265);
  if (typeof profile !== 'string' || !PLATFORM_PROFILE.test(profile)) return wrong('platform: no profile of CCA');
  const platformChallenge = bytesAt(platform.value.claims, 10, digest);
  const implementationId = bytesAt(platform.value.claims, 2396, [32]);
  const instanceId = bytesAt(platform.value.claims, 256, [33]);
  const lifecycle = platform.value.claims.get(2395);
  if (platformChallenge === undefined || implementationId === undefined || instanceId === undefined)
    return wrong('platform: challenge, implementation id or instance id is missing or of a wrong length');
  if (typeof lifecycle !== 'number' || lifecycle < 0 || lifecycle > 0xffff) return wrong('platform: lifecycle');
  const { claims } = realm.value;
  const challenge = bytesAt(claims, 10, [64]);
  const initialMeasurement = bytesAt(claims, 44238, digest);
  const personalization = bytesAt(claims, 44235, [64]);
  const key = bytesAt(claims, 44237, [65, 97, 133]);
  const keySpki = key === undefined ? undefined : pointSpki(key);
  const keyHash = HASHES.get(claims.get(44240));
  const extensible = claims.get(44239);
  if (challenge === undefined || initialMeasurement === undefined || personalization === undefined)
    return wrong('realm: challenge, initial measurement or personalization value is missing or of a wrong length');
  if (key === undefined || keySpki === undefined || keyHash === undefined)
    return wrong('realm: no key as an uncompressed point, or no hash for it');
  if (!Array.isArray(extensible) || extensible.length > 16 || !extensible.every((one) => one instanceof Uint8Array))
    return wrong('realm: extensible measurements');
  return ok({
    platform: { ...platform.value, challenge: platformChallenge },
    realm: {
      ...realm.value,
      ...{ challenge, initialMeasurement, personalization, key, keySpki, keyHash },
      extensibleMeasurements: extensible as readonly Uint8Array[],
    },
    lifecycle,
    implementationId,
    instanceId,
  });
}
