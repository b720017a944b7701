/** From a shared secret to the secrets of a session, DSP0274 1.3 §12: what is signed and MACed decides every key. */
import { HASH_SIZE, type HashName, type SpdmVersion, since } from './algorithms.ts';
import type { SpdmCrypto } from './crypto.ts';
import type { RecordSecrets } from './secured/records.ts';
import { binConcat, expand } from './secured/traffic-keys.ts';

export interface ScheduleSuite {
  readonly version: SpdmVersion;
  readonly hash: HashName;
}

export interface HandshakeSecrets {
  /** What the secrets of the data come from. */
  readonly handshake: Uint8Array;
  readonly secrets: RecordSecrets;
  /** Keys of the MACs over the handshake. */
  readonly finished: RecordSecrets;
}

export interface DataSecrets {
  readonly secrets: RecordSecrets;
  /** For protocols beyond SPDM. */
  readonly exportMaster: Uint8Array;
}

/** `shared` is the secret of the exchange, or the PSK. `th1` is the digest of TH1. */
export function handshakeSecrets(
  crypto: SpdmCrypto,
  { version, hash }: ScheduleSuite,
  { shared, psk, th1 }: { shared: Uint8Array; psk: boolean; th1: Uint8Array },
): HandshakeSecrets {
  const size = HASH_SIZE[hash];
  // Salt_0: zeros, but ones for a PSK from 1.3 on.
  const salt = new Uint8Array(size).fill(psk && since(version, '1.3') ? 0xff : 0);
  const handshake = crypto.hmac(hash, salt, shared);
  const derive = (label: string) => expand(crypto, hash, handshake, binConcat(version, size, label, th1), size);
  const secrets = { request: derive('req hs data'), response: derive('rsp hs data') };
  const finish = (secret: Uint8Array) => expand(crypto, hash, secret, binConcat(version, size, 'finished'), size);
  return { handshake, secrets, finished: { request: finish(secrets.request), response: finish(secrets.response) } };
}

/** `th2` is the digest of TH2. */
export function dataSecrets(
  crypto: SpdmCrypto,
  { version, hash }: ScheduleSuite,
  handshake: Uint8Array,
  th2: Uint8Array,
): DataSecrets {
  const size = HASH_SIZE[hash];
  const salt = expand(crypto, hash, handshake, binConcat(version, size, 'derived'), size);
  const master = crypto.hmac(hash, salt, new Uint8Array(size));
  const derive = (label: string) => expand(crypto, hash, master, binConcat(version, size, label, th2), size);
  const secrets = { request: derive('req app data'), response: derive('rsp app data') };
  const exportMaster = derive('exp master');
  salt.fill(0);
  master.fill(0);
  return { secrets, exportMaster };
}
