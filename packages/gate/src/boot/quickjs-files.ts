/**
 * `Files` of the boot gate, over QuickJS's `os`. Calls are synchronous below the promises: the gate is alone on the
 * machine and has one thread. A read or write that the kernel holds for ever holds the boot: nothing is open then that
 * was not allowed.
 */

import * as os from 'quickjs:os';
import * as std from 'quickjs:std';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { type Files, READ_LIMIT } from '@airlock/linux/files.ts';
import { utf8Bytes } from '../utf8.ts';

/** Linux's numbers on every architecture that Node and QuickJS share with confidential VMs (x86-64, arm64, s390x). */
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
const ERRNO: Readonly<Record<number, string>> = {
  1: 'EPERM',
  2: 'ENOENT',
  5: 'EIO',
  6: 'ENXIO',
  11: 'EAGAIN',
  12: 'ENOMEM',
  13: 'EACCES',
  16: 'EBUSY',
  17: 'EEXIST',
  19: 'ENODEV',
  20: 'ENOTDIR',
  21: 'EISDIR',
  22: 'EINVAL',
  28: 'ENOSPC',
  30: 'EROFS',
  40: 'ELOOP',
};

export function errnoName(errno: number): string {
  return ERRNO[errno] ?? `errno ${errno}`;
}

function fromErrno(path: string, errno: number): Result<never> {
  const name = errnoName(errno);
  const message = `${path}: ${name}`;
  if (name === 'ENOENT' || name === 'ENOTDIR' || name === 'ENODEV') return fail('file-missing', message);
  if (name === 'EACCES' || name === 'EPERM') return fail('file-denied', message);
  if (name === 'ENXIO') return fail('file-not-regular', message);
  return fail('file-io', message);
}

/** A whole file as text; what is not UTF-8 becomes U+FFFD. For the gate's own large files. Codes: as `Files.read`. */
export function readTextFile(path: string, limit: number): Result<string> {
  const [stat, errno] = os.stat(path);
  if (stat === null) return fromErrno(path, errno);
  if ((stat.mode & os.S_IFMT) !== os.S_IFREG) return fail('file-not-regular', `${path}: not a regular file`);
  if (stat.size > limit) return fail('file-too-large', `${path}: more than ${limit} bytes`);
  const text = std.loadFile(path);
  return text === null ? fail('file-io', `${path}: not readable`) : ok(text);
}

/** One page: sysfs gives an attribute in one read of this size. */
const PAGE = 4096;

