/** What an operator allowed or blocked beyond the policy's own words, bound to one device as it was when he did. */
import type { Device } from '@airlock/core/device.ts';
import type { TrustLevel } from '@airlock/core/level.ts';

export const GRANT_KINDS = ['once', 'timed', 'permanent', 'block'] as const;
export type GrantKind = (typeof GRANT_KINDS)[number];

export interface Grant {
  /** Device id: `pci:0000:00:03.0`. */
  readonly device: string;
  readonly fingerprint: Fingerprint;
  /** How far it raises; `disconnected` for a block. */
  readonly level: TrustLevel;
  /** `once` ends when the device goes away, `timed` at `until`, `permanent` and `block` by the operator. */
  readonly kind: GrantKind;
  /** For `timed`: milliseconds since boot (CLOCK_BOOTTIME). Who holds the clock drops what has ended before deciding. */
  readonly until?: number;
}

/**
 * What the device said of itself when the grant was made, by field. A field is absent when it was not known then; null
 * when the device had no such thing. Not a hash: where it differs, the field that differs can be named.
 */
export type Fingerprint = Readonly<Partial<Record<FingerprintField, string | number | null>>>;

export const FINGERPRINT_FIELDS = [
  'bus',
  'transport',
  'location',
  'type',
  'vendor',
  'device',
  'subsystem',
  'class',
  'revision',
  'serial',
] as const;
export type FingerprintField = (typeof FINGERPRINT_FIELDS)[number];

export function fingerprintOf(device: Device): Fingerprint {
  const fingerprint: Partial<Record<FingerprintField, string | number | null>> = {};
  for (const field of FINGERPRINT_FIELDS) {
    const value = fieldOf(device, field);
    if (value !== undefined) fingerprint[field] = value;
  }
  return fingerprint;
}

export interface FingerprintMatch {
  /** `unknown`: nothing differs, but something that was known is not known now (before a driver is bound). */
  readonly matches: boolean | 'unknown';
  /** What differs, in words: `serial was "a", is "b"`. */
  readonly differs: readonly string[];
  /** Fields that cannot be compared now. */
  readonly unknown: readonly FingerprintField[];
}

/** Is this still the device that the fingerprint was taken from? */
export function matchFingerprint(fingerprint: Fingerprint, device: Device): FingerprintMatch {
  const differs: string[] = [];
  const unknown: FingerprintField[] = [];
  for (const field of FINGERPRINT_FIELDS) {
    const then = fingerprint[field];
    if (then === undefined) continue;
    const now = fieldOf(device, field);
    if (now === undefined) unknown.push(field);
    else if (now !== then) differs.push(`${field} was ${show(field, then)}, is ${show(field, now)}`);
  }
  return { matches: differs.length > 0 ? false : unknown.length > 0 ? 'unknown' : true, differs, unknown };
}

function fieldOf(device: Device, field: FingerprintField): string | number | null | undefined {
  if (field !== 'subsystem') return device[field];
  const subsystem = device.subsystem;
  return subsystem ? subsystem.vendor * 65_536 + subsystem.device : subsystem;
}

const HEX_DIGITS: Partial<Record<FingerprintField, number>> = {
  vendor: 4,
  device: 4,
  subsystem: 8,
  class: 6,
  revision: 2,
};

function show(field: FingerprintField, value: string | number | null): string {
  if (value === null) return 'none';
  if (typeof value === 'number') return `0x${value.toString(16).padStart(HEX_DIGITS[field] ?? 1, '0')}`;
  return JSON.stringify(value);
}
