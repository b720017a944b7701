/** Arm CCA tokens of a made-up platform, with real signatures. */
import { createHash, sign } from 'node:crypto';
import { cborBytes } from '../../src/cbor.ts';
import { type Signer, signer } from './authority.ts';
import { join } from './der.ts';

export type Value = number | string | Uint8Array | Map<number, Value> | Value[] | { tag: number; value: Value };

function head(major: number, value: number): Uint8Array {
  const top = major << 5;
  if (value < 24) return Uint8Array.of(top | value);
  if (value < 256) return Uint8Array.of(top | 24, value);
  if (value < 65536) return Uint8Array.of(top | 25, value >> 8, value & 0xff);
  return Uint8Array.of(top | 26, value >>> 24, (value >> 16) & 0xff, (value >> 8) & 0xff, value & 0xff);
}
export function cbor(value: Value): Uint8Array {
  if (typeof value === 'number') return value < 0 ? head(1, -1 - value) : head(0, value);
  if (typeof value === 'string') return join(head(3, value.length), Buffer.from(value));
  if (value instanceof Uint8Array) return cborBytes(value);
  if (value instanceof Map)
    return join(head(5, value.size), ...[...value].flatMap(([key, one]) => [cbor(key), cbor(one)]));
  if (Array.isArray(value)) return join(head(4, value.length), ...value.map(cbor));
  return join(head(6, value.tag), cbor(value.value));
}
function sign1(payload: Uint8Array, by: Signer): Uint8Array {
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
}
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
}: TokenOptions = {}): Uint8Array {
  const point = rak.spki.subarray(-97);
  const platform = new Map<number, Value>([
    ...(profile === null ? [] : ([[265, profile]] as const)),
    [10, bound ?? new Uint8Array(createHash('sha256').update(point).digest())],
    [2396, new Uint8Array(32)],
    [256, new Uint8Array(33)],
    [2395, lifecycle],
  ]);
  const realm = new Map<number, Value>([
    [10, challenge],
    [44235, new Uint8Array(64)],
    [44238, new Uint8Array(48).fill(8)],
    [44239, [new Uint8Array(48), new Uint8Array(48)]],
    [44236, 'sha-384'],
    [44237, point],
    [44240, keyHash],
  ]);
  const collection = new Map<number, Value>([
    [44234, sign1(cbor(platform), platformBy)],
    [44241, sign1(cbor(realm), realmBy)],
  ]);
  return cbor({ tag: 399, value: collection });
}
