/**
 * The C library through koffi: the one door to system calls that Node has no door to. Loaded when first asked for, so a
 * machine without koffi keeps everything that does not need it. Each thread (worker) loads its own; the memory is one.
 */
import { setFlagsFromString } from 'node:v8';
import { fail, ok, type Result } from '@airlock/core/result.ts';

/** What goes through to C: an address or a whole number (a bigint where 53 bits are too few), bytes that C may read or write during the call, a C string. */
export type Argument = number | bigint | Uint8Array | Int32Array | string | null;

/**
 * A function of C. It returns what C returns, or the negative errno where C returned a negative number, as the kernel
 * itself does.
 */
export type Call = (...args: Argument[]) => number;

/** Memory outside of the engine's heap: its address stays what it is. */
export interface Memory {
  /** A number, because no address that Linux gives to a process without being asked for a higher one is above 2^47. */
  readonly address: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;
}

export interface Libc {
  /** By its C declaration. Sizes and offsets up to 2^53. */
  func(declaration: string): Call;
  /** The same on a thread of Node's pool, for calls that wait for somebody. Only numbers: bytes must not move meanwhile. */
  funcAside(declaration: string): (...args: number[]) => Promise<number>;
  /** Zeroed, never freed before the process ends: a view of freed memory would be a hole in the process. */
  allocate(length: number): Memory;
  /** The bytes at an address, without a copy. The engine is not told when that memory goes away. */
  bytesAt(address: number, length: number): ArrayBuffer;
  /** Calls back in the event loop of this thread while `fd` can be read; the returned function ends that. */
  whenReadable(fd: number, call: () => void): () => void;
  errnoName(errno: number): string;
}

let loaded: Promise<Result<Libc>> | undefined;

/** Code: `system-calls-missing`. */
export function loadLibc(): Promise<Result<Libc>> {
  loaded ??= load();
  return loaded;
}

async function load(): Promise<Result<Libc>> {
  if (process.platform !== 'linux') {
    return fail('system-calls-missing', `system calls of Linux, but this is ${process.platform}`);
  }
  try {
    const koffi = await import('koffi');
    const library = koffi.load(null);
    // A guest's memory in an ArrayBuffer counts as memory that this process uses, and by default the engine collects all
    // its garbage, on every core, for each 64 MB of that: 15 ms of a processor each time a VMM comes. With this it counts
    // like all else that the engine holds.
    setFlagsFromString('--external-memory-accounted-in-global-limit');
    const names = new Map(Object.entries(koffi.os.errno).map(([name, number]) => [number, name]));
    // These have two names each; the code looks for this one.
    for (const name of ['EAGAIN', 'EOPNOTSUPP']) names.set(koffi.os.errno[name] ?? 0, name);
    return ok({
      func(declaration) {
        const call: (...args: Argument[]) => number = library.func(declaration);
        return (...args) => {
          const value = call(...args);
          return value < 0 ? -koffi.errno() : value;
        };
      },
      funcAside(declaration) {
        const call = library.func(declaration);
        return (...args) =>
          new Promise((done) => {
            // errno is the other thread's and lost: EIO stands for all.
            call.async(...args, (error: unknown, value: number) =>
              done(error !== null || value < 0 ? -(koffi.os.errno['EIO'] ?? 5) : value),
            );
          });
      },
      allocate(length) {
        const pointer: unknown = koffi.alloc('uint8_t', length);
        const buffer = koffi.view(pointer, length);
        const bytes = new Uint8Array(buffer);
        bytes.fill(0);
        return { address: Number(koffi.address(pointer)), bytes, view: new DataView(buffer) };
      },
      bytesAt: (address, length) => koffi.view(address, length),
      whenReadable(fd, call) {
        const handle = koffi.node.poll(fd, { readable: true }, () => call());
        return () => handle.close();
      },
      errnoName: (errno) => names.get(errno) ?? `errno ${errno}`,
    });
  } catch (error) {
    return fail('system-calls-missing', `koffi: ${error instanceof Error ? error.message : 'did not load'}`);
  }
}
