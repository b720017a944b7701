/** `airlock gate initrd`: an initramfs whose first program is the gate. The same input gives the same bytes. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import { decodePolicy } from '@airlock/policy/decode.ts';
import { packDocuments } from '@airlock/policy/document.ts';
import { loadPolicy } from '@airlock/policy/node-source.ts';
import type { Mode, Policy } from '@airlock/policy/policy.ts';
import {
  FILE_CHARACTER,
  FILE_LINK,
  FILE_REGULAR,
  FILE_TYPE,
  file,
  folder,
  link,
  type NewEntry,
  writeCpio,
} from './cpio.ts';
import { AIRLOCK_INIT_TOP, type InitramfsKind, initScript, MOUNT_TABLE, withAirlockFirst } from './init-script.ts';
import { type Initramfs, linkTarget, readInitramfs, resolveEntry, type Segment } from './initramfs.ts';
import { nodeDecompress } from './node-decompress.ts';
import { buildGate, cacheFolder, toolTree } from './node-gate-binary.ts';
import { findKernel } from './node-kernel.ts';
import { minimalEntries } from './node-minimal.ts';

export interface InitrdRequest {
  /** Path of the policy's main file. */
  readonly policy: string;
  /** A series of the cache, a release, or a path (`findKernel`); needed when there is no `initrd`. */
  readonly kernel?: string;
  /** Path of an existing initramfs; without it a minimal one is made. */
  readonly initrd?: string;
  /** Instead of the policy's own mode. */
  readonly mode?: Mode;
  /** More modules for a minimal initramfs. */
  readonly modules?: readonly string[];
  readonly cache?: string;
}

export interface GatedInitrd {
  readonly bytes: Uint8Array;
  /** SHA-256 of all bytes, hexadecimal: what a launch measurement of this initramfs covers. */
  readonly digest: string;
  /** Of these bytes, what the gate added. */
  readonly added: number;
  readonly gate: { readonly bytes: number; readonly digest: string };
  readonly policy: Policy;
  readonly mode: Mode;
  readonly kind: InitramfsKind | 'minimal';
  /** Of the initramfs that was given. */
  readonly segments: readonly Segment[];
}

export type InitrdResult =
  | { readonly initrd: GatedInitrd; readonly problems: readonly Problem[] }
  | { readonly initrd?: undefined; readonly problems: readonly Problem[] };

/** The names of the gate's own parts in the archive. */
const OWN = 'airlock';

/**
 * Policy first: with a problem in it nothing is made. Codes: those of the policy, `policy-refused`, `initrd-*`,
 * `cpio-*`, `kernel-missing`, `module-missing`, `build-*`.
 */
export async function makeInitrd(request: InitrdRequest): Promise<InitrdResult> {
  const loaded = await loadPolicy(request.policy);
  const decoded = loaded.problems.length > 0 ? { problems: [] } : decodePolicy(loaded.documents);
  const problems = [...loaded.problems, ...decoded.problems];
  const policy = decoded.policy;
  if (policy === undefined || problems.length > 0) return { problems };
  const anchors = readAnchors(dirname(request.policy), policy);
  if (!anchors.ok) return { problems: [anchors.error] };
  const made = await assemble(request, policy, { packed: packDocuments(loaded.documents), anchors: anchors.value });
  return made.ok ? { initrd: made.value, problems: [] } : { problems: [made.error] };
}

/** One file that rules name in `roots` or `measurements`. */
interface Anchor {
  readonly name: string;
  readonly data: Uint8Array;
}

const ANCHOR_LIMIT = 4 * 1024 * 1024;

/**
 * Whoever could change them could vouch for any device: they are measured with the policy, and the agent takes them from
 * there. Code: `initrd-anchor-missing`.
 */
