/**
 * Reads the attributes of one kernel device and keeps what went wrong. It stops asking a device that once did not
 * answer in time, and asking anything at all once too many did not: those reads still hold threads of ours.
 */
import { asciiText } from '@airlock/core/bytes.ts';
import type { DeviceFault } from '@airlock/core/device.ts';
import type { Result } from '@airlock/core/result.ts';
import { parseLinkName, printable } from './attribute.ts';
import type { Files } from './files.ts';

/** How many reads may go unanswered in one inventory before the rest of it is given up. */
export const HUNG_READS_LIMIT = 12;

/** Shared by all readers of one inventory. */
export interface Patience {
  hung: number;
}

/** The driver of a node whose `driver` link could not be read: no real driver has that name, and the node counts as bound. */
export const UNKNOWN_DRIVER = '(unknown)';

export interface DeviceReader {
  readonly path: string;
  readonly faults: DeviceFault[];
  /** Names of its attributes, links and children; `undefined` when they could not be listed. */
  names(): Promise<ReadonlySet<string> | undefined>;
  /** May `attribute` be there? True when the names are not known. */
  has(attribute: string): Promise<boolean>;
  /** A parsed attribute; `undefined` with a fault when it is malformed or unreadable. A missing one is a fault only when `needed`. */
  value<T>(attribute: string, parse: (text: string) => T | undefined, needed?: 'needed'): Promise<T | undefined>;
  /** The last part of a link's target; null when there is no such link, `undefined` (and a fault) when it cannot be read. */
  link(attribute: string): Promise<string | null | undefined>;
  /** The `driver` link: name, null, or `UNKNOWN_DRIVER`. */
  driver(): Promise<string | null>;
  /** Names in a folder below it; none when it is not there. */
  folder(attribute: string): Promise<readonly string[]>;
  fault(attribute: string, code: string, message: string): void;
}

/** `part` makes its faults part of an outer node's: `virtio1/status` in the faults of the PCI function. */
export function deviceReader(
  files: Files,
  path: string,
  patience: Patience,
  part?: { readonly prefix: string; readonly faults: DeviceFault[] },
): DeviceReader {
  const faults = part?.faults ?? [];
  const prefix = part?.prefix ?? '';
  let silent = false;
  let listed: Promise<ReadonlySet<string> | undefined> | undefined;

  const fault = (attribute: string, code: string, message: string) => {
    if (faults.length < 32)
      faults.push({ attribute: printable(prefix + attribute), code, message: printable(message) });
  };

  /** Does `work` unless the device is past asking. A failure is a fault, but for what is merely not there. */
  async function ask<T>(attribute: string, needed: boolean, work: () => Promise<Result<T>>): Promise<T | undefined> {
    if (silent) return undefined;
    if (patience.hung >= HUNG_READS_LIMIT) {
      silent = true;
      fault(attribute, 'file-timeout', `${path}/${attribute}: not read, too many reads before it were not answered`);
      return undefined;
    }
    const result = await work();
    if (result.ok) return result.value;
    // Reads of one device run side by side: the first that was not answered speaks for all.
    if (result.error.code === 'file-timeout') {
      patience.hung++;
      if (silent) return undefined;
      silent = true;
    }
    if (needed || result.error.code !== 'file-missing') fault(attribute, result.error.code, result.error.message);
    return undefined;
  }

  const reader: DeviceReader = {
    path,
    faults,
    fault,
    names() {
      listed ??= ask('.', true, () => files.list(path)).then((names) => names && new Set(names));
      return listed;
    },
    async has(attribute) {
      return (await reader.names())?.has(attribute) ?? true;
    },
    async value(attribute, parse, needed) {
      const bytes = await ask(attribute, needed === 'needed', () => files.read(`${path}/${attribute}`));
      if (bytes === undefined) return undefined;
      const text = asciiText(bytes);
      const value = parse(text);
      if (value === undefined) {
        fault(
          attribute,
          'attribute-malformed',
          `${path}/${attribute}: ${printable(JSON.stringify(text.slice(0, 40)))}`,
        );
      }
      return value;
    },
    async link(attribute) {
      if (!(await reader.has(attribute))) return null;
      let missing = false;
      const target = await ask(attribute, false, async () => {
        const result = await files.link(`${path}/${attribute}`);
        missing = !result.ok && result.error.code === 'file-missing';
        return result;
      });
      if (missing) return null;
      if (target === undefined) return undefined;
      const name = parseLinkName(target);
      if (name === undefined) fault(attribute, 'attribute-malformed', `${path}/${attribute}: links to ${target}`);
      return name;
    },
    async driver() {
      const name = await reader.link('driver');
      return name === undefined ? UNKNOWN_DRIVER : name;
    },
    async folder(attribute) {
      if (!(await reader.has(attribute))) return [];
      return (await ask(attribute, false, () => files.list(`${path}/${attribute}`))) ?? [];
    },
  };
  return reader;
}