export function quickjsFiles(): Files {
  // One buffer for all reads: nothing keeps a view of it.
  const shared = new ArrayBuffer(PAGE);
  const sharedBytes = new Uint8Array(shared);

  function readFrom(path: string, offset: number, limit: number): Result<Uint8Array> {
    const fd = os.open(path, os.O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return fromErrno(path, -fd);
    let bytes = new Uint8Array(0);
    let total = 0;
    let failed = 0;
    if (offset !== 0) {
      const at = os.seek(fd, offset, std.SEEK_SET);
      if (at < 0) failed = -at;
    }
    while (failed === 0 && total < limit) {
      const count = os.read(fd, shared, 0, Math.min(PAGE, limit - total));
      if (count < 0) failed = -count;
      if (count <= 0) break;
      if (total + count > bytes.length) {
        const grown = new Uint8Array(total === 0 ? count : Math.max(total + count, bytes.length * 2));
        grown.set(bytes);
        bytes = grown;
      }
      bytes.set(sharedBytes.subarray(0, count), total);
      total += count;
    }
    os.close(fd);
    if (failed !== 0) return fromErrno(path, failed);
    return ok(bytes.length === total ? bytes : bytes.slice(0, total));
  }

  /** All of `bytes` in one write(2) for an attribute, in as many as it takes for an ordinary file. */
  function writeTo(path: string, fd: number, bytes: Uint8Array, whole: boolean): Result<void> {
    const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer;
    let done = 0;
    do {
      const count = os.write(fd, buffer, done, bytes.length - done);
      if (count < 0) {
        const denied = count === -1 || count === -13;
        return fail(denied ? 'file-denied' : whole ? 'file-refused' : 'file-io', `${path}: ${errnoName(-count)}`);
      }
      if (whole && count !== bytes.length)
        return fail('file-refused', `${path}: took ${count} of ${bytes.length} bytes`);
      if (count === 0 && bytes.length > 0) return fail('file-io', `${path}: took nothing`);
      done += count;
    } while (done < bytes.length);
    return ok(undefined);
  }

  function makeFolders(path: string): Result<void> {
    const folder = path.slice(0, path.lastIndexOf('/'));
    if (folder === '' || os.stat(folder)[1] === 0) return ok(undefined);
    const above = makeFolders(folder);
    if (!above.ok) return above;
    const made = os.mkdir(folder, folder.startsWith('/run/airlock') ? 0o700 : 0o755);
    return made < 0 && made !== -17 ? fromErrno(folder, -made) : ok(undefined);
  }

  /** Text goes through stdio: QuickJS turns it into UTF-8 in C, a hundred times faster than a loop here would. */
  function ordinary(path: string, flags: number, mode: number, data: string | Uint8Array): Result<void> {
    const folders = makeFolders(path);
    if (!folders.ok) return folders;
    const fd = os.open(path, os.O_WRONLY | os.O_CREAT | O_CLOEXEC | flags, mode);
    if (fd < 0) return fromErrno(path, -fd);
    if (typeof data !== 'string') {
      const written = data.length === 0 ? ok(undefined) : writeTo(path, fd, data, false);
      const closed = os.close(fd);
      return written.ok && closed < 0 ? fromErrno(path, -closed) : written;
    }
    const stream = std.fdopen(fd, 'w');
    if (stream === null) {
      os.close(fd);
      return fail('file-io', `${path}: no stream`);
    }
    stream.puts(data);
    stream.flush();
    const failed = stream.error();
    const closed = stream.close();
    return failed || closed !== 0
      ? fail('file-io', `${path}: ${closed < 0 ? errnoName(-closed) : 'not all was written'}`)
      : ok(undefined);
  }

  return {
    async read(path, limit = READ_LIMIT) {
      const bytes = readFrom(path, 0, limit + 1);
      return bytes.ok && bytes.value.length > limit
        ? fail('file-too-large', `${path}: more than ${limit} bytes`)
        : bytes;
    },
    async readAt(path, offset, length) {
      return readFrom(path, offset, length);
    },
    async list(path) {
      const [names, errno] = os.readdir(path);
      if (errno !== 0) return fromErrno(path, errno);
      return ok(names.filter((name) => name !== '.' && name !== '..').sort());
    },
    async link(path) {
      const [target, errno] = os.readlink(path);
      return errno !== 0 ? fromErrno(path, errno) : ok(target);
    },
    async write(path, data, offset = 0) {
      const fd = os.open(path, os.O_WRONLY | O_NONBLOCK | O_CLOEXEC);
      if (fd < 0) return fromErrno(path, -fd);
      const at = offset === 0 ? 0 : os.seek(fd, offset, std.SEEK_SET);
      const written =
        at < 0 ? fromErrno(path, -at) : writeTo(path, fd, typeof data === 'string' ? utf8Bytes(data) : data, true);
      os.close(fd);
      return written;
    },
    async save(path, data, mode = 0o644) {
      // No fsync: the gate saves only to /run, which is memory.
      const beside = `${path}.new`;
      const written = ordinary(beside, os.O_TRUNC, mode, data);
      if (!written.ok) {
        os.remove(beside);
        return written;
      }
      const renamed = os.rename(beside, path);
      return renamed < 0 ? fromErrno(path, -renamed) : ok(undefined);
    },
    async append(path, data) {
      return ordinary(path, os.O_APPEND, 0o640, data);
    },
  };
}
