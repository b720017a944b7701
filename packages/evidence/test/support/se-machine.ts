/** Requests, headers and answers of IBM Secure Execution, as pvattest and the Ultravisor make them. */
import { createCipheriv } from 'node:crypto';
import { nodeCrypto } from '../../src/node-crypto.ts';
import { readSeHeader } from '../../src/se/exchange.ts';
import { measure } from '../../src/se/verify.ts';
import { must } from './authority.ts';

const crypto = nodeCrypto();
export const KEY = new Uint8Array(32).fill(0x17);
export const M_KEY = new Uint8Array(64).fill(0x77);
export const NONCE = new Uint8Array(16).fill(0xab);
export const CUID = new Uint8Array(16).fill(5);
export const USER = new Uint8Array(64).fill(7);

/** A request as pvattest makes it: flags for nonce, image and attestation host key. */
export function requestBytes(flags = 0x70, hostKey?: Uint8Array): Uint8Array {
  const sealedAt = 48 + 16 + 160 + 80;
  const plain = Buffer.concat([M_KEY, (flags & 0x40) !== 0 ? NONCE : Buffer.alloc(0)]);
  const bytes = Buffer.alloc(sealedAt + plain.length + 16);
  bytes.writeUInt32BE(0x100, 8);
  bytes.writeUInt32BE(bytes.length, 12);
  bytes.fill(0x55, 0x10, 0x1c);
  bytes.writeUInt32BE(1, 0x24);
  bytes.writeUInt32BE(plain.length, 0x2c);
  bytes[0x30] = flags;
  bytes.writeUInt32BE(1, 0x38);
  bytes.fill(3, 0x40, sealedAt);
  if (hostKey !== undefined) bytes.set(hostKey, 48 + 16 + 160);
  const cipher = createCipheriv('aes-256-gcm', KEY, bytes.subarray(0x10, 0x1c));
  cipher.setAAD(bytes.subarray(0, sealedAt));
  Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()]).copy(bytes, sealedAt);
  return bytes;
}

export function headerBytes(fill = 1): Uint8Array {
  const size = 0x40 + 160 + 192 + 80 + 128 + 16;
  const bytes = Buffer.alloc(size, fill);
  bytes.write('IBMSecEx', 'latin1');
  bytes.writeUInt32BE(0x100, 8);
  bytes.writeUInt32BE(size, 12);
  bytes.writeBigUInt64BE(1n, 0x20);
  bytes.writeBigUInt64BE(128n, 0x28);
  return bytes;
}

interface Parts {
  readonly request?: Uint8Array;
  readonly additional?: Uint8Array;
  readonly measurement?: Uint8Array;
  readonly header?: Uint8Array;
  readonly nonce?: Uint8Array;
}
export function responseBytes({
  request = requestBytes(),
  additional = new Uint8Array(64).fill(9),
  nonce = NONCE,
  ...more
}: Parts = {}): Uint8Array {
  const { tags } = must(readSeHeader(more.header ?? headerBytes()));
  const items = { configUid: CUID, user: USER, additional };
  const measurement = more.measurement ?? measure(crypto, { key: M_KEY, nonce }, tags, items);
  const parts = [request, measurement, additional, USER, CUID];
  const bytes = Buffer.alloc(64 + parts.reduce((sum, one) => sum + one.length, 0));
  bytes.write('pvattest', 'latin1');
  bytes.writeUInt32BE(0x100, 8);
  bytes.writeUInt32BE(bytes.length, 12);
  let at = 64;
  for (const [i, part] of parts.entries()) {
    bytes.writeUInt32BE(part.length, 0x18 + 8 * i);
    bytes.writeUInt32BE(at, 0x1c + 8 * i);
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
