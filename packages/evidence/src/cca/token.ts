/**
 * Arm CCA attestation tokens: a platform token and a realm token. Arm RMM specification 1.0 and 2.0, A7.2;
 * draft-ffm-rats-cca-token-00 to -04.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { concat, fromHex } from '../bytes.ts';
import { type Cbor, isTag, readCbor } from '../cbor.ts';
import { type CoseSign1, readCoseSign1 } from '../cose.ts';
import type { Hash } from '../crypto.ts';

/** A map of tokens; since RMM 2.0 of wrapped ones (CMW), whose type is that of a CWT. */
const COLLECTION = 399;
const WRAPPED = 907;
const CWT_FORMAT = 263;
const CWT_TYPE = /^application\/eat\+cwt(?:;|$)/;
const PROFILE = 265;
const CHALLENGE = 10;
const WORKLOAD_BINDING = 2408;
const COMPONENT_LIMIT = 64;
const PLATFORM = 44234;
const REALM = 44241;

export type Claims = ReadonlyMap<number | string, Cbor>;

/** A part of the platform's firmware. */
export interface CcaComponent {
  readonly type: string | null;
  readonly measurement: Uint8Array;
  readonly version: string | null;
  readonly signer: Uint8Array;
}

export interface CcaToken {
  readonly platform: {
    readonly message: CoseSign1;
    readonly claims: Claims;
    /** What ties the realm to it: the digest of the realm's key. */
    readonly challenge: Uint8Array;
    readonly profile: string;
    /** Empty where the token lists none. */
    readonly components: readonly CcaComponent[];
    readonly configuration: Uint8Array | null;
  };
  readonly realm: {
    readonly message: CoseSign1;
    readonly claims: Claims;
    readonly challenge: Uint8Array;
    readonly initialMeasurement: Uint8Array;
    readonly extensibleMeasurements: readonly Uint8Array[];
    readonly personalization: Uint8Array;
    readonly profile: string | null;
    /** As the token holds it: an uncompressed point, or a COSE_Key. */
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
const PLATFORM_PROFILE = /^(?:http:\/\/arm\.com\/CCA-SSD\/|tag:arm\.com,202[34]:cca_platform#)/;
/** The challenge is then the platform's own, and the realm is bound in a claim of its own. */
const DELEGATED_PROFILE = /^tag:arm\.com,2026:cca_platform#2\.0\.0(?:[;#]delegated)?$/;
const REALM_PROFILE = /^tag:arm\.com,202[346]:realm#/;
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
  if (bytes.length <= 64 || bytes[0] !== 0xd9) return false;
  return [COLLECTION, WRAPPED].includes(((bytes[1] ?? 0) << 8) | (bytes[2] ?? 0));
}

/** Codes: `cca-token-invalid`, `cose-invalid`, `cbor-invalid`. */
export function readCcaToken(bytes: Uint8Array): Result<CcaToken> {
  const wrong = (what: string) => fail('cca-token-invalid', what);
  const read = readCbor(bytes);
  if (!read.ok) return read;
  const outer = isTag(read.value, COLLECTION) || isTag(read.value, WRAPPED) ? read.value.value : null;
  if (!(outer instanceof Map)) return wrong('no collection with tag 399 or 907');
  const collection: Claims = outer;
  const part = (label: number): Result<{ message: CoseSign1; claims: Claims }> => {
    const raw = unwrapped(collection.get(label));
    if (raw === null) return wrong(`no token ${label}`);
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
  const profile = platform.value.claims.get(PROFILE);
  const delegated = typeof profile === 'string' && DELEGATED_PROFILE.test(profile);
  if (typeof profile !== 'string' || (!delegated && !PLATFORM_PROFILE.test(profile)))
    return wrong('platform: no profile of CCA that is known');
  const platformChallenge = bytesAt(platform.value.claims, delegated ? WORKLOAD_BINDING : CHALLENGE, digest);
  const components = componentsOf(platform.value.claims.get(2399));
  const configuration = platform.value.claims.get(2401) ?? null;
  if (components === null || (configuration !== null && !(configuration instanceof Uint8Array)))
    return wrong('platform: software components or configuration');
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
  const realmProfile = claims.get(PROFILE) ?? null;
  if (realmProfile !== null && (typeof realmProfile !== 'string' || !REALM_PROFILE.test(realmProfile)))
    return wrong('realm: a profile that is not that of a realm');
  const named = claims.get(44237);
  const key = named instanceof Uint8Array && named.length <= KEY_LIMIT ? named : undefined;
  const keySpki = key === undefined ? undefined : (pointSpki(key) ?? coseKeySpki(key));
  const keyHash = HASHES.get(claims.get(44240));
  const extensible = claims.get(44239);
  if (challenge === undefined || initialMeasurement === undefined || personalization === undefined)
    return wrong('realm: challenge, initial measurement or personalization value is missing or of a wrong length');
  if (key === undefined || keySpki === undefined || keyHash === undefined)
    return wrong('realm: no key as an uncompressed point or COSE_Key, or no hash for it');
  if (!Array.isArray(extensible) || extensible.length > 16 || !extensible.every((one) => one instanceof Uint8Array))
    return wrong('realm: extensible measurements');
  return ok({
    platform: { ...platform.value, challenge: platformChallenge, profile, components, configuration },
    realm: {
      ...realm.value,
      ...{ profile: realmProfile, challenge, initialMeasurement, personalization, key, keySpki, keyHash },
      extensibleMeasurements: extensible as readonly Uint8Array[],
    },
    lifecycle,
    implementationId,
    instanceId,
  });
}

const KEY_LIMIT = 256;

/** The bytes themselves, or a record of the type of a CWT around them. */
function unwrapped(value: Cbor | undefined): Uint8Array | null {
  if (value instanceof Uint8Array) return value;
  if (!Array.isArray(value) || value.length < 2 || value.length > 3) return null;
  const [type, content] = value as readonly Cbor[];
  const known = type === CWT_FORMAT || (typeof type === 'string' && CWT_TYPE.test(type));
  return known && content instanceof Uint8Array ? content : null;
}

const KTY = 1;
const EC2 = 2;
const CURVE = -1;
/** Bytes of a coordinate, by COSE's number of the curve. */
const CURVES: Readonly<Record<number, number>> = { 1: 32, 2: 48, 3: 66 };

/** COSE_Key (RFC 9052 §7) of an EC point with both coordinates. */
function coseKeySpki(bytes: Uint8Array): Uint8Array | undefined {
  const read = readCbor(bytes);
  const key = read.ok && read.value instanceof Map ? (read.value as Claims) : null;
  const curve = key?.get(CURVE);
  const [x, y] = [key?.get(-2), key?.get(-3)];
  const size = typeof curve === 'number' ? CURVES[curve] : undefined;
  if (key?.get(KTY) !== EC2 || size === undefined || !(x instanceof Uint8Array) || !(y instanceof Uint8Array))
    return undefined;
  return x.length === size && y.length === size ? pointSpki(concat(Uint8Array.of(4), x, y)) : undefined;
}

/** Null for a list that is none. */
function componentsOf(value: Cbor | undefined): readonly CcaComponent[] | null {
  if (value === undefined) return [];
  if (!Array.isArray(value) || value.length > COMPONENT_LIMIT) return null;
  const components: CcaComponent[] = [];
  for (const one of value as readonly Cbor[]) {
    const [type, measurement, version, signer] =
      one instanceof Map ? [1, 2, 4, 5].map((label) => (one as Claims).get(label)) : [];
    const digests = [measurement, signer].filter(
      (part) => part instanceof Uint8Array && [32, 48, 64].includes(part.length),
    );
    const texts = [type, version].every(
      (part) => part === undefined || (typeof part === 'string' && part.length <= 256),
    );
    if (digests.length !== 2 || !texts) return null;
    components.push({
      type: typeof type === 'string' ? type : null,
      measurement: measurement as Uint8Array,
      version: typeof version === 'string' ? version : null,
      signer: signer as Uint8Array,
    });
  }
  return components;
}
