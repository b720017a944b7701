/**
 * The one hand through which Airlock sees and changes a Linux machine: files below a root. Three forms of it exist:
 * `node-files.ts` (the CLI and the agent), the gate's own over QuickJS, and `fake-files.ts` for tests.
 *
 * Paths are absolute as the machine has them (`/sys/bus/pci/devices`). Nothing here throws; codes:
 * `file-missing` (ENOENT, ENOTDIR, ENODEV on read), `file-denied` (EACCES, EPERM), `file-refused` (the kernel said no to
 * a write; the errno's name is in the message), `file-too-large`, `file-timeout` (no answer in time: the device or the
 * kernel holds the read), `file-not-regular` (a pipe, socket or device node where a file belongs), `file-io`
 * (any other), `write-forbidden` (this hand may not write there at all).
 */
import type { Result } from '@airlock/core/result.ts';

/** The default limit of one read: the largest sysfs attribute is a page. */
export const READ_LIMIT = 65_536;

export interface Files {
  /** The whole file, at most `limit` bytes (`file-too-large` beyond it). */
  read(path: string, limit?: number): Promise<Result<Uint8Array>>;
  /** At most `length` bytes from `offset`; fewer at the end of the file. */
  readAt(path: string, offset: number, length: number): Promise<Result<Uint8Array>>;
  /** Names in a directory, sorted, without `.` and `..`. */
  list(path: string): Promise<Result<readonly string[]>>;
  /** The target of a symbolic link as it is written, not resolved. */
  link(path: string): Promise<Result<string>>;
  /** One write(2) to an existing file, as sysfs and procfs need it; never creates or truncates. */
  write(path: string, data: string | Uint8Array, offset?: number): Promise<Result<void>>;
  /** Replaces an ordinary file whole: written beside it, synced, renamed. Creates missing folders. */
  save(path: string, data: string | Uint8Array, mode?: number): Promise<Result<void>>;
  /** Appends to an ordinary file, created when missing. */
  append(path: string, data: string): Promise<Result<void>>;
}
