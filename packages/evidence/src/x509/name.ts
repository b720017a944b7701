/** Distinguished names: raw for comparison, in words for people. */
import { asciiText } from '@airlock/core/bytes.ts';
import { latin1 } from '../bytes.ts';
import { DerReader, TAG } from './der.ts';

const ATTRIBUTES: Readonly<Record<string, string>> = {
  '2.5.4.3': 'CN',
  '2.5.4.5': 'serialNumber',
  '2.5.4.6': 'C',
  '2.5.4.7': 'L',
  '2.5.4.8': 'ST',
  '2.5.4.10': 'O',
  '2.5.4.11': 'OU',
};
const STRINGS: readonly number[] = [TAG.utf8String, TAG.printableString, TAG.ia5String, TAG.teletexString, 0x1e];
const PART_LIMIT = 32;

export interface Name {
  /** The encoding, which is what issuer and subject are compared by. */
  readonly der: Uint8Array;
  /** `CN=SEV-VCEK, O=Advanced Micro Devices`, everything unprintable escaped. */
  readonly text: string;
  readonly commonName: string | null;
}

/** What names say, by their encoding: all certificates of a maker name the same few. */
const known = new Map<string, Omit<Name, 'der'>>();
const KNOWN_LIMIT = 256;
const LONGEST_KNOWN = 1024;

/** RFC 5280 §4.1.2.4. */
export function readName(outer: DerReader): Name {
  const der = outer.whole(TAG.sequence);
  if (outer.problem !== null) return { der, text: '', commonName: null };
  const key = der.length > LONGEST_KNOWN ? null : latin1(der);
  const before = key === null ? undefined : known.get(key);
  if (before !== undefined) return { der, text: before.text, commonName: before.commonName };
  const reader = outer.inside(der);
  const names = reader.enter(TAG.sequence);
  const parts: string[] = [];
  let commonName: string | null = null;
  while (names.more) {
    if (parts.length >= PART_LIMIT) names.refuse('der-too-large', 'a name with too many parts');
    const set = names.enter(TAG.set);
    do {
      const pair = set.enter(TAG.sequence);
      const oid = pair.oid();
      if (!STRINGS.includes(pair.peek())) pair.refuse('der-value-invalid', 'a name part that is no string');
      const value = asciiText(pair.take(pair.peek())).replaceAll('\n', '\\x0a').slice(0, 128);
      pair.finish();
      const label = ATTRIBUTES[oid] ?? oid;
      if (label === 'CN') commonName = value;
      parts.unshift(`${label}=${value}`);
    } while (set.more);
  }
  const text = parts.join(', ');
  if (key !== null && outer.problem === null) {
    if (known.size >= KNOWN_LIMIT) known.clear();
    known.set(key, { text, commonName });
  }
  return { der, text, commonName };
}

/** `['CN', 'SEV-VCEK']`, in the order of the encoding; of a name that was read before. */
export function attributesOf({ der }: Name): readonly (readonly [string, string])[] {
  const found: (readonly [string, string])[] = [];
  const outer = new DerReader(der).enter(TAG.sequence);
  while (outer.more && found.length < PART_LIMIT) {
    const set = outer.enter(TAG.set);
    while (set.more) {
      const pair = set.enter(TAG.sequence);
      const oid = pair.oid();
      found.push([ATTRIBUTES[oid] ?? oid, asciiText(pair.take(pair.peek()))]);
    }
  }
  return found;
}
