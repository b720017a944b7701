/** Durations as people write them: `90s`, `10m`, `2h`, `1h30m`, `1d`. */
import { fail, ok, type Result } from '@airlock/core/result.ts';

const UNITS = { d: 86_400_000, h: 3_600_000, m: 60_000, s: 1000 } as const;
type Unit = keyof typeof UNITS;
const ORDER: readonly Unit[] = ['d', 'h', 'm', 's'];

/** The longest that a timed grant may last. */
export const LONGEST = 30 * UNITS.d;

/** Milliseconds, more than 0 and at most LONGEST. Code: `duration-malformed`, with what is wrong and an example. */
export function parseDuration(text: string): Result<number> {
  if (text.length > 32) return malformed('too long for a duration');
  if (!/^[0-9a-zA-Z.,+ -]+$/.test(text)) return malformed(`${JSON.stringify(text)} is no duration`);
  if (/^[0-9]+$/.test(text)) return malformed(`${text} has no unit`, `${text}s, ${text}m or ${text}h`);
  if (text.startsWith('-')) return malformed(`${text} is negative`);
  const parts = [...text.matchAll(/([0-9]+)([a-zA-Z]+)/g)];
  if (parts.length === 0 || parts.map((part) => part[0]).join('') !== text) {
    return malformed(`${JSON.stringify(text)} is no duration`);
  }
  let total = 0;
  let last = -1;
  for (const [, digits = '', unit = ''] of parts) {
    const known = ORDER.find((one) => one === unit);
    if (known === undefined)
      return malformed(`${text}: the unit ${unit} is none of d, h, m, s`, nearUnit(digits, unit));
    const at = ORDER.indexOf(known);
    if (at <= last) return malformed(`${text}: units come once each, the greatest first`, '1h30m');
    if (digits.length > 9) return malformed(`${text}: the number is too large`);
    last = at;
    total += Number(digits) * UNITS[known];
  }
  if (total === 0) return malformed(`${text} is no time at all`);
  if (total > LONGEST) return malformed(`${text} is longer than 30 days`, 'use --permanent for what has no end');
  return ok(total);
}

/** `1d2h`, `9m58s`, `12s`: the two greatest units, rounded up to a second so that what has not ended never reads 0s. */
export function formatDuration(milliseconds: number): string {
  let seconds = Math.max(0, Math.ceil(milliseconds / 1000));
  const parts: string[] = [];
  for (const unit of ORDER) {
    const size = UNITS[unit] / 1000;
    const count = Math.floor(seconds / size);
    seconds -= count * size;
    if (count > 0) parts.push(`${count}${unit}`);
  }
  return parts.slice(0, 2).join('') || '0s';
}

function malformed(message: string, hint = 'such as 90s, 10m, 2h or 1d'): Result<never> {
  return fail('duration-malformed', message, { hint });
}

function nearUnit(digits: string, unit: string): string {
  const first = unit.charAt(0).toLowerCase();
  const known = ORDER.find((one) => one === first);
  return known === undefined ? 'such as 90s, 10m, 2h or 1d' : `did you mean ${digits}${known}?`;
}
