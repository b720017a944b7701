/** The parts of QuickJS 2025-04-26's standard library that the boot gate uses; the bundler maps them to `std` and `os`. */
declare module 'quickjs:os' {
  export const O_RDONLY: number;
  export const O_WRONLY: number;
  export const O_CREAT: number;
  export const O_TRUNC: number;
  export const O_APPEND: number;
  export const WNOHANG: number;
  export const SIGKILL: number;
  export const S_IFMT: number;
  export const S_IFREG: number;
  export const S_IFDIR: number;
  /** A file descriptor, or a negative errno. */
  export function open(path: string, flags: number, mode?: number): number;
  export function close(fd: number): number;
  /** Bytes moved, or a negative errno. */
  export function read(fd: number, buffer: ArrayBuffer, offset: number, length: number): number;
  export function write(fd: number, buffer: ArrayBuffer, offset: number, length: number): number;
  export function seek(fd: number, offset: number, whence: number): number;
  export function remove(path: string): number;
  export function rename(from: string, to: string): number;
  export function mkdir(path: string, mode?: number): number;
  /** The second value is an errno, 0 for none. */
  export function readlink(path: string): [string, number];
  export function readdir(path: string): [string[], number];
  export function stat(path: string): [{ mode: number; size: number } | null, number];
  /** Of a link itself. */
  export function lstat(path: string): [{ ino: number } | null, number];
  export function pipe(): [number, number] | null;
  /** A process id when `block` is false. */
  export function exec(
    argv: readonly string[],
    options: {
      block?: boolean;
      usePath?: boolean;
      file?: string;
      stdin?: number;
      stdout?: number;
      stderr?: number;
      env?: Record<string, string>;
    },
  ): number;
  /** Process id (0: still runs) and wait status. */
  export function waitpid(pid: number, options: number): [number, number];
  export function getpid(): number;
  export function kill(pid: number, signal: number): number;
  export function setTimeout(callback: () => void, milliseconds: number): unknown;
  export function sleep(milliseconds: number): void;
  /** Milliseconds since boot, with a fraction. */
  export function now(): number;
}

declare module 'quickjs:std' {
  export function exit(status: number): never;
  export function strerror(errno: number): string;
  export function getenviron(): Record<string, string>;
  export const SEEK_SET: number;
  export interface Stream {
    puts(text: string): void;
    flush(): void;
    error(): boolean;
    /** 0, or a negative errno. */
    close(): number;
  }
  export function fdopen(fd: number, flags: string): Stream | null;
  export function loadFile(path: string): string | null;
  export const out: { puts(text: string): void; flush(): void };
  export const err: { puts(text: string): void; flush(): void };
}

declare const scriptArgs: readonly string[];
