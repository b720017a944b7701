/** Arm CCA tokens of a made-up platform, with real signatures. */
import { createHash, sign } from 'node:crypto';
import { type Signer, signer } from './authority.ts';
import { cbor, type Value } from './cbor.ts';

export function sign1(payload: Uint8Array, by: Signer): Uint8Array {
  const header = cbor(new Map([[1, -35]]));
  const signature = sign('sha384', cbor(['Signature1', header, new Uint8Array(), payload]), {
    key: by.key,
    dsaEncoding: 'ieee-p1363',
  });
  return cbor({ tag: 18, value: [header, new Map(), payload, new Uint8Array(signature)] });
}

export const cpak = signer('platform');
export const rak = signer('realm');
export interface TokenOptions {
  /** 64 bytes. */
  readonly challenge?: Uint8Array;
  readonly lifecycle?: number;
  readonly bound?: Uint8Array;
  readonly platformBy?: Signer;
  readonly realmBy?: Signer;
  readonly keyHash?: string;
  readonly profile?: string | null;
  /** Instead of the point of `rak`. */
  readonly realmKey?: Uint8Array;
  /** More claims, or others. */
  readonly platformClaims?: readonly (readonly [number, Value])[];
  readonly realmClaims?: readonly (readonly [number, Value])[];
  /** 399, or 907 with each token in a record. */
  readonly tag?: number;
}
/** RMM 2.0: the type of a CWT, and the token. */
const wrapped = (token: Uint8Array, tag: number): Value => (tag === 907 ? [263, token] : token);
const PROFILE = 'http://arm.com/CCA-SSD/1.0.0';
/** A token of the platform `cpak` and the realm `rak`, whose initial measurement is 48 times 8. */
export function token({
  challenge = new Uint8Array(64).fill(5),
  lifecycle = 0x3003,
  bound,
  platformBy = cpak,
  realmBy = rak,
  keyHash = 'sha-256',
  profile = PROFILE,
  realmKey,
  platformClaims = [],
  realmClaims = [],
  tag = 399,
}: TokenOptions = {}): Uint8Array {
  const point = rak.spki.subarray(-97);
  const platform = new Map<number, Value>([
    ...(profile === null ? [] : ([[265, profile]] as const)),
    [10, bound ?? new Uint8Array(createHash('sha256').update(point).digest())],
    [2396, new Uint8Array(32)],
    [256, new Uint8Array(33)],
    [2395, lifecycle],
    ...platformClaims,
  ]);
  const realm = new Map<number, Value>([
    [10, challenge],
    [44235, new Uint8Array(64)],
    [44238, new Uint8Array(48).fill(8)],
    [44239, [new Uint8Array(48), new Uint8Array(48)]],
    [44236, 'sha-384'],
    [44237, realmKey ?? point],
    [44240, keyHash],
    ...realmClaims,
  ]);
  const collection = new Map<number, Value>([
    [44234, wrapped(sign1(cbor(platform), platformBy), tag)],
    [44241, wrapped(sign1(cbor(realm), realmBy), tag)],
  ]);
  return cbor({ tag, value: collection });
}
