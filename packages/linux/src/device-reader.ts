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
  /** A parsed attribute; `undefined` with a fault when it is malformed or unreadable. A missing one is a fault only when `needed`. */
  value<T>(attribute: string, parse: (text: string) => T | undefined, needed?: 'needed'): Promise<T | undefined>;
  /** As `value`, but null where there is no such attribute. */
  optional<T>(attribute: string, parse: (text: string) => T | undefined): Promise<T | null | undefined>;
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

  const fault = (attribute: string, code: string, message: string) => {
    if (faults.length < 32)
      faults.push({ attribute: printable(prefix + attribute), code, message: printable(message) });
  };

  /** Is the device past asking? */
  function given(attribute: string): boolean {
    if (!silent && patience.hung >= HUNG_READS_LIMIT) {
      silent = true;
      fault(attribute, 'file-timeout', `${path}/${attribute}: not read, too many reads before it were not answered`);
    }
    return silent;
  }

  /** What was read; a failure is a fault, but for what is merely not there. */
  function judge<T>(attribute: string, needed: boolean, result: Result<T>): T | undefined {
    if (result.ok) return result.value;
    const { code, message } = result.error;
    if (code === 'file-timeout') {
      patience.hung++;
      // Reads of one device run side by side: the first that was not answered speaks for all.
      if (silent) return undefined;
      silent = true;
    }
    if (needed || code !== 'file-missing') fault(attribute, code, message);
    return undefined;
  }

  /** The value of what was read. */
  function take<T>(
    attribute: string,
    bytes: Uint8Array | undefined,
    parse: (text: string) => T | undefined,
  ): T | undefined {
    if (bytes === undefined) return undefined;
    const text = asciiText(bytes);
    const value = parse(text);
    if (value === undefined) {
      fault(attribute, 'attribute-malformed', `${path}/${attribute}: ${JSON.stringify(text.slice(0, 40))}`);
    }
    return value;
  }

  const reader: DeviceReader = {
    path,
    faults,
    fault,
    async value(attribute, parse, needed) {
      if (given(attribute)) return undefined;
      return take(attribute, judge(attribute, needed === 'needed', await files.read(`${path}/${attribute}`)), parse);
    },
    async optional(attribute, parse) {
      if (given(attribute)) return undefined;
      const result = await files.read(`${path}/${attribute}`);
      if (!result.ok && result.error.code === 'file-missing') return null;
      return take(attribute, judge(attribute, true, result), parse);
    },
    async link(attribute) {
      if (given(attribute)) return undefined;
      const result = await files.link(`${path}/${attribute}`);
      if (!result.ok && result.error.code === 'file-missing') return null;
      const target = judge(attribute, true, result);
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
      if (given(attribute)) return [];
      return judge(attribute, false, await files.list(`${path}/${attribute}`)) ?? [];
    },
  };
  return reader;
}
