/**
 * An initramfs as the kernel unpacks it: cpio archives and compressed streams of them one after another, zero bytes
 * between them (init/initramfs.c, unpack_to_rootfs). Pure; decompression is passed in.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { type CpioEntry, FILE_LINK, FILE_REGULAR, FILE_TYPE, isCpio, readCpio } from './cpio.ts';

export const COMPRESSIONS = ['gzip', 'zstd', 'xz', 'lzma', 'lz4', 'bzip2', 'lzo'] as const;
export type Compression = (typeof COMPRESSIONS)[number];

/** lib/decompress.c, and the frame formats' own documents. */
const MAGICS: readonly (readonly [Compression, readonly number[]])[] = [
  ['gzip', [0x1f, 0x8b]],
  ['zstd', [0x28, 0xb5, 0x2f, 0xfd]],
  ['xz', [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
  ['lz4', [0x02, 0x21, 0x4c, 0x18]],
  ['bzip2', [0x42, 0x5a, 0x68]],
  ['lzo', [0x89, 0x4c, 0x5a, 0x4f]],
  ['lzma', [0x5d, 0x00, 0x00]],
];

export interface Unpacked {
  readonly data: Uint8Array;
  /** Bytes of the input that the stream took; the rest may be another archive. */
  readonly consumed: number;
}
export type Decompress = (compression: Compression, bytes: Uint8Array) => Promise<Result<Unpacked>>;

export interface Segment {
  readonly compression: Compression | 'none';
  /** Offset in the initramfs. */
  readonly at: number;
  readonly bytes: number;
  readonly entries: number;
}

export interface Initramfs {
  readonly segments: readonly Segment[];
  /** By path, as they stand after all segments were unpacked: the last one counts. */
  readonly entries: ReadonlyMap<string, CpioEntry>;
}

const SEGMENT_LIMIT = 64;

export function compressionAt(bytes: Uint8Array, at: number): Compression | undefined {
  return MAGICS.find(([, magic]) => magic.every((byte, i) => bytes[at + i] === byte))?.[0];
}

/**
 * Every entry of an initramfs. Codes: `initrd-malformed`, `initrd-compression`, `cpio-malformed`, `cpio-too-large`.
 */
export async function readInitramfs(bytes: Uint8Array, decompress: Decompress): Promise<Result<Initramfs>> {
  const segments: Segment[] = [];
  const entries = new Map<string, CpioEntry>();
  const inodes = new Map<string, Uint8Array>();
  for (let at = 0; ; ) {
    while (at < bytes.length && bytes[at] === 0) at++;
    if (at >= bytes.length) break;
    if (segments.length >= SEGMENT_LIMIT) return fail('initrd-malformed', `more than ${SEGMENT_LIMIT} archives`);
    if (isCpio(bytes, at)) {
      if (at % 4 !== 0) return fail('initrd-malformed', `an archive at byte ${at}, which is not a multiple of 4`);
      const archive = readCpio(bytes, at);
      if (!archive.ok) return archive;
      merge(archive.value.entries, entries, inodes, `${segments.length}`);
      segments.push({
        compression: 'none',
        at,
        bytes: archive.value.end - at,
        entries: archive.value.entries.length,
      });
      at = archive.value.end;
      continue;
    }
    const compression = compressionAt(bytes, at);
    if (compression === undefined) {
      return fail('initrd-malformed', `at byte ${at}: neither a cpio archive nor a compression that is known`);
    }
    const stream = await decompress(compression, bytes.subarray(at));
    if (!stream.ok) return stream;
    if (stream.value.consumed <= 0) return fail('initrd-malformed', `at byte ${at}: an empty ${compression} stream`);
    const inner = readArchives(stream.value.data, entries, inodes, segments.length);
    if (!inner.ok) return inner;
    segments.push({ compression, at, bytes: stream.value.consumed, entries: inner.value });
    at += stream.value.consumed;
  }
  return segments.length === 0 ? fail('initrd-malformed', 'it is empty') : ok({ segments, entries });
}

/** All archives of one decompressed stream. */
function readArchives(
  data: Uint8Array,
  entries: Map<string, CpioEntry>,
  inodes: Map<string, Uint8Array>,
  segment: number,
): Result<number> {
  let count = 0;
  for (let at = 0, archives = 0; ; archives++) {
    while (at < data.length && data[at] === 0) at++;
    if (at >= data.length) return archives === 0 ? fail('initrd-malformed', 'a stream without an archive') : ok(count);
    if (archives >= SEGMENT_LIMIT) return fail('initrd-malformed', `more than ${SEGMENT_LIMIT} archives in a stream`);
    const archive = readCpio(data, at);
    if (!archive.ok) return archive;
    merge(archive.value.entries, entries, inodes, `${segment}.${archives}`);
    count += archive.value.entries.length;
    at = archive.value.end;
  }
}

/** Hard links: only one of the names carries the data, the others have none. */
function merge(
  from: readonly CpioEntry[],
  into: Map<string, CpioEntry>,
  inodes: Map<string, Uint8Array>,
  archive: string,
): void {
  for (const entry of from) {
    if (entry.links > 1 && (entry.mode & FILE_TYPE) === FILE_REGULAR && entry.data.length > 0) {
      inodes.set(`${archive}:${entry.inode}`, entry.data);
    }
  }
  for (const entry of from) {
    const shared = entry.links > 1 && entry.data.length === 0 ? inodes.get(`${archive}:${entry.inode}`) : undefined;
    into.set(entry.path, shared === undefined ? entry : { ...entry, data: shared });
  }
}

/** The entry at a path with symbolic links followed, as the kernel would when it runs it; undefined when there is none. */
export function resolveEntry(entries: ReadonlyMap<string, CpioEntry>, path: string): CpioEntry | undefined {
  let parts = path.split('/').filter((part) => part !== '' && part !== '.');
  for (let hops = 0; hops < 40; hops++) {
    let at = '';
    let again: string[] | undefined;
    for (const [i, part] of parts.entries()) {
      const next = at === '' ? part : `${at}/${part}`;
      const entry = entries.get(next);
      if (entry !== undefined && (entry.mode & FILE_TYPE) === FILE_LINK) {
        again = [...normalize(linkTarget(entry), at), ...parts.slice(i + 1)];
        break;
      }
      at = next;
    }
    if (again === undefined) return entries.get(at);
    parts = normalize(again.join('/'), '');
  }
  return undefined;
}

export function linkTarget(entry: CpioEntry): string {
  let text = '';
  for (const byte of entry.data.subarray(0, 4096)) text += String.fromCharCode(byte);
  return text;
}

function normalize(target: string, base: string): string[] {
  const parts = target.startsWith('/') ? [] : base.split('/').filter((part) => part !== '');
  for (const part of target.split('/')) {
    if (part === '' || part === '.') continue;
    if (part === '..') parts.pop();
    else parts.push(part);
  }
  return parts;
}