function readAnchors(beside: string, { rules }: Policy): Result<readonly Anchor[]> {
  const named = rules.flatMap(({ id, require }) =>
    [...(require?.roots ?? []), ...(require?.measurements ?? [])].map((name) => ({ id, name })),
  );
  const anchors = new Map<string, Anchor>();
  for (const { id, name } of named) {
    if (anchors.has(name)) continue;
    const path = join(beside, name);
    const missing = (why: string) =>
      fail('initrd-anchor-missing', `${path}: ${why}; rule ${id} names it`, { hint: 'it belongs beside the policy' });
    try {
      const data = readFileSync(path);
      if (data.length > ANCHOR_LIMIT) return missing(`larger than ${ANCHOR_LIMIT} bytes`);
      anchors.set(name, { name, data });
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? String(error.code) : 'unreadable';
      return missing(code === 'ENOENT' ? 'no such file' : code);
    }
  }
  return ok([...anchors.values()]);
}

async function assemble(
  request: InitrdRequest,
  policy: Policy,
  { packed, anchors }: { readonly packed: string; readonly anchors: readonly Anchor[] },
): Promise<Result<GatedInitrd>> {
  const cache = request.cache ?? cacheFolder();
  const tree = toolTree(cache);
  const busybox = join(tree, 'usr/bin/busybox');
  if (!existsSync(busybox)) {
    return fail('build-tool-missing', `${busybox} is not there`, { hint: 'make setup-guests fetches it' });
  }
  const gate = await buildGate({ cache });
  if (!gate.ok) return gate;
  const shell = readFileSync(busybox);

  const base = await baseOf(request, tree, cache);
  if (!base.ok) return base;
  const { bytes: before, initramfs, kind } = base.value;
  const real = realInit(initramfs);
  if (!real.ok) return real;
  const mode = request.mode ?? policy.mode;

  const entries: NewEntry[] = [];
  const has = (path: string) => initramfs.entries.has(path);
  for (const path of ['proc', 'sys', 'run']) if (!has(path)) entries.push(folder(path));
  if (!has('dev')) entries.push(folder('dev'));
  // The gate mounts no /dev: what is put before the real init must not differ from what it expects there.
  if (!has('dev/console')) entries.push(character('dev/console', 5, 1, 0o600));
  if (!has('dev/null')) entries.push(character('dev/null', 1, 3, 0o666));
  entries.push(
    folder(OWN, 0o700),
    file(`${OWN}/busybox`, shell, 0o755),
    file(`${OWN}/gate`, readFileSync(gate.value.path), 0o755),
    file(`${OWN}/base`, text(`${before.length}\n`)),
    file(`${OWN}/mounts`, text(MOUNT_TABLE)),
    file(`${OWN}/policy.json`, new TextEncoder().encode(packed), 0o600),
    ...(anchors.length === 0 ? [] : [folder(`${OWN}/anchors`, 0o700)]),
    ...anchors.map(({ name, data }) => file(`${OWN}/anchors/${name}`, data, 0o600)),
    ...(request.mode === undefined ? [] : [file(`${OWN}/mode`, text(`${request.mode}\n`))]),
    ...real.value.map((entry) => ({ ...entry, path: `${OWN}/init` })),
    file('init', text(initScript({ kind: kind === 'minimal' ? 'other' : kind, mode })), 0o755),
  );
  if (kind === 'initramfs-tools') {
    const order = initramfs.entries.get('scripts/init-top/ORDER');
    entries.push(
      file('scripts/init-top/airlock', text(AIRLOCK_INIT_TOP), 0o755),
      file('scripts/init-top/ORDER', text(withAirlockFirst(order === undefined ? '' : latin(order.data)))),
    );
  }
  const segment = writeCpio(entries);
  if (!segment.ok) return segment;
  // Zero bytes between the archives: decompressors of the kernel need to see where theirs ends (lz4: four of them).
  const at = Math.ceil((before.length + (before.length === 0 ? 0 : 8)) / 512) * 512;
  const bytes = new Uint8Array(at + segment.value.length);
  bytes.set(before);
  bytes.set(segment.value, at);
  return ok({
    bytes,
    digest: createHash('sha256').update(bytes).digest('hex'),
    added: bytes.length - before.length,
    gate: { bytes: gate.value.bytes, digest: gate.value.digest },
    policy,
    mode,
    kind,
    segments: initramfs.segments,
  });
}

