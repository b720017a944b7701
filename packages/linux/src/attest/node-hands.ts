/** `EvidenceHands` over node:fs, below a root. */
import { type FileHandle, mkdir, open, rmdir } from 'node:fs/promises';
import { join, normalize } from 'node:path';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { EvidenceHands } from './hands.ts';

/** Making a key in a slow TPM takes seconds. */
const ANSWER_LIMIT = 4096;
const TIMEOUT = 30_000;

export function nodeEvidenceHands(root = '/'): EvidenceHands {
  const at = (path: string) => join(root, normalize(`/${path}`));
  return {
    folders: {
      make: (path) => attempt(path, () => mkdir(at(path))),
      remove: (path) => attempt(path, () => rmdir(at(path))),
    },
    async openExchange(path) {
      let handle: FileHandle;
      try {
        handle = await open(at(path), 'r+');
      } catch (error) {
        return failure(path, error);
      }
      return ok({
        transceive: (command) => transceive(path, handle, command),
        close: () => handle.close(),
      });
    },
  };
}

async function transceive(path: string, handle: FileHandle, command: Uint8Array): Promise<Result<Uint8Array>> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<Result<Uint8Array>>((resolve) => {
    timer = setTimeout(() => resolve(fail('file-timeout', `${path}: no answer`)), TIMEOUT);
  });
  const answer = async (): Promise<Result<Uint8Array>> => {
    try {
      await handle.write(command, 0, command.length, null);
      const buffer = new Uint8Array(ANSWER_LIMIT);
      const { bytesRead } = await handle.read(buffer, 0, buffer.length, null);
      return ok(buffer.slice(0, bytesRead));
    } catch (error) {
      return failure(path, error);
    }
  };
  const first = await Promise.race([answer(), late]);
  clearTimeout(timer);
  return first;
}

async function attempt(path: string, work: () => Promise<unknown>): Promise<Result<void>> {
  try {
    await work();
    return ok(undefined);
  } catch (error) {
    return failure(path, error);
  }
}

const CODES: Readonly<Record<string, string>> = {
  ENOENT: 'file-missing',
  ENOTDIR: 'file-missing',
  ENODEV: 'file-missing',
  ENXIO: 'file-missing',
  EACCES: 'file-denied',
  EPERM: 'file-denied',
  EROFS: 'file-denied',
};

function failure(path: string, error: unknown): Result<never> {
  const name = error instanceof Error && 'code' in error ? String(error.code) : 'unknown';
  return fail(CODES[name] ?? 'file-refused', `${path}: ${name}`);
}
