/**
 * What `airlock device serve` knows of a type of device: its options, and how a device is made of them. Each type has a
 * file `<type>/serve.ts` that exports `served`; `serve-types.ts` lists them.
 */
import type { Result } from '@airlock/core/result.ts';
import type { Reactor } from '@airlock/transport/reactor.ts';
import type { NamespaceName } from '@airlock/transport/sandbox-way.ts';
import type { SystemCalls } from '@airlock/transport/system-calls.ts';
import type { ServedDevice } from '@airlock/virtio/served-device.ts';

/** One option of the command line, as `parseArgs` takes it and as `--help` shows it. */
export interface ServeOption {
  readonly type: 'string' | 'boolean';
  readonly multiple?: boolean;
  /** What stands for the value in the help: `FILE`. */
  readonly value?: string;
  /** One line; says the default. */
  readonly help: string;
}

/** The options that were given: text for `string`, a list of texts for `multiple`, true for `boolean`. */
export type OptionValues = Readonly<Record<string, string | boolean | readonly string[] | undefined>>;

/** What a device is made with. */
export interface DeviceHost {
  readonly calls: SystemCalls;
  readonly reactor: Reactor;
  /** Where relative paths begin. */
  readonly folder: string;
  /** For the person who started the server: one line, without the line feed. */
  warn(text: string): void;
}

/** What a device must still be able to do within the sandbox. */
export interface DeviceNeeds {
  /** Namespaces of this machine to stay in: `network` for a TAP. */
  readonly keep?: readonly NamespaceName[];
  /** New Unix sockets, to connect to others while it is served. */
  readonly unixSockets?: boolean;
  /** Paths that it listens on itself: it cannot reach them to take them away when it ends. */
  readonly listens?: readonly string[];
  /** Folders that it keeps open. */
  readonly folders?: readonly string[];
}

/** Options that were read and found right; nothing of the machine was touched for them. */
export interface PreparedDevice {
  /** What the device is, in a few words, for the line that says that it is served: `disk.img, 1 GiB, 4 queues`. */
  describe(): string;
  readonly needs?: DeviceNeeds;
  /**
   * Opens everything that the device will ever need and makes it. Called once, before the sandbox is closed around the
   * process: afterwards there are no paths any more.
   */
  open(host: DeviceHost): Result<ServedDevice>;
}

export interface ServedType {
  /** One line for the list of types. */
  readonly summary: string;
  readonly options: Readonly<Record<string, ServeOption>>;
  /** Transports, by name, that cannot carry the type, with why. */
  readonly not?: Readonly<Record<string, string>>;
  /** Code for what is wrong with the options: `device-option-invalid`. Pure. */
  prepare(values: OptionValues): Result<PreparedDevice>;
}