interface Base {
  readonly bytes: Uint8Array;
  readonly initramfs: Initramfs;
  readonly kind: InitramfsKind | 'minimal';
}

async function baseOf(request: InitrdRequest, tree: string, cache: string): Promise<Result<Base>> {
  if (request.initrd !== undefined) {
    let bytes: Uint8Array;
    try {
      bytes = readFileSync(request.initrd);
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? String(error.code) : 'unreadable';
      return fail('initrd-malformed', `${request.initrd}: ${code === 'ENOENT' ? 'no such file' : code}`);
    }
    const initramfs = await withoutGate(bytes, tree);
    if (!initramfs.ok) {
      return fail(initramfs.error.code, `${request.initrd}: ${initramfs.error.message}`, initramfs.error);
    }
    return ok({ ...initramfs.value, kind: kindOf(initramfs.value.initramfs) });
  }
  if (request.kernel === undefined) return fail('kernel-missing', 'neither an initramfs nor a kernel was named');
  const kernel = findKernel(request.kernel, cache);
  if (!kernel.ok) return kernel;
  const entries = await minimalEntries(kernel.value, request.modules ?? [], tree);
  if (!entries.ok) return entries;
  const bytes = writeCpio(entries.value);
  if (!bytes.ok) return bytes;
  const initramfs = await readInitramfs(bytes.value, nodeDecompress(tree));
  return initramfs.ok ? ok({ bytes: bytes.value, initramfs: initramfs.value, kind: 'minimal' }) : initramfs;
}

/** An initramfs that has a gate already, as it was before: the gate's part says how long that was. */
async function withoutGate(bytes: Uint8Array, tree: string): Promise<Result<Omit<Base, 'kind'>>> {
  const initramfs = await readInitramfs(bytes, nodeDecompress(tree));
  if (!initramfs.ok) return initramfs;
  const base = initramfs.value.entries.get(`${OWN}/base`);
  if (base === undefined) return ok({ bytes, initramfs: initramfs.value });
  const length = /^(\d{1,12})\n$/.exec(latin(base.data))?.[1];
  if (length === undefined || Number(length) >= bytes.length) {
    return fail('initrd-malformed', 'what its gate says of the initramfs before it is not so');
  }
  return withoutGate(bytes.subarray(0, Number(length)), tree);
}

function kindOf(initramfs: Initramfs): InitramfsKind {
  if (initramfs.entries.has('scripts/functions') && initramfs.entries.has('conf/initramfs.conf'))
    return 'initramfs-tools';
  const init = resolveEntry(initramfs.entries, 'init');
  return init?.path.endsWith('systemd/systemd') || initramfs.entries.has('etc/initrd-release') ? 'systemd' : 'other';
}

/** What /init was, as one entry for /airlock/init. */
function realInit(initramfs: Initramfs): Result<NewEntry[]> {
  const path = 'init';
  const entry = initramfs.entries.get(path);
  const target = resolveEntry(initramfs.entries, path);
  if (entry === undefined || target === undefined || (target.mode & FILE_TYPE) !== FILE_REGULAR) {
    return fail('initrd-without-init', 'it has no /init that could be run after the gate');
  }
  if ((entry.mode & FILE_TYPE) === FILE_LINK) {
    const written = linkTarget(entry);
    // It stands one folder deeper now.
    return ok([link('init', written.startsWith('/') ? written : `/${written}`)]);
  }
  return ok([{ path: 'init', mode: FILE_REGULAR | 0o755 | (entry.mode & 0o7777), data: entry.data }]);
}

function character(path: string, major: number, minor: number, mode: number): NewEntry {
  return { path, mode: FILE_CHARACTER | mode, device: { major, minor } };
}

function text(value: string): Uint8Array {
  return Uint8Array.from(value, (one) => one.charCodeAt(0) & 0xff);
}

function latin(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('latin1');
}
