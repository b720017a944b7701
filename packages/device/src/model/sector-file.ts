/** A file as blocks, read and written while one waits: for models whose requests end within the call. */
import type { Memory } from '@airlock/transport/sys/libc.ts';
import type { SystemCalls } from '@airlock/transport/system-calls.ts';

export interface SectorFile {
  readonly bytes: number;
  readonly readOnly: boolean;
  /** Fills all of `into` from byte `at`; false when the medium does not give it. */
  read(at: number, into: Uint8Array): boolean;
  write(at: number, from: Uint8Array): boolean;
  /** On return all that was written is on the medium. */
  flush(): boolean;
  close(): void;
}

/** The most bytes of one system call; longer transfers are several. */
const PIECE = 1 << 20;

/** Takes over `fd`. Bytes behind the end of the file read as zeros. */
export function openSectorFile(
  calls: SystemCalls,
  file: { readonly fd: number; readonly bytes: number; readonly readOnly: boolean },
): SectorFile {
  const { fd, bytes, readOnly } = file;
  const memory: Memory = calls.allocate(PIECE);
  return {
    bytes,
    readOnly,
    read(at, into) {
      for (let done = 0; done < into.length; ) {
        const piece = Math.min(PIECE, into.length - done);
        const got = calls.pread(fd, memory.address, piece, at + done);
        if (got < 0) return false;
        if (got === 0) {
          into.fill(0, done);
          return true;
        }
        into.set(memory.bytes.subarray(0, got), done);
        done += got;
      }
      return true;
    },
    write(at, from) {
      if (readOnly) return false;
      for (let done = 0; done < from.length; ) {
        const piece = from.subarray(done, done + PIECE);
        memory.bytes.set(piece);
        const put = calls.pwrite(fd, memory.address, piece.length, at + done);
        if (put <= 0) return false;
        done += put;
      }
      return true;
    },
    flush: () => calls.fdatasync(fd) >= 0,
    close: () => void calls.close(fd),
  };
}

/** Bytes in memory as such a file. */
export function memorySectors(bytes: Uint8Array, readOnly = false): SectorFile & { flushes: number } {
  return {
    bytes: bytes.length,
    readOnly,
    flushes: 0,
    read(at, into) {
      into.fill(0);
      into.set(bytes.subarray(at, at + into.length));
      return true;
    },
    write(at, from) {
      if (readOnly || at + from.length > bytes.length) return false;
      bytes.set(from, at);
      return true;
    },
    flush() {
      this.flushes++;
      return true;
    },
    close() {},
  };
}
