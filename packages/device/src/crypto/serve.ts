/** `airlock device serve crypto`: AES-CBC by this machine's OpenSSL. */
import { createCipheriv, createDecipheriv } from 'node:crypto';
import { ok } from '@airlock/core/result.ts';
import { servedModel } from '../model/serve.ts';
import { type AesCbc, cryptoModel } from './device.ts';

/** Node's own, which asks OpenSSL. */
export const aesCbc: AesCbc = (encrypts, key, iv, from, into) => {
  try {
    const name = `aes-${key.length * 8}-cbc`;
    const cipher = (encrypts ? createCipheriv : createDecipheriv)(name, key, iv).setAutoPadding(false);
    const bytes = cipher.update(from);
    into.set(bytes);
    into.set(cipher.final(), bytes.length);
    return true;
  } catch {
    return false;
  }
};

export const served = servedModel({
  summary: 'a crypto accelerator: AES-CBC with sessions',
  options: {},
  prepare: () => ok({ describe: () => 'AES-CBC', make: () => ok(cryptoModel(aesCbc)) }),
});
