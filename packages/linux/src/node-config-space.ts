/**
 * Configuration space of one function over a file that stays open: a DOE mailbox takes two accesses for every four bytes,
 * and opening the file for each of them costs many times what they do. Accesses are synchronous: the processor makes them
 * itself and nothing is waited for that a time limit could end.
 */
import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs';
import { join, normalize } from 'node:path';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { ConfigSpace } from '@airlock/spdm/doe/mailbox.ts';

export interface OpenConfigSpace extends ConfigSpace {
  close(): void;
}

const PLACE = /^\/sys\/(?:bus\/pci\/)?devices\/(?!.*\/\.\.\/).*\/config$/;

/**
 * `path` below `root`, for reading and writing. Codes: `write-forbidden` (no configuration space of a device),
 * `file-missing`, `file-denied`, `file-io`; of accesses also `config-too-short` and `file-refused`.
 */
export function openConfigSpace(root: string, path: string): Result<OpenConfigSpace> {
  if (!PLACE.test(path)) return fail('write-forbidden', `${path}: no configuration space`);
  let handle: number;
  try {
    handle = openSync(join(normalize(root), path), constants.O_RDWR | constants.O_NOFOLLOW);
  } catch (error) {
    return refusal(path, error, 'file-io');
  }
  const dword = new Uint8Array(4);
  const view = new DataView(dword.buffer);
  return ok({
    async read32(offset) {
      try {
        if (readSync(handle, dword, 0, 4, offset) < 4)
          return fail('config-too-short', `${path} ends before offset 0x${offset.toString(16)}`);
        return ok(view.getUint32(0, true));
      } catch (error) {
        return refusal(path, error, 'file-io');
      }
    },
    async write32(offset, value) {
      view.setUint32(0, value, true);
      try {
        return writeSync(handle, dword, 0, 4, offset) === 4
          ? ok(undefined)
          : fail('file-refused', `${path}: nothing is written at 0x${offset.toString(16)}`);
      } catch (error) {
        return refusal(path, error, 'file-refused');
      }
    },
    close: () => closeSync(handle),
  });
}

function refusal(path: string, error: unknown, other: string): Result<never> {
  const errno = error instanceof Error && 'code' in error ? String(error.code) : 'EIO';
  const code =
    errno === 'EACCES' || errno === 'EPERM'
      ? 'file-denied'
      : errno === 'ENOENT' || errno === 'ENODEV'
        ? 'file-missing'
        : other;
  return fail(code, `${path}: ${errno}`);
}
