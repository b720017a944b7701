/** Decompression of an initramfs: gzip and zstd by Node's zlib, the others by their tools. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync, type InputType, type ZlibOptions, zstdDecompressSync } from 'node:zlib';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { Compression, Decompress, Unpacked } from './initramfs.ts';
import { zstdFrameLength } from './zstd-frame.ts';

/** Decompressed. */
const LIMIT = 2 ** 31 - 1;

const TOOLS: Readonly<Record<string, readonly string[]>> = {
  xz: ['xz', '-dc'],
  lzma: ['xz', '--format=lzma', '-dc'],
  lz4: ['lz4', '-dc'],
  bzip2: ['bzip2', '-dc'],
  lzo: ['lzop', '-dc'],
};

/** `tree`: a folder of programs with their own loader, asked when the machine lacks one. */
export function nodeDecompress(tree?: string): Decompress {
  return async (compression, bytes) => {
    if (compression === 'gzip') return gunzip(bytes);
    if (compression === 'zstd') return unzstd(bytes);
    return byTool(compression, bytes, tree);
  };
}

function gunzip(bytes: Uint8Array): Result<Unpacked> {
  try {
    // Node goes on through further members by itself; what follows them is told by how much it took.
    const { buffer, engine } = withInfo(gunzipSync, bytes, { maxOutputLength: LIMIT });
    return ok({ data: new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.length), consumed: engine.bytesWritten });
  } catch (error) {
    return fail('initrd-compression', `gzip: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** Node's `info` option, which its types do not tell of. */
function withInfo(
  work: (input: InputType, options: ZlibOptions) => Buffer,
  bytes: Uint8Array,
  options: ZlibOptions,
): { buffer: Buffer; engine: { bytesWritten: number } } {
  return work(bytes, { ...options, info: true }) as unknown as { buffer: Buffer; engine: { bytesWritten: number } };
}

function unzstd(bytes: Uint8Array): Result<Unpacked> {
  const consumed = zstdFrameLength(bytes);
  if (consumed === undefined) return fail('initrd-compression', 'zstd: a frame that is cut short or malformed');
  try {
    const data = zstdDecompressSync(bytes.subarray(0, consumed), { maxOutputLength: LIMIT });
    return ok({ data: new Uint8Array(data.buffer, data.byteOffset, data.length), consumed });
  } catch (error) {
    return fail('initrd-compression', `zstd: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** The tool takes everything that is left, so nothing may follow such a stream but zero bytes. */
function byTool(compression: Compression, bytes: Uint8Array, tree: string | undefined): Promise<Result<Unpacked>> {
  const [name = '', ...rest] = TOOLS[compression] ?? [];
  let end = bytes.length;
  while (end > 0 && bytes[end - 1] === 0) end--;
  // Streams may end in zero bytes of their own: put back up to a word.
  const input = bytes.subarray(0, Math.min(bytes.length, (end + 7) & ~3));
  const own = tree === undefined ? undefined : join(tree, 'usr/bin', name);
  const lib = tree === undefined ? '' : join(tree, 'usr/lib/x86_64-linux-gnu');
  const argv =
    own !== undefined && existsSync(own)
      ? [join(lib, 'ld-linux-x86-64.so.2'), '--library-path', lib, own, ...rest]
      : [name, ...rest];
  return new Promise((resolve) => {
    const child = spawn(argv[0] ?? name, argv.slice(1), { stdio: ['pipe', 'pipe', 'pipe'] });
    const chunks: Buffer[] = [];
    let total = 0;
    let words = '';
    child.stdout.on('data', (chunk: Buffer) => {
      total += chunk.length;
      if (total > LIMIT) child.kill('SIGKILL');
      else chunks.push(chunk);
    });
    child.stderr.on('data', (chunk: Buffer) => {
      if (words.length < 1000) words += chunk.toString('latin1');
    });
    child.stdin.on('error', () => undefined);
    child.on('error', () =>
      resolve(
        fail('initrd-compression', `${name} is needed to read an initramfs compressed with ${compression}`, {
          hint: `install ${name}`,
        }),
      ),
    );
    child.on('close', (code) => {
      if (code === 0 && total <= LIMIT) {
        const data = Buffer.concat(chunks);
        resolve(ok({ data: new Uint8Array(data.buffer, data.byteOffset, data.length), consumed: bytes.length }));
      } else {
        resolve(
          fail('initrd-compression', `${compression}: ${words.split('\n')[0] ?? ''} (status ${code ?? 'killed'})`),
        );
      }
    });
    child.stdin.end(input);
  });
}
