/** Connections to sockets of a folder that is held open: its path need not lead anywhere any more. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { O_CLOEXEC, O_DIRECTORY, O_PATH, pathBytes } from '@airlock/transport/sys/directories.ts';
import { callFailed, type SystemCalls } from '@airlock/transport/system-calls.ts';
import { connectUnix, type UnixSocketType } from '@airlock/transport/unix-socket.ts';

const ROOT = new Uint8Array([0x2f, 0]);

/** Codes: `socket-path-invalid`, `system-call-failed`. */
export function openFolder(calls: SystemCalls, path: string): Result<number> {
  const bytes = pathBytes(path);
  if (bytes === null) return fail('socket-path-invalid', 'a path with a zero byte');
  const fd = calls.open(bytes, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
  return fd < 0 ? callFailed(calls, `open(${path})`, fd) : ok(fd);
}

/**
 * Connects to the socket `name` in `folder`. connect(2) knows no folder but the working one, so that is where this
 * process stands for a moment; afterwards it stands in its root, which in a sandbox is empty. Codes: those of
 * `connectUnix`.
 */
export function connectIn(calls: SystemCalls, folder: number, name: string, type: UnixSocketType): Result<number> {
  const moved = calls.fchdir(folder);
  if (moved < 0) return callFailed(calls, 'fchdir', moved);
  const connected = connectUnix(calls, name, type);
  calls.chdir(ROOT);
  return connected;
}
