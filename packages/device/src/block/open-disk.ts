/** Opens an image or a block device as a disk, and finds out what can be done with it. */
import { closeSync, constants, fstatSync, openSync, readFileSync, statSync } from 'node:fs';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE } from '@airlock/transport/sys/files.ts';
import type { SystemCalls } from '@airlock/transport/system-calls.ts';
import { EINVAL } from './disk.ts';
import type { FileFacts } from './file-disk.ts';
import { lockImage } from './image-lock.ts';

export interface DiskChoice {
  readonly file: string;
  readonly readOnly: boolean;
  readonly direct: boolean;
  /** The smallest block that the guest is to see; null: what the file can do. */
  readonly blockSize: number | null;
  readonly discard: boolean;
}

const PHYSICAL_LIMIT = 65536;

/**
 * Opens and locks the file. The descriptor is the caller's. Codes: `disk-not-usable`, `disk-size-invalid`,
 * `disk-in-use`, `disk-block-size-invalid`.
 */
export function openDisk(calls: SystemCalls, choice: DiskChoice): Result<FileFacts> {
  const opened = openFile(choice);
  if (!opened.ok) return opened;
  const facts = examine(calls, choice, opened.value.fd, opened.value.blockDevice);
  if (!facts.ok) closeSync(opened.value.fd);
  return facts;
}

function openFile(choice: DiskChoice): Result<{ fd: number; blockDevice: boolean }> {
  const { file } = choice;
  try {
    // Looked at before it is opened: opening a FIFO would wait, and opening a tape does things.
    const stat = statSync(file);
    if (stat.isDirectory()) return unusable(`${file} is a directory`);
    const blockDevice = stat.isBlockDevice();
    if (!blockDevice && !stat.isFile()) return unusable(`${file} is neither a file nor a block device`);
    let flags = choice.readOnly ? constants.O_RDONLY : constants.O_RDWR;
    if (choice.direct) flags |= constants.O_DIRECT;
    // O_EXCL without O_CREAT: not while it is mounted.
    if (blockDevice && !choice.readOnly) flags |= constants.O_EXCL;
    const fd = openWith(file, flags | constants.O_NONBLOCK);
    const now = fstatSync(fd);
    if (now.ino !== stat.ino || now.dev !== stat.dev) {
      closeSync(fd);
      return unusable(`${file} was replaced while it was opened`);
    }
    return ok({ fd, blockDevice });
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'failed';
    return unusable(`${file}: ${REASONS[code] ?? code}`, HINTS[code]);
  }
}

/** Nobody needs to know when a disk was read last, and to note it costs as much as some reads. Only an owner may ask. */
function openWith(file: string, flags: number): number {
  try {
    return openSync(file, flags | constants.O_NOATIME);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') throw error;
    return openSync(file, flags);
  }
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'no such file',
  EACCES: 'no permission',
  EROFS: 'the file system is read-only',
  EBUSY: 'in use, perhaps mounted',
  EINVAL: 'its file system has no direct access',
};
const HINTS: Readonly<Record<string, string>> = {
  ENOENT: 'truncate -s 1G FILE makes an empty disk',
  EACCES: '--read-only needs only permission to read',
  EROFS: 'serve it with --read-only',
  EINVAL: 'serve it without --direct',
};

function unusable(message: string, hint?: string): Result<never> {
  return fail('disk-not-usable', message, hint === undefined ? undefined : { hint });
}

function examine(calls: SystemCalls, choice: DiskChoice, fd: number, blockDevice: boolean): Result<FileFacts> {
  const { file, readOnly, direct } = choice;
  const stat = fstatSync(fd);
  const size = blockDevice ? deviceSize(stat.rdev) : stat.size;
  const smallest = direct ? directBlock(calls, fd) : 512;
  if (smallest === null) return unusable(`${file}: direct access failed`, 'serve it without --direct');
  const blockSize = choice.blockSize ?? smallest;
  if (blockSize < smallest) {
    return fail('disk-block-size-invalid', `${file}: blocks of ${blockSize}, direct access needs ${smallest}`);
  }
  if (!(size > 0) || size % blockSize !== 0) {
    const even = Math.floor(size / blockSize) * blockSize + blockSize;
    return fail('disk-size-invalid', `${file} has ${size} bytes, which is no multiple of ${blockSize}`, {
      hint: `truncate -s ${even} makes it fit`,
    });
  }
  const locked = lockImage(calls, fd, readOnly);
  if (!locked.ok) return fail(locked.error.code, `${file}: ${locked.error.message}`, { hint: locked.error.hint ?? '' });
  const canDiscard =
    !readOnly && choice.discard && (blockDevice ? deviceDiscards(stat.rdev) : hasHoles(calls, fd, size));
  const physicalBlockSize = Math.max(blockSize, physicalBlock(stat.blksize));
  return ok({ fd, size, blockSize, physicalBlockSize, readOnly, canDiscard, direct });
}

/** The smallest aligned read that works; null when none does. */
function directBlock(calls: SystemCalls, fd: number): number | null {
  const { address } = calls.allocate(8192 + 4096);
  const aligned = Math.ceil(address / 4096) * 4096;
  for (const size of [512, 1024, 2048, 4096]) {
    // At an odd multiple of the size, in memory and in the file, or a coarser alignment would pass.
    const status = calls.pread(fd, aligned + size, size, size);
    if (status >= 0) return size;
    if (status !== -EINVAL) return null;
  }
  return null;
}

/** A hole behind the end changes nothing, and tells whether the file system makes holes. */
function hasHoles(calls: SystemCalls, fd: number, size: number): boolean {
  return calls.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, Math.ceil(size / 4096) * 4096, 4096) === 0;
}

function physicalBlock(preferred: number): number {
  return Number.isInteger(Math.log2(preferred)) && preferred <= PHYSICAL_LIMIT ? preferred : 512;
}

function deviceFact(rdev: number, name: string): number {
  const major = Math.floor(rdev / 256) & 0xfff;
  const minor = (rdev & 0xff) | ((Math.floor(rdev / 4096) >>> 0) & 0xfff00);
  for (const path of [`/sys/dev/block/${major}:${minor}/${name}`, `/sys/dev/block/${major}:${minor}/../${name}`]) {
    try {
      const value = Number(readFileSync(path, 'latin1').trim());
      if (Number.isSafeInteger(value)) return value;
    } catch {
      // A partition has its queue's facts one folder up.
    }
  }
  return 0;
}

function deviceSize(rdev: number): number {
  return deviceFact(rdev, 'size') * 512;
}

function deviceDiscards(rdev: number): boolean {
  return deviceFact(rdev, 'queue/discard_max_bytes') > 0;
}
