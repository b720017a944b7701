/** Keys that a verifier gives on the command line, each for what it was given. */
import type { Found } from '@airlock/evidence/item.ts';
import { isBundle, readBundle } from '@airlock/evidence/machine/bundle.ts';
import { type EarKey, isPrivateKey, readEarKey } from '@airlock/evidence/node-ear.ts';
import { recognise } from '@airlock/evidence/recognise.ts';
import { printable } from '@airlock/linux/attribute.ts';
import { readBytes, texts } from './evidence-input.ts';
import { type Context, UsageError, type Values } from './verb.ts';

export interface TrustedKeys {
  /** `--key`: SubjectPublicKeyInfos of TPMs. */
  readonly trustedKeys: readonly Uint8Array[];
  /** `--platform-key`: of CCA platforms. */
  readonly platformKeys: readonly Uint8Array[];
  /** `--reference-key`: of who signs reference values. */
  readonly referenceKeys: readonly Uint8Array[];
  /** The private key among `--key`, for `--ear`. */
  readonly signing: EarKey | null;
}

/** Throws UsageError. */
export async function readTrustedKeys(context: Context, values: Values): Promise<TrustedKeys> {
  const trustedKeys: Uint8Array[] = [];
  let signing: EarKey | null = null;
  for (const path of texts(values, 'key')) {
    const read = await readBytes(context, path);
    const text = typeof read === 'string' ? '' : Buffer.from(read).toString('latin1');
    if (!isPrivateKey(text)) {
      trustedKeys.push(...publicKeys('--key', path, read, heldBy));
      continue;
    }
    if (values['ear'] !== true) throw new UsageError(`--key ${printable(path)}: a private key, which only --ear needs`);
    if (signing !== null) throw new UsageError('--key: one private key is enough');
    const key = readEarKey(text);
    if (!key.ok) throw new UsageError(`--key ${printable(path)}: ${key.error.message}`);
    signing = key.value;
  }
  const [platformKeys, referenceKeys] = [
    await keysOf(context, values, 'platform-key'),
    await keysOf(context, values, 'reference-key'),
  ];
  return { trustedKeys, platformKeys, referenceKeys, signing };
}

/** Public keys in the files of an option that takes nothing else. Throws UsageError. */
export async function keysOf(context: Context, values: Values, option: string): Promise<readonly Uint8Array[]> {
  const keys: Uint8Array[] = [];
  for (const path of texts(values, option)) {
    const read = await readBytes(context, path);
    keys.push(...publicKeys(`--${option}`, path, read, (name, bytes) => recognise(name, bytes).found));
  }
  return keys;
}

/** At least one. */
function publicKeys(
  option: string,
  path: string,
  read: Uint8Array | string,
  look: (name: string, bytes: Uint8Array) => readonly Found[],
): readonly Uint8Array[] {
  const found = typeof read === 'string' ? [] : look(printable(path), read);
  const keys = found.flatMap(({ item }) => (item.kind === 'public-key' ? [item.spki] : []));
  if (keys.length > 0) return keys;
  throw new UsageError(`${option} ${printable(path)}: ${typeof read === 'string' ? read : 'no RSA or EC public key'}`);
}

/** What a file of the verifier's holds; of a machine that it trusted before, what the VM showed. */
function heldBy(name: string, bytes: Uint8Array): readonly Found[] {
  const text = Buffer.from(bytes).toString('latin1');
  const bundle = isBundle(text) ? readBundle(text) : null;
  if (bundle === null) return recognise(name, bytes).found;
  return bundle.ok ? bundle.value.vm.flatMap((part) => recognise(`${name}: ${part.name}`, part.bytes).found) : [];
}
