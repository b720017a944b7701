/** `Files` over node:fs, below a root, with a time limit on every call and no way to write where it was not allowed. */

import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, readdir, readlink, rename, rm } from 'node:fs/promises';
import { dirname, join, normalize } from 'node:path';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { type Files, READ_LIMIT } from './files.ts';
import { type HeldCalls, heldCalls } from './held-calls.ts';

export interface NodeFilesOptions {
  /** `/`, or a temporary folder that stands for it. */
  readonly root?: string;
  /** How long one call may take, in milliseconds. */
  readonly timeout?: number;
  /**
   * What may be written when the root is `/`: `nothing` (the default), `state` (only below /run/airlock and
   * /var/lib/airlock), `everything` (an agent that enforces). Below any other root everything may be written.
   */
  readonly writes?: 'nothing' | 'state' | 'everything';
}

/**
 * A time limit is counted in this many ticks of our own event loop, so that time in which this process did not run (a
 * machine that starts up, or is short of processors) is not held against a device.
 */
const TICKS = 10;

const STATE = ['/run/airlock/', '/var/lib/airlock/', '/etc/airlock/'];

export function nodeFiles(options: NodeFilesOptions = {}): Files {
  const root = normalize(options.root ?? '/');
  const timeout = options.timeout ?? 1000;
  const writes = root === '/' ? (options.writes ?? 'nothing') : 'everything';
  const at = (path: string) => join(root, path);

  function writable(path: string): Result<string> {
    const plain = normalize(path);
    if (writes === 'everything' || (writes === 'state' && STATE.some((folder) => plain.startsWith(folder)))) {
      return ok(at(plain));
    }
    return fail('write-forbidden', `${plain}: not written`, {
      hint: 'only an agent started with --enforce writes here',
    });
  }

  const threads = Number(process.env['UV_THREADPOOL_SIZE']) || 4;
  const heldReads = heldCalls(Math.max(1, Math.floor(threads / 8)));
  const heldWrites = heldCalls(Math.max(1, Math.floor(threads / 4)));

  /** As `timed`, for files that a device may hold. Reads of one kind are those of an attribute, writes those to a file. */
  async function timedOnce<T>(
    held: HeldCalls,
    path: string,
    what: string,
    work: () => Promise<Result<T>>,
  ): Promise<Result<T>> {
    const kind = path.slice(path.lastIndexOf('/') + 1);
    const key = `${path} ${what}`;
    const [call, done] = held === heldReads ? ['read', 'read'] : ['write', 'written'];
    const refused = held.refuse(kind, key);
    if (refused === 'again') return fail('file-timeout', `${path}: an earlier ${call} is still not answered`);
    if (refused === 'crowd') {
      return fail('file-timeout', `${path}: not ${done}, too many ${call}s of ${kind} before it were not answered`);
    }
    let over = false;
    const working = work().finally(() => {
      over = true;
    });
    const result = await timed(path, () => working);
    if (!over) held.hold(kind, key, working);
    return result;
  }

  /** Runs `work`, gives up after the time limit. The thread that the kernel holds is left behind. */
  async function timed<T>(path: string, work: () => Promise<Result<T>>): Promise<Result<T>> {
    let timer: NodeJS.Timeout | undefined;
    let ticks = 0;
    const late = new Promise<Result<T>>((resolve) => {
      timer = setInterval(() => {
        ticks += 1;
        if (ticks >= TICKS) resolve(fail('file-timeout', `${path}: no answer in ${timeout} ms`));
      }, timeout / TICKS);
    });
    try {
      return await Promise.race([work().catch((error: unknown) => fromErrno(path, error)), late]);
    } finally {
      clearInterval(timer);
    }
  }

  async function opened<T>(
    path: string,
    flags: number,
    use: (handle: FileHandle) => Promise<Result<T>>,
  ): Promise<Result<T>> {
    // O_NONBLOCK: a pipe in a lying tree must not hold us; it changes nothing for regular files.
    const handle = await open(at(path), flags | constants.O_NONBLOCK);
    try {
      if (!(await handle.stat()).isFile()) return fail('file-not-regular', `${path}: not a regular file`);
      return await use(handle);
    } finally {
      await handle.close();
    }
  }

  async function readUpTo(handle: FileHandle, offset: number, length: number): Promise<Uint8Array> {
    const chunks: Uint8Array[] = [];
    let total = 0;
    while (total < length) {
      const chunk = new Uint8Array(Math.min(length - total, READ_LIMIT));
      // From the start without a position: files that cannot seek (swiotlb's in debugfs) refuse pread with ESPIPE.
      const { bytesRead } = await handle.read(chunk, 0, chunk.length, offset === 0 ? null : offset + total);
      if (bytesRead === 0) break;
      chunks.push(chunk.subarray(0, bytesRead));
      total += bytesRead;
    }
    return chunks.length === 1 && chunks[0] ? chunks[0] : new Uint8Array(Buffer.concat(chunks));
  }

  return {
    read: (path, limit = READ_LIMIT) =>
      timedOnce(heldReads, path, '', () =>
        opened(path, constants.O_RDONLY, async (handle) => {
          const bytes = await readUpTo(handle, 0, limit + 1);
          return bytes.length > limit ? fail('file-too-large', `${path}: more than ${limit} bytes`) : ok(bytes);
        }),
      ),
    readAt: (path, offset, length) =>
      timedOnce(heldReads, path, '', () =>
        opened(path, constants.O_RDONLY, async (handle) => ok(await readUpTo(handle, offset, length))),
      ),
    list: (path) => timedOnce(heldReads, path, '', async () => ok((await readdir(at(path))).sort())),
    link: (path) => timedOnce(heldReads, path, '', async () => ok(await readlink(at(path)))),
    write: (path, data, offset = 0) =>
      // To one file of a driver the names of many devices are written.
      timedOnce(heldWrites, path, `${offset} ${typeof data === 'string' ? data.slice(0, 256) : ''}`, async () => {
        const allowed = writable(path);
        if (!allowed.ok) return allowed;
        return opened(path, constants.O_WRONLY, async (handle) => {
          const bytes = typeof data === 'string' ? Buffer.from(data) : data;
          try {
            const { bytesWritten } = await handle.write(bytes, 0, bytes.length, offset === 0 ? null : offset);
            return bytesWritten === bytes.length
              ? ok(undefined)
              : fail('file-refused', `${path}: took ${bytesWritten} of ${bytes.length} bytes`);
          } catch (error) {
            return refused(path, error);
          }
        });
      }),
    save: (path, data, mode = 0o644) =>
      timed(path, async () => {
        const allowed = writable(path);
        if (!allowed.ok) return allowed;
        await mkdir(dirname(allowed.value), { recursive: true });
        const beside = `${allowed.value}.new`;
        try {
          const handle = await open(beside, 'w', mode);
          try {
            await handle.writeFile(data);
            await handle.sync();
          } finally {
            await handle.close();
          }
          await rename(beside, allowed.value);
        } catch (error) {
          await rm(beside, { force: true });
          throw error;
        }
        return ok(undefined);
      }),
    append: (path, data) =>
      timed(path, async () => {
        const allowed = writable(path);
        if (!allowed.ok) return allowed;
        await mkdir(dirname(allowed.value), { recursive: true });
        const handle = await open(allowed.value, 'a', 0o640);
        try {
          await handle.writeFile(data);
        } finally {
          await handle.close();
        }
        return ok(undefined);
      }),
  };
}

function errnoName(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'unknown';
}

function fromErrno(path: string, error: unknown): Result<never> {
  const name = errnoName(error);
  if (name === 'ENOENT' || name === 'ENOTDIR' || name === 'ENODEV') return fail('file-missing', `${path}: ${name}`);
  if (name === 'EACCES' || name === 'EPERM') return fail('file-denied', `${path}: ${name}`);
  if (name === 'ENXIO') return fail('file-not-regular', `${path}: ${name}`);
  return fail('file-io', `${path}: ${name}`);
}

function refused(path: string, error: unknown): Result<never> {
  const name = errnoName(error);
  if (name === 'EACCES' || name === 'EPERM') return fail('file-denied', `${path}: ${name}`);
  return fail('file-refused', `${path}: ${name}`);
}
