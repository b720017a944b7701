/** A made-up device as a responder in memory. */
import { doeBinding } from '../../src/doe/binding.ts';
import { ALL_PREFERENCES } from '../../src/negotiate.ts';
import { signingKey } from '../../src/node-crypto.ts';
import { Responder } from '../../src/responder/responder.ts';
import type { ResponderOptions } from '../../src/responder/state.ts';
import { type Device, spdmCrypto } from './device-chain.ts';

export const MEASURED = [
  { index: 1, typeCode: 0, raw: false, value: new Uint8Array(100).fill(7), tcb: true },
  { index: 2, typeCode: 1, raw: false, value: new Uint8Array(100).fill(8), tcb: true },
  { index: 16, typeCode: 7, raw: true, value: Uint8Array.of(7, 0, 0, 0, 0, 0, 0, 0), tcb: true },
];

export function responderOf(device: Device, more: Partial<ResponderOptions> = {}): Responder {
  return new Responder({
    crypto: spdmCrypto,
    binding: doeBinding,
    algorithms: { ...ALL_PREFERENCES, hashes: ['sha384'], signatures: ['ecdsa-p384'], measurementHash: 'sha384' },
    slots: new Map([[0, { certificates: device.chain.certificates, key: signingKey(device.leaf.key) }]]),
    measurements: MEASURED,
    ...more,
  });
}
