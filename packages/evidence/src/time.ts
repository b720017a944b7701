/** Moments as milliseconds since 1970 UTC, without a clock: "now" is always passed in. */

/** `2026-11-20` or `2026-11-20T22:21:30Z`; `undefined` for anything else and for dates that no calendar has. */
export function readTime(text: string): number | undefined {
  const match = /^(\d{4})-(\d\d)-(\d\d)(?:T(\d\d):(\d\d):(\d\d)(?:\.\d{1,9})?Z)?$/.exec(text);
  if (match === null) return undefined;
  const [year, month, day, hour, minute, second] = match.slice(1).map((part) => Number(part ?? 0));
  return momentOf(year ?? 0, month ?? 0, day ?? 0, hour ?? 0, minute ?? 0, second ?? 0);
}

/** Checked against the calendar. */
export function momentOf(
  year: number,
  month: number,
  day: number,
  hour: number,
  minute: number,
  second: number,
): number | undefined {
  if (month < 1 || month > 12 || day < 1 || hour > 23 || minute > 59 || second > 59) return undefined;
  const moment = new Date(0);
  // Date.UTC takes years below 100 for those of the last century.
  moment.setUTCFullYear(year, month - 1, day);
  moment.setUTCHours(hour, minute, second, 0);
  return moment.getUTCDate() === day ? moment.getTime() : undefined;
}

/** The same few dates of certificates are written again and again. */
const written = new Map<number, string>();
const WRITTEN_LIMIT = 64;
/** ECMA-262 §21.4.1.1: what a date can be at most. */
const MOMENT_LIMIT = 8.64e15;

/** `2026-11-20`, with the time where it is not midnight: `2026-11-20T22:21:30Z`. */
export function timeText(moment: number): string {
  if (!(Math.abs(moment) <= MOMENT_LIMIT)) return 'a date that no calendar has';
  let text = written.get(moment);
  if (text === undefined) {
    const whole = new Date(moment).toISOString();
    text = whole.endsWith('T00:00:00.000Z') ? whole.slice(0, 10) : whole.replace(/\.\d+Z$/, 'Z');
    if (written.size >= WRITTEN_LIMIT) written.clear();
    written.set(moment, text);
  }
  return text;
}
