/**
 * Compiled OPA bundles: a gzipped tar with `policy.wasm`, `.manifest`, `data.json`, the Rego it was made from, and
 * `.signatures.json` when it was signed. https://www.openpolicyagent.org/docs/management-bundles#bundle-file-format
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { canonicalJson } from './canonical-json.ts';
import { readTar } from './tar.ts';
import { checkWasm } from './wasm-shape.ts';

export const BUNDLE_LIMITS = {
  /** As it lies on the disk. */
  packedBytes: 16 << 20,
  /** All of it unpacked. */
  unpackedBytes: 64 << 20,
  /** Any one file. */
  fileBytes: 32 << 20,
  files: 1000,
  entrypoints: 1000,
} as const;

export const SIGNATURES = '.signatures.json';
const MANIFEST = '.manifest';
const DATA = 'data.json';
const WASM = 'policy.wasm';
/** Files whose JSON is signed, not their bytes (OPA: "structured documents"). */
export const STRUCTURED: readonly string[] = [MANIFEST, DATA];

/** All of a gzip file, at most `limit` bytes. Codes: `bundle-unreadable`, `bundle-too-large`. */
export type Gunzip = (bytes: Uint8Array, limit: number) => Promise<Result<Uint8Array>>;

export interface Bundle {
  /** Everything in it, by path. */
  readonly files: ReadonlyMap<string, Uint8Array>;
  readonly wasm: Uint8Array;
  /** data.json in canonical form; `{}` when there is none. */
  readonly data: string;
  readonly revision: string;
  /** `airlock/narrow` */
  readonly entrypoints: readonly string[];
}

/**
 * The whole bundle, not yet verified. Codes: `bundle-unreadable`, `bundle-too-large`, `bundle-malformed`,
 * `bundle-entry-forbidden`, `bundle-incomplete`, `bundle-json-malformed`, `bundle-wasm-malformed`.
 */
export async function readBundle(bytes: Uint8Array, gunzip: Gunzip): Promise<Result<Bundle>> {
  if (bytes.length > BUNDLE_LIMITS.packedBytes) {
    return fail(
      'bundle-too-large',
      `the bundle has ${bytes.length} bytes; at most ${BUNDLE_LIMITS.packedBytes} are read`,
    );
  }
  const unpacked = await gunzip(bytes, BUNDLE_LIMITS.unpackedBytes);
  if (!unpacked.ok) return unpacked;
  const files = readTar(unpacked.value, BUNDLE_LIMITS);
  if (!files.ok) return files;
  for (const path of files.value.keys()) {
    const known = [WASM, MANIFEST, DATA, SIGNATURES].includes(path) || path.endsWith('.rego');
    if (!known) {
      return fail('bundle-entry-forbidden', `the bundle holds ${path}`, {
        hint: 'make it with `opa build -t wasm`, which merges data into one data.json',
      });
    }
  }
  const wasm = files.value.get(WASM);
  const manifest = files.value.get(MANIFEST);
  if (wasm === undefined || manifest === undefined) {
    return fail('bundle-incomplete', `the bundle has no ${wasm === undefined ? WASM : MANIFEST}`, {
      hint: 'build it with `opa build -t wasm -e airlock/narrow`',
    });
  }
  const shape = checkWasm(wasm);
  if (!shape.ok) return shape;
  const described = readManifest(manifest);
  if (!described.ok) return described;
  const data = canonicalJson(files.value.get(DATA) ?? new Uint8Array([0x7b, 0x7d]), DATA);
  if (!data.ok) return data;
  if (!data.value.startsWith('{')) return fail('bundle-json-malformed', `${DATA} is not an object`);
  return ok({ files: files.value, wasm, data: data.value, ...described.value });
}

function readManifest(bytes: Uint8Array): Result<Pick<Bundle, 'revision' | 'entrypoints'>> {
  const text = canonicalJson(bytes, MANIFEST);
  if (!text.ok) return text;
  const manifest: unknown = JSON.parse(text.value);
  const malformed = (what: string) => fail('bundle-json-malformed', `${MANIFEST}: ${what}`);
  if (typeof manifest !== 'object' || manifest === null || Array.isArray(manifest)) return malformed('not an object');
  const revision = own(manifest, 'revision') ?? '';
  if (typeof revision !== 'string' || revision.length > 256) return malformed('the revision is not a short text');
  const resolvers = own(manifest, 'wasm') ?? [];
  if (!Array.isArray(resolvers) || resolvers.length > BUNDLE_LIMITS.entrypoints)
    return malformed('"wasm" is not a list');
  const entrypoints: string[] = [];
  for (const resolver of resolvers as unknown[]) {
    if (typeof resolver !== 'object' || resolver === null) return malformed('an entry of "wasm" is not an object');
    const entrypoint = own(resolver, 'entrypoint');
    const module = own(resolver, 'module');
    if (typeof entrypoint !== 'string' || typeof module !== 'string')
      return malformed('an entry of "wasm" lacks a name');
    if (module.replace(/^\//, '') !== WASM)
      return malformed(`entry point ${JSON.stringify(entrypoint)} has another module`);
    entrypoints.push(entrypoint);
  }
  return ok({ revision, entrypoints });
}

/** A key that the object itself has: `__proto__` and `constructor` of others do not count. */
export function own(object: object, key: string): unknown {
  return Object.hasOwn(object, key) ? (object as Readonly<Record<string, unknown>>)[key] : undefined;
}
