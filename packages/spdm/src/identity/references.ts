/** What a device should measure, from whoever vouches for it: a file of our own, or a CoRIM that another room reads. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { fromHex } from '@airlock/evidence/bytes.ts';
import { MEASUREMENT_TYPES } from '../messages/measurements.ts';

/** One of these must hold. */
export type ReferenceRule =
  /** The value is a digest, or a raw value whose digest this is. */
  | { readonly kind: 'digest'; readonly digests: readonly ReferenceDigest[] }
  /** The raw value, compared where `mask` has ones. */
  | { readonly kind: 'raw'; readonly value: Uint8Array; readonly mask: Uint8Array | null }
  /** A raw value that is this little-endian number, or at least this. */
  | { readonly kind: 'number'; readonly number: bigint; readonly least: boolean };

export interface ReferenceDigest {
  /** `sha384`; null: that of the device's measurements. */
  readonly algorithm: string | null;
  readonly value: Uint8Array;
}

export interface ReferenceValue {
  /** For people: `firmware 1.2`, an environment of a CoMID. */
  readonly name: string;
  readonly index: number;
  /** Name of MEASUREMENT_TYPES; null where any is right. */
  readonly type: string | null;
  readonly rules: readonly ReferenceRule[];
}

export interface ReferenceSet {
  /** Where it comes from. */
  readonly source: string;
  readonly values: readonly ReferenceValue[];
  /** What becomes of measurements that nothing vouches for. */
  readonly unlisted: 'refuse' | 'note';
}

const VALUE_LIMIT = 1024;
const RULE_LIMIT = 64;

/**
 * The plain form, as parsed from YAML or JSON:
 * `{ version: 1, unlisted?: refuse | note, measurements: [{ index, name?, type?, digest? | raw?, mask?, minimum? }] }`, where
 * `digest` is one or several texts in hex, with the algorithm before a colon if it matters. Strict: an unknown key is an
 * error. Codes: `reference-values-invalid`.
 */
export function readReferences(given: unknown, source: string): Result<ReferenceSet> {
  const refuse = (message: string): Result<never> => fail('reference-values-invalid', `${source}: ${message}`);
  const whole = record(given);
  if (whole === undefined) return refuse('a map is needed at the top');
  const unknown = unknownKey(whole, ['version', 'unlisted', 'measurements', 'device']);
  if (unknown !== undefined) return refuse(`unknown key ${unknown}`);
  if (whole['version'] !== 1) return refuse('version: 1 is needed');
  const unlisted = whole['unlisted'] ?? 'refuse';
  if (unlisted !== 'refuse' && unlisted !== 'note') return refuse('unlisted is refuse or note');
  const entries = whole['measurements'];
  if (!Array.isArray(entries) || entries.length === 0 || entries.length > VALUE_LIMIT)
    return refuse(`measurements is a list of 1 to ${VALUE_LIMIT}`);
  const values: ReferenceValue[] = [];
  for (const [at, entry] of (entries as readonly unknown[]).entries()) {
    const value = readEntry(entry);
    if (typeof value === 'string') return refuse(`measurements[${at}]: ${value}`);
    values.push(value);
  }
  return ok({ source, values, unlisted });
}

/** A text says what is wrong. */
function readEntry(given: unknown): ReferenceValue | string {
  const entry = record(given);
  if (entry === undefined) return 'a map is needed';
  const unknown = unknownKey(entry, ['index', 'name', 'type', 'digest', 'raw', 'mask', 'minimum']);
  if (unknown !== undefined) return `unknown key ${unknown}`;
  const { index, name, type } = entry;
  if (typeof index !== 'number' || !Number.isInteger(index) || index < 1 || index > 0xfe) return 'index is 1 to 254';
  if (name !== undefined && (typeof name !== 'string' || name.length > 200)) return 'name is a text';
  if (type !== undefined && (typeof type !== 'string' || !(MEASUREMENT_TYPES as readonly string[]).includes(type)))
    return `type is one of ${MEASUREMENT_TYPES.join(', ')}`;
  const rules: ReferenceRule[] = [];
  for (const read of [
    readDigests(entry['digest']),
    readRaw(entry['raw'], entry['mask']),
    readMinimum(entry['minimum']),
  ]) {
    if (typeof read === 'string') return read;
    if (read !== null) rules.push(read);
  }
  if (rules.length === 0) return 'digest, raw or minimum is needed';
  return { name: name ?? `measurement ${index}`, index, type: type ?? null, rules };
}

function readDigests(given: unknown): ReferenceRule | string | null {
  if (given === undefined) return null;
  const texts: readonly unknown[] = Array.isArray(given) ? given : [given];
  if (texts.length === 0 || texts.length > RULE_LIMIT) return `digest is one text or a list of up to ${RULE_LIMIT}`;
  const digests: ReferenceDigest[] = [];
  for (const text of texts) {
    const match =
      typeof text === 'string' ? /^(?:(sha(?:256|384|512|3-256|3-384|3-512)):)?([0-9a-fA-F]+)$/.exec(text) : null;
    const bytes = match === null ? undefined : fromHex(match[2] ?? '');
    if (bytes === undefined || ![32, 48, 64].includes(bytes.length))
      return 'digest is 32, 48 or 64 bytes in hex, as sha384:0123…';
    digests.push({ algorithm: match?.[1] ?? null, value: bytes });
  }
  return { kind: 'digest', digests };
}

function readRaw(given: unknown, maskGiven: unknown): ReferenceRule | string | null {
  if (given === undefined) return maskGiven === undefined ? null : 'mask without raw';
  const value = typeof given === 'string' ? fromHex(given) : undefined;
  if (value === undefined || value.length === 0) return 'raw is bytes in hex';
  if (maskGiven === undefined) return { kind: 'raw', value, mask: null };
  const mask = typeof maskGiven === 'string' ? fromHex(maskGiven) : undefined;
  if (mask === undefined || mask.length !== value.length) return 'mask is as long as raw';
  return { kind: 'raw', value, mask };
}

function readMinimum(given: unknown): ReferenceRule | string | null {
  if (given === undefined) return null;
  if (typeof given !== 'number' || !Number.isSafeInteger(given) || given < 0) return 'minimum is a number';
  return { kind: 'number', number: BigInt(given), least: true };
}

function record(given: unknown): Readonly<Record<string, unknown>> | undefined {
  return typeof given === 'object' && given !== null && !Array.isArray(given)
    ? (given as Readonly<Record<string, unknown>>)
    : undefined;
}

function unknownKey(given: Readonly<Record<string, unknown>>, known: readonly string[]): string | undefined {
  return Object.keys(given).find((key) => !known.includes(key));
}
