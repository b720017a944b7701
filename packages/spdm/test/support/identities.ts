/** Chains and keys of DMTF's samples, which lie beside the emulator. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { encodeCertificateChain } from '../../src/certificate-chain.ts';
import type { SpdmCrypto } from '../../src/crypto.ts';
import { readSigningKey } from '../../src/node-crypto.ts';
import type { RequesterIdentity } from '../../src/requester/connection.ts';
import type { ResponderSlot } from '../../src/responder/state.ts';
import { EMULATOR } from './emulator.ts';

/** The certificates of a bundle, one after the other. */
export function splitBundle(bundle: Uint8Array): Uint8Array[] {
  const certificates: Uint8Array[] = [];
  for (let at = 0; at < bundle.length; ) {
    const size = 4 + (((bundle[at + 2] ?? 0) << 8) | (bundle[at + 3] ?? 0));
    certificates.push(bundle.slice(at, at + size));
    at += size;
  }
  return certificates;
}

/** `folder` is the emulator's name of a key: `ecp384`, `rsa3072`, `mldsa65`. */
export function sampleSlot(folder: string, role: 'requester' | 'responder'): ResponderSlot {
  const bundle = new Uint8Array(readFileSync(join(EMULATOR, folder, `bundle_${role}.certchain.der`)));
  const key = readSigningKey(readFileSync(join(EMULATOR, folder, `end_${role}.key`)));
  if (!key.ok) throw new Error(key.error.message);
  return { certificates: splitBundle(bundle), key: key.value };
}

export function sampleRequester(crypto: SpdmCrypto, folder: string): RequesterIdentity {
  const { certificates, key } = sampleSlot(folder, 'requester');
  const [root] = certificates;
  if (root === undefined) throw new Error('an empty bundle');
  const chain: RequesterIdentity['chain'] = ({ version, hash }) =>
    encodeCertificateChain(crypto, version, hash, root, certificates);
  return { slot: 0, chain, key };
}
