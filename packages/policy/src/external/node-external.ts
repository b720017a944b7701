/** From the `external` section of a policy to an engine that is ready to be asked. */
import { createPublicKey } from 'node:crypto';
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { resolve } from 'node:path';
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import type { OpaBundle } from '../policy.ts';
import { BUNDLE_LIMITS } from './bundle.ts';
import { type ExternalEngine, refusingEngine } from './engine.ts';
import { openBundle } from './node-opa.ts';
import type { SignatureAlgorithm, Verification } from './signatures.ts';

const KEY_LIMIT = 65_536;

export interface OpenedEngine {
  /** Usable in any case: where `problem` is set, it denies. */
  readonly engine: ExternalEngine;
  readonly problem: Problem | null;
}

/**
 * The engine of a policy. Paths are relative to `folder`, that of the policy file. Codes of the problem:
 * `external-file-unreadable` and those of `openBundle`; it stands at the policy's `external` section.
 */
export async function openExternal(external: OpaBundle, folder: string): Promise<OpenedEngine> {
  const opened = await openNamed(external, folder);
  if (opened.ok) return { engine: opened.value, problem: null };
  const problem = { at: external.at, ...opened.error };
  return { engine: refusingEngine(`opa ${external.entrypoint}`, problem), problem };
}

async function openNamed(external: OpaBundle, folder: string): Promise<Result<ExternalEngine>> {
  const bytes = await readFile(resolve(folder, external.path), BUNDLE_LIMITS.packedBytes, 'the bundle');
  if (!bytes.ok) return bytes;
  let verify: Verification | null = null;
  if (external.verify !== undefined) {
    const { key: path, algorithm, scope } = external.verify;
    const key = await readFile(resolve(folder, path), KEY_LIMIT, 'the verification key');
    if (!key.ok) return key;
    verify = {
      key: { key: key.value, algorithm: (algorithm as SignatureAlgorithm | undefined) ?? usualAlgorithm(key.value) },
      now: Math.floor(Date.now() / 1000),
      ...(scope === undefined ? {} : { scope }),
    };
  }
  return openBundle(bytes.value, { entrypoint: external.entrypoint, verify, timeout: external.timeout });
}

/** The algorithm that such a key signs with when nobody says otherwise; decided by the key alone, never by the token. */
function usualAlgorithm(key: Uint8Array): SignatureAlgorithm {
  const text = Buffer.from(key).toString('latin1');
  if (!text.includes('-----BEGIN ')) return 'HS256';
  try {
    const { asymmetricKeyType, asymmetricKeyDetails } = createPublicKey(text);
    if (asymmetricKeyType === 'ed25519') return 'EdDSA';
    if (asymmetricKeyType !== 'ec') return 'RS256';
    const curve = asymmetricKeyDetails?.namedCurve;
    return curve === 'secp384r1' ? 'ES384' : curve === 'secp521r1' ? 'ES512' : 'ES256';
  } catch {
    return 'RS256'; // whose import then says that the key is malformed
  }
}

/** A regular file of at most `limit` bytes; a pipe or a device would hold us. */
async function readFile(path: string, limit: number, what: string): Promise<Result<Uint8Array>> {
  const unreadable = (why: string) => fail('external-file-unreadable', `${what} ${JSON.stringify(path)} ${why}`);
  try {
    // Opening a pipe must not wait for its writer.
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const stat = await file.stat();
      const { size } = stat;
      if (!stat.isFile()) return unreadable('is not a regular file');
      if (size > limit) return unreadable(`has ${size} bytes; at most ${limit} are read`);
      const bytes = new Uint8Array(size);
      const { bytesRead } = await file.read(bytes, 0, size, 0);
      return bytesRead === size ? ok(bytes) : unreadable('changed while it was read');
    } finally {
      await file.close();
    }
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'an unknown error';
    return unreadable(code === 'ENOENT' ? 'is not there' : `cannot be read (${code})`);
  }
}
