/** Devices that are kept out because they misbehaved: made, ended, written down and read back. Pure. */
import type { Decision } from '@airlock/core/decision.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { ACTIONS, type Action, VIOLATIONS, type Violation } from '@airlock/policy/policy.ts';
import type { Offence } from './offence.ts';
import { DEVICE_ID, isRecord } from './shape.ts';

/**
 * `unbind` (and a device that was reset too often) ends when the device goes away or an operator allows it; `quarantine`
 * when it goes away or an operator revokes it; `remove` and `halt` only when an operator revokes it, whatever comes
 * back in that place.
 */
export interface Hold {
  readonly device: string;
  readonly action: Exclude<Action, 'log' | 'revoke-keys'>;
  readonly violation: Violation;
  readonly detail: string;
  /** Milliseconds since boot. */
  readonly since: number;
  /** Which coming of the device it was made for, where that can be told. */
  readonly incarnation?: string;
}

/** Devices that can be held at a time, and the length of the file in bytes. */
export const HOLDS_LIMIT = 1024;
export const HOLDS_BYTES = 1_048_576;
const DETAIL_LIMIT = 512;

/** The strictest last: what holds a device already is not loosened by a later violation. */
const STRICTNESS: readonly Hold['action'][] = ['reset', 'unbind', 'quarantine', 'remove', 'halt'];

/** `holds` with one more, or the same list when the device is already held as strictly. */
export function addHold(holds: readonly Hold[], hold: Hold): readonly Hold[] {
  const before = holds.find(({ device }) => device === hold.device);
  if (before !== undefined && STRICTNESS.indexOf(before.action) >= STRICTNESS.indexOf(hold.action)) return holds;
  return [...holds.filter(({ device }) => device !== hold.device), hold];
}

export function makeHold(offence: Offence, action: Hold['action'], since: number, incarnation?: string): Hold {
  return {
    device: offence.device,
    action,
    violation: offence.violation,
    detail: plain(offence.detail),
    since,
    ...(incarnation === undefined ? {} : { incarnation }),
  };
}

/** Must an operator say outright that the device may come back? */
export function isQuarantine({ action }: Hold): boolean {
  return action === 'quarantine' || action === 'remove' || action === 'halt';
}

/** Does it stand for the place, whatever goes and comes there? */
export function outlivesDeparture({ action }: Hold): boolean {
  return action === 'remove' || action === 'halt';
}

/** What is decided on a device that is held, whatever the policy, a grant or a block says. */
export function withheld(decision: Decision, hold: Hold): Decision {
  const how = isQuarantine(hold) ? 'in quarantine' : hold.action === 'reset' ? 'reset too often' : 'unbound';
  return {
    ...decision,
    level: 'disconnected',
    reason: 'withheld',
    detail: `${how} for ${hold.violation}: ${hold.detail}`,
    grantable: 'disconnected',
    pending: [],
  };
}

export function writeHolds(holds: readonly Hold[], boot: string | null): string {
  return `${JSON.stringify({ version: 1, boot, holds }, null, 1)}\n`;
}

/**
 * Holds from a file's text, all or none; those of another boot are dropped without a word. Where the boot cannot be told
 * (null, then or now) they count: what keeps a device out is not dropped for want of a clock. Code: `hold-malformed`.
 */
export function readHolds(text: string, boot: string | null): Result<Hold[]> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return malformed('it is not JSON');
  }
  if (!isRecord(value, ['version', 'boot', 'holds']) || value['version'] !== 1) return malformed('it has another form');
  const { boot: of, holds: list } = value;
  if (of !== null && typeof of !== 'string') return malformed('the boot that it belongs to is not as it should be');
  if (!Array.isArray(list) || list.length > HOLDS_LIMIT) return malformed(`it has no list of at most ${HOLDS_LIMIT}`);
  if (of !== null && boot !== null && of !== boot) return ok([]);
  const holds: Hold[] = [];
  for (const one of list) {
    const hold = readHold(one);
    if (hold === undefined || holds.some(({ device }) => device === hold.device)) {
      return malformed(`entry ${holds.length + 1} does not have its form`);
    }
    holds.push(hold);
  }
  return ok(holds);
}

function readHold(value: unknown): Hold | undefined {
  if (!isRecord(value, ['device', 'action', 'violation', 'detail', 'since', 'incarnation'])) return undefined;
  const { device, detail, since, incarnation } = value;
  const action = ACTIONS.find((known) => known === value['action']);
  const violation = VIOLATIONS.find((known) => known === value['violation']);
  if (typeof device !== 'string' || !DEVICE_ID.test(device)) return undefined;
  if (action === undefined || action === 'log' || action === 'revoke-keys' || violation === undefined) return undefined;
  if (typeof detail !== 'string' || detail.length > DETAIL_LIMIT) return undefined;
  if (typeof since !== 'number' || !Number.isSafeInteger(since) || since < 0) return undefined;
  if (incarnation !== undefined && (typeof incarnation !== 'string' || incarnation.length > 64)) return undefined;
  return {
    device,
    action,
    violation,
    detail: plain(detail),
    since,
    ...(incarnation === undefined ? {} : { incarnation }),
  };
}

function plain(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, '?').slice(0, DETAIL_LIMIT);
}

function malformed(why: string): Result<never> {
  return fail('hold-malformed', `the file of devices in quarantine cannot be used: ${why}`);
}
