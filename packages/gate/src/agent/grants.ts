/** The operator's grants as values: made, ended, written down and read back. Pure. */

import type { Device } from '@airlock/core/device.ts';
import { TRUST_LEVELS } from '@airlock/core/level.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import {
  FINGERPRINT_FIELDS,
  type Fingerprint,
  fingerprintOf,
  GRANT_KINDS,
  type Grant,
  matchFingerprint,
} from '@airlock/policy/grant.ts';
import { DEVICE_ID, isRecord } from './shape.ts';

export interface GrantRecord extends Grant {
  /** Milliseconds since the boot in which it was made. */
  readonly made: number;
  /** Which coming of the device it was made for, where that can be told; a `once` ends with it. */
  readonly incarnation?: string;
  /** Kept in /var/lib and so beyond a reboot: grants without an end, and blocks that were made so. */
  readonly kept?: true;
}

/** Grants that one file holds at most, and its length in bytes. */
export const GRANTS_LIMIT = 256;
export const GRANTS_BYTES = 262_144;

/** `grants` with one more; what was there for the same device gives way. */
export function addGrant(grants: readonly GrantRecord[], grant: GrantRecord): GrantRecord[] {
  return [...grants.filter(({ device }) => device !== grant.device), grant];
}

export interface Sorted {
  readonly live: readonly GrantRecord[];
  readonly ended: readonly GrantRecord[];
}

/** What has ended by `uptime` (milliseconds since boot; null when no clock can be read: then every timed grant has). */
export function endByTime(grants: readonly GrantRecord[], uptime: number | null): Sorted {
  return split(
    grants,
    ({ kind, until }) => kind === 'timed' && (uptime === null || until === undefined || until <= uptime),
  );
}

/** Ends each `once` whose device is in `gone`, or is there in another incarnation. */
export function endByDeparture(
  grants: readonly GrantRecord[],
  gone: ReadonlySet<string>,
  incarnations: ReadonlyMap<string, string>,
): Sorted {
  return split(grants, ({ kind, device, incarnation }) => {
    if (kind !== 'once') return false;
    const now = incarnations.get(device);
    return gone.has(device) || (incarnation !== undefined && now !== undefined && now !== incarnation);
  });
}

/**
 * Takes what has become known of a device since its grant was made (a serial number, once its driver is bound) into
 * the fingerprint, so that from then on it must stay the same. Returns the same array when nothing is new.
 */
export function completeFingerprints(
  grants: readonly GrantRecord[],
  devices: readonly Device[],
): readonly GrantRecord[] {
  let changed = false;
  const complete = grants.map((grant) => {
    const device = devices.find(({ id }) => id === grant.device);
    if (device === undefined || matchFingerprint(grant.fingerprint, device).matches !== true) return grant;
    const now = fingerprintOf(device);
    if (Object.keys(now).every((field) => field in grant.fingerprint)) return grant;
    changed = true;
    return { ...grant, fingerprint: { ...now, ...grant.fingerprint } };
  });
  return changed ? complete : grants;
}

/** The next moment (milliseconds since boot) at which a grant ends; `undefined` when none does. */
export function nextEnd(grants: readonly GrantRecord[]): number | undefined {
  const ends = grants.flatMap(({ kind, until }) => (kind === 'timed' && until !== undefined ? [until] : []));
  return ends.length === 0 ? undefined : Math.min(...ends);
}

/** The file's text. `boot` is the boot that they belong to; null for those that outlive it. */
export function writeGrants(grants: readonly GrantRecord[], boot: string | null): string {
  return `${JSON.stringify({ version: 1, ...(boot === null ? {} : { boot }), grants }, null, 1)}\n`;
}

/**
 * Grants from a file's text: all of them or none. Those of another boot are dropped without a word (`[]`). Code:
 * `grant-malformed`.
 */
export function readGrants(text: string, boot: string | null): Result<GrantRecord[]> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return malformed('it is not JSON');
  }
  if (!isRecord(value, ['version', 'boot', 'grants']) || value['version'] !== 1)
    return malformed('it has another form');
  if (!Array.isArray(value['grants'])) return malformed('it has no list of grants');
  if (value['grants'].length > GRANTS_LIMIT) return malformed(`more than ${GRANTS_LIMIT} grants`);
  if (boot === null ? value['boot'] !== undefined : typeof value['boot'] !== 'string') {
    return malformed('the boot that it belongs to is not as it should be');
  }
  if (boot !== null && value['boot'] !== boot) return ok([]);
  const grants: GrantRecord[] = [];
  for (const one of value['grants']) {
    const grant = readGrant(one);
    if (grant === undefined) return malformed(`grant ${grants.length + 1} does not have its form`);
    if (boot === null && grant.kept !== true) return malformed(`grant ${grants.length + 1} is not one to be kept`);
    if (grants.some(({ device }) => device === grant.device)) return malformed(`two grants for ${grant.device}`);
    grants.push(grant);
  }
  return ok(grants);
}

const GRANT_KEYS = ['device', 'fingerprint', 'level', 'kind', 'until', 'made', 'incarnation', 'kept'];

function readGrant(value: unknown): GrantRecord | undefined {
  if (!isRecord(value, GRANT_KEYS)) return undefined;
  const { device, made, until, incarnation, kept } = value;
  const level = TRUST_LEVELS.find((known) => known === value['level']);
  const kind = GRANT_KINDS.find((known) => known === value['kind']);
  const fingerprint = readFingerprint(value['fingerprint']);
  if (typeof device !== 'string' || !DEVICE_ID.test(device)) return undefined;
  if (level === undefined || kind === undefined || fingerprint === undefined || !isWholeNumber(made)) return undefined;
  if (kind === 'timed' ? !isWholeNumber(until) : until !== undefined) return undefined;
  if ((kind === 'block') !== (level === 'disconnected')) return undefined;
  if (incarnation !== undefined && (typeof incarnation !== 'string' || incarnation.length > 64)) return undefined;
  if (kept !== undefined && kept !== true) return undefined;
  if ((kind === 'permanent' && kept !== true) || (kept === true && kind !== 'permanent' && kind !== 'block')) {
    return undefined;
  }
  return {
    device,
    fingerprint,
    level,
    kind,
    made,
    ...(isWholeNumber(until) ? { until } : {}),
    ...(typeof incarnation === 'string' ? { incarnation } : {}),
    ...(kept === true ? { kept } : {}),
  };
}

/** Strict: known fields only, and not so few that anything would match. `undefined` when it is not one. */
export function readFingerprint(value: unknown): Fingerprint | undefined {
  if (!isRecord(value, FINGERPRINT_FIELDS)) return undefined;
  const fingerprint: Partial<Record<(typeof FINGERPRINT_FIELDS)[number], string | number | null>> = {};
  for (const field of FINGERPRINT_FIELDS) {
    const one = value[field];
    if (one === undefined) continue;
    const plain = one === null || (typeof one === 'string' && one.length <= 256) || isWholeNumber(one);
    if (!plain) return undefined;
    fingerprint[field] = one;
  }
  return typeof fingerprint.location === 'string' && typeof fingerprint.bus === 'string' ? fingerprint : undefined;
}

function isWholeNumber(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function split(grants: readonly GrantRecord[], ends: (grant: GrantRecord) => boolean): Sorted {
  return { live: grants.filter((grant) => !ends(grant)), ended: grants.filter(ends) };
}

function malformed(why: string): Result<never> {
  return fail('grant-malformed', `the file of grants does not count: ${why}`);
}
