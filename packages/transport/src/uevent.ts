/**
 * One kernel uevent as bytes and as a value (lib/kobject_uevent.c): `ACTION@DEVPATH\0KEY=VALUE\0KEY=VALUE\0…`.
 * A uevent is never evidence: it says that something happened, what holds is then read from sysfs.
 */
import { asciiText } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';

export interface Uevent {
  /** `add`, `remove`, `change`, `move`, `online`, `offline`, `bind`, `unbind`. */
  readonly action: UeventAction;
  /** Below /sys, as the kernel names it: `/devices/pci0000:00/0000:00:03.0`. */
  readonly devpath: string;
  /** `pci`, `virtio`, `usb`, … ; empty when the kernel gave none. */
  readonly subsystem: string;
  /** Number of the event since boot; absent when the kernel gave none. */
  readonly seqnum?: number;
  /** All keys, the ones above too. Values have every byte that is not printable ASCII written as `\xNN`. */
  readonly values: ReadonlyMap<string, string>;
}

export const UEVENT_ACTIONS = ['add', 'remove', 'change', 'move', 'online', 'offline', 'bind', 'unbind'] as const;
export type UeventAction = (typeof UEVENT_ACTIONS)[number];

/** UEVENT_BUFFER_SIZE is 2048 for the values, and the header is the action and a path of sysfs. */
export const UEVENT_LIMIT = 8192;
/** UEVENT_NUM_ENVP. */
const KEYS_LIMIT = 64;

/**
 * The event in a datagram. Codes: `uevent-too-large` (more than UEVENT_LIMIT bytes), `uevent-malformed` (no header, an
 * unknown action, a path that is not a plain one below /devices or /bus …, a key twice, a value that contradicts the
 * header). A message of udev's own (`libudev\0…`) is malformed here: only the kernel's count.
 */
export function parseUevent(bytes: Uint8Array): Result<Uevent> {
  if (bytes.length > UEVENT_LIMIT) {
    return fail('uevent-too-large', `a uevent of ${bytes.length} bytes, at most ${UEVENT_LIMIT}`);
  }
  const parts = splitAtNul(bytes);
  if (parts === undefined) return malformed(`more than ${KEYS_LIMIT} keys`);
  const header = parts[0] ?? '';
  const at = header.indexOf('@');
  if (at <= 0) return malformed('no ACTION@PATH at its start');
  const action = UEVENT_ACTIONS.find((known) => known === header.slice(0, at));
  if (action === undefined) return malformed(`unknown action ${header.slice(0, Math.min(at, 32))}`);
  const devpath = header.slice(at + 1);
  if (!plainPath(devpath)) return malformed('the path is not a plain absolute one');

  const values = new Map<string, string>();
  for (const part of parts.slice(1)) {
    const equals = part.indexOf('=');
    if (equals <= 0) return malformed('a part without KEY=');
    const key = part.slice(0, equals);
    if (!/^[A-Za-z0-9_]{1,64}$/.test(key)) return malformed('a key of other characters than A-Z, 0-9 and _');
    if (values.has(key)) return malformed(`the key ${key} twice`);
    values.set(key, part.slice(equals + 1));
  }
  if (values.has('ACTION') && values.get('ACTION') !== action) return malformed('ACTION differs from the header');
  if (values.has('DEVPATH') && values.get('DEVPATH') !== devpath) return malformed('DEVPATH differs from the header');
  const seqnum = values.get('SEQNUM');
  if (seqnum !== undefined && !/^[0-9]{1,15}$/.test(seqnum)) return malformed('SEQNUM is not a number');
  return ok({
    action,
    devpath,
    subsystem: values.get('SUBSYSTEM') ?? '',
    ...(seqnum === undefined ? {} : { seqnum: Number(seqnum) }),
    values,
  });
}

function malformed(why: string): Result<never> {
  return fail('uevent-malformed', `uevent: ${why}`);
}

/** Every part that a NUL ends, escaped; a last part without NUL counts too. `undefined`: too many. */
function splitAtNul(bytes: Uint8Array): string[] | undefined {
  const parts: string[] = [];
  let start = 0;
  for (let i = 0; i <= bytes.length; i++) {
    if (i < bytes.length && bytes[i] !== 0) continue;
    if (i > start || i < bytes.length) {
      if (parts.length > KEYS_LIMIT) return undefined;
      parts.push(escapeLine(bytes.subarray(start, i)));
    }
    start = i + 1;
  }
  return parts;
}

/** asciiText, and line ends and tabs too: nothing in a uevent has lines. */
function escapeLine(bytes: Uint8Array): string {
  return asciiText(bytes).replaceAll('\n', '\\x0a').replaceAll('\t', '\\x09');
}

function plainPath(path: string): boolean {
  return (
    path.startsWith('/') &&
    path.length > 1 &&
    path.length <= 4096 &&
    path
      .slice(1)
      .split('/')
      .every((part) => part !== '' && part !== '.' && part !== '..')
  );
}
