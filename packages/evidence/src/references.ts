/**
 * What a verifier expects evidence to state: sets of values, each for one kind of evidence. Evidence must have all values
 * of one set of its kind: the sets are the versions that somebody vouches for, and parts of two versions are none.
 */
import { hex } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { fromHex } from './bytes.ts';
import { type Appraisal, type Checklist, type Claim, createChecklist, verdictOf } from './check.ts';
import type { Corim, Period } from './corim/corim.ts';
import {
  type Endorsement,
  endorsementsOfCorim,
  FIELDS,
  type PlatformKey,
  platformKeys,
  setsOfCorim,
} from './corim/reference-sets.ts';
import { verifyCose } from './cose.ts';
import type { Crypto } from './crypto.ts';
import { isObject } from './json.ts';
import {
  bytesExpected,
  type Expected,
  type ExpectedComponent,
  expectedText,
  isAsExpected,
  REFERENCE_KINDS,
  type ReferenceSet,
  stated,
} from './reference-value.ts';
import { readTime, timeText } from './time.ts';
import { type BootEvent, eventsThatDiffer } from './tpm/boot-events.ts';

export interface References {
  readonly source: string;
  readonly title: string;
  readonly validity: Period;
  readonly sets: readonly ReferenceSet[];
  /** Told of evidence that they are about; they decide nothing. */
  readonly endorsements: readonly Endorsement[];
  /** Keys that CCA platforms attest with. */
  readonly keys: readonly PlatformKey[];
  /** What stands in the file and was not read, in words. */
  readonly unread: readonly string[];
  readonly signature: Corim['signature'];
}

const SET_LIMIT = 256;
const VALUE_LIMIT = 64;
const ENDORSED_LIMIT = 400;

/**
 * The plain form, parsed from YAML or JSON: `{ version: 1, name?, from?, until?, sets: [{ kind, name?, FIELD: hex or list of
 * hex, … }] }`. An unknown key is an error. Codes: `references-invalid`.
 */
export function readPlainReferences(given: unknown, source: string): Result<References> {
  const wrong = (what: string) => fail('references-invalid', `${source}: ${what}`);
  if (!isObject(given)) return wrong('a map is needed at the top');
  const stray = Object.keys(given).find((key) => !['version', 'name', 'from', 'until', 'sets'].includes(key));
  if (stray !== undefined) return wrong(`unknown key ${clean(stray)}`);
  if (given['version'] !== 1) return wrong('version: 1 is needed');
  const dates = [given['from'], given['until']].map((date) => dateOf(date));
  const [from, until] = dates;
  if (from === undefined || until === undefined) return wrong('from and until are dates, such as 2026-11-20');
  const listed = given['sets'];
  if (!Array.isArray(listed) || listed.length === 0 || listed.length > SET_LIMIT)
    return wrong(`sets is a list of 1 to ${SET_LIMIT}`);
  const sets: ReferenceSet[] = [];
  for (const [i, one] of (listed as readonly unknown[]).entries()) {
    const set = readSet(one, i);
    if (typeof set === 'string') return wrong(`sets[${i}]: ${set}`);
    sets.push(set);
  }
  const title = typeof given['name'] === 'string' ? clean(given['name']) : 'reference values';
  return ok({
    source,
    title,
    validity: { from, until },
    sets,
    endorsements: [],
    keys: [],
    unread: [],
    signature: null,
  });
}

/** Undefined for what is no date, null for nothing. */
function dateOf(value: unknown): number | null | undefined {
  if (value === undefined || value === null) return null;
  return typeof value === 'string' ? readTime(value) : undefined;
}

function clean(text: string, limit = 64): string {
  return text.replace(/[^\x20-\x7e]/g, '?').slice(0, limit);
}

/** Or what is wrong with it. */
function readSet(one: unknown, index: number): ReferenceSet | string {
  if (!isObject(one)) return 'a map is needed';
  const kind = REFERENCE_KINDS.find((known) => known === one['kind']);
  if (kind === undefined) return `kind is one of ${REFERENCE_KINDS.join(', ')}`;
  const fields = new Map<string, readonly Expected[]>();
  const events = new Map<string, readonly BootEvent[]>();
  for (const [key, value] of Object.entries(one)) {
    if (key === 'kind' || key === 'name') continue;
    if (kind === 'tpm-2.0' && EVENTS_OF_PCR.test(key)) {
      const listed = readEvents(value);
      if (listed === null) return `${clean(key)} is a list of up to ${VALUE_LIMIT} maps of name and digest (hex)`;
      events.set(key.replace('-events', ''), listed);
      continue;
    }
    if (!FIELDS[kind].includes(key)) return `${clean(key)} is none of ${FIELDS[kind].join(', ')}`;
    const texts: readonly unknown[] = Array.isArray(value) ? value : [value];
    if (texts.length === 0 || texts.length > VALUE_LIMIT)
      return `${key} is one value or a list of up to ${VALUE_LIMIT}`;
    const values: Expected[] = [];
    for (const text of texts) {
      const bytes = typeof text === 'string' ? fromHex(text) : undefined;
      if (bytes === undefined || bytes.length === 0)
        return `${key} is bytes in hex (in quotes, where they are digits only)`;
      values.push(bytesExpected(hex(bytes)));
    }
    fields.set(key, values);
  }
  if (fields.size === 0) return 'a set without values is right for everything: leave it out';
  // Events without the value that they explain would look like an expectation and be none.
  const idle = [...events.keys()].find((field) => !fields.has(field));
  if (idle !== undefined) return `${idle}-events says what makes ${idle}, which is not there`;
  const name = typeof one['name'] === 'string' ? clean(one['name']) : `set ${index}`;
  return { name, kind, part: kind === 'arm-cca' ? 'realm' : '', fields, events };
}

const EVENTS_OF_PCR = /^pcr(?:1?[0-9]|2[0-3])-events$/;

function readEvents(value: unknown): readonly BootEvent[] | null {
  if (!Array.isArray(value) || value.length > VALUE_LIMIT) return null;
  const events: BootEvent[] = [];
  for (const one of value as readonly unknown[]) {
    const [name, text] = isObject(one) && Object.keys(one).length === 2 ? [one['name'], one['digest']] : [];
    const digest = typeof text === 'string' ? fromHex(text) : undefined;
    if (typeof name !== 'string' || digest === undefined || digest.length === 0) return null;
    events.push({ name: clean(name), digest: hex(digest) });
  }
  return events;
}

/** What triples of other kinds are called: draft-ietf-rats-corim §5.1.3. */
const TRIPLES: ReadonlyMap<number, string> = new Map([
  [2, 'identity'],
  [4, 'dependency'],
  [5, 'membership'],
  [6, 'CoSWID'],
  [7, 'conditional endorsement'],
  [9, 'conditional endorsement'],
  [10, 'conditional endorsement'],
]);
const TAGS: ReadonlyMap<number, string> = new Map([
  [505, 'CoSWID tags (files of an installation, which no evidence of these kinds states)'],
  [508, 'tags that list other tags'],
]);

/**
 * A CoRIM's triples: reference values as sets, one an environment; endorsements, conditional ones too; attestation keys with
 * the platform that they are for. What is for devices, and not for a VM, is left to `airlock device attest`.
 */
export function referencesOfCorim(corim: Corim, source: string): References {
  const { id, validity, signature } = corim;
  const title = `CoRIM ${clean(id)}${signature === null ? '' : `, signed${signature.signer === null ? '' : ` by ${clean(signature.signer)}`}`}`;
  const unread = [
    ...corim.otherTriples.map((kind) => `${TRIPLES.get(kind) ?? `kind ${kind}`} triples`),
    ...corim.otherTags.map((tag) => TAGS.get(tag) ?? `tags ${tag}`),
  ];
  return {
    ...{ source, title, validity, signature, unread, keys: platformKeys(corim) },
    sets: setsOfCorim(corim, clean),
    endorsements: endorsementsOfCorim(corim),
  };
}

/** `: Linux initrd is ab12…, not cd34…`, where both the set and the evidence say what makes a PCR's value. */
function whyItDiffers(set: ReferenceSet, claims: Appraisal['claims'], field: string): string {
  const wanted = set.events?.get(field);
  const all = claims['events'];
  const own = isObject(all) ? all[field.replace('pcr', '')] : undefined;
  const measured = Array.isArray(own) ? readEvents(own) : null;
  if (wanted === undefined || measured === null) return '';
  const wrong = eventsThatDiffer(wanted, measured);
  return wrong.length === 0 ? '' : `: ${wrong.join(', ')}`;
}

/** A set without values would be right for everything. A realm is named by its measurement, which is one. */
function isEmpty({ fields, choices, components, conditions, open }: ReferenceSet): boolean {
  const values = fields.size + (choices ?? []).length + (components ?? []).length + (open ?? []).length;
  return values === 0 && conditions?.has('measurement') !== true;
}

/** What is wrong of the evidence by this set, each value by its name; empty where nothing is. */
function wrongOf(set: ReferenceSet, claims: Appraisal['claims']): string[] {
  const wrong = (set.open ?? []).map((what) => `${what} is asked for, and nothing here compares it`);
  for (const [field, expected] of set.fields) {
    const said = differenceOf(set, claims, field, expected);
    if (said !== null) wrong.push(said);
  }
  for (const alternatives of set.choices ?? []) {
    const each = alternatives.map((fields) =>
      [...fields].flatMap(([field, expected]) => differenceOf(set, claims, field, expected) ?? []),
    );
    const best = each.reduce((least, one) => (one.length < least.length ? one : least), each[0] ?? []);
    wrong.push(...best);
  }
  if (set.components !== undefined) wrong.push(...wrongComponents(set.components, claims['software-components']));
  return wrong;
}

function differenceOf(
  set: ReferenceSet,
  claims: Appraisal['claims'],
  field: string,
  expected: readonly Expected[],
): string | null {
  const found = stated(claims, field);
  if (expected.some((one) => isAsExpected(one, found))) return null;
  if (found === null || found === 'absent') return `${field} is not stated`;
  const shown = typeof found === 'boolean' ? (found ? 'is set' : 'is clear') : String(found);
  return `${field} ${shown}, not ${expected.map(expectedText).join(' or ')}${whyItDiffers(set, claims, field)}`;
}

/** Every component that the platform lists must be one that the maker vouches for. */
function wrongComponents(expected: readonly ExpectedComponent[], claim: Claim | undefined): string[] {
  const listed = Array.isArray(claim) ? (claim as readonly Claim[]) : [];
  if (listed.length === 0) return ['software-components are not stated'];
  return listed.flatMap((one) => {
    if (!isObject(one)) return ['a component that is none'];
    const [type, version, signer, measurement] = ['type', 'version', 'signer', 'measurement'].map((name) => one[name]);
    const same = (wanted: string | null, own: unknown) => wanted === null || wanted === own;
    const named = expected.filter((each) => same(each.type, type) && same(each.signer, signer));
    if (named.some((each) => same(each.version, version) && each.measurements.includes(String(measurement)))) return [];
    const name = `component ${String(type)}`;
    if (named.length === 0) return [`${name} of signer ${short(signer)} is none that is vouched for`];
    const versions = named.some((each) => same(each.version, version));
    return [
      versions
        ? `${name} ${short(measurement)}, not ${named
            .flatMap((each) => each.measurements)
            .map(short)
            .join(' or ')}`
        : `${name} is version ${String(version)}, not ${named.map((each) => each.version ?? 'any').join(' or ')}`,
    ];
  });
}

function short(value: unknown): string {
  const text = String(value);
  return text.length > 16 ? `${text.slice(0, 16)}…` : text;
}

/** Is the set about this evidence at all: this implementation, this instance? */
function isAbout({ conditions }: ReferenceSet, claims: Appraisal['claims']): boolean {
  return [...(conditions ?? [])].every(([field, value]) => stated(claims, field) === value);
}

/** The same appraisal with what the sets say of it, all files taken together. */
export function checkReferences(
  appraisal: Appraisal,
  references: readonly References[],
  allowed?: ReadonlySet<string>,
): Appraisal {
  const sets = references.flatMap((one) => one.sets.filter(({ kind }) => kind === appraisal.kind));
  if (references.length === 0 || !(REFERENCE_KINDS as readonly string[]).includes(appraisal.kind)) return appraisal;
  const { claims } = appraisal;
  const list = createChecklist(allowed);
  const parts = [...new Set(sets.map(({ part }) => part))].sort();
  let launch = false;
  for (const part of parts.length === 0 ? [''] : parts) {
    const own = sets.filter((set) => set.part === part);
    const about = own.filter((set) => isAbout(set, claims));
    const subject = part === '' ? {} : { subject: part };
    list.check('reference.present', about.length > 0, {
      ...subject,
      expected: `reference values for ${appraisal.kind}`,
      found:
        about.length > 0
          ? countText(about.length)
          : own.length === 0
            ? 'none in what was given'
            : `${countText(own.length)}, none for ${conditionText(own[0], claims)}`,
    });
    const judged = about.map((set) => ({
      set,
      wrong: isEmpty(set) ? ['nothing is asked for'] : wrongOf(set, claims),
    }));
    const nearest = judged.reduce<(typeof judged)[number] | null>(
      (best, one) => (best === null || one.wrong.length < best.wrong.length ? one : best),
      null,
    );
    if (nearest === null) continue;
    const { set, wrong } = nearest;
    const compared = comparedIn(set, claims);
    list.check('reference.value', wrong.length === 0, {
      subject: set.name,
      expected: `all values of one of ${about.length} sets`,
      found: wrong.length === 0 ? compared.join(', ') : `nearest is ${set.name}: ${wrong.join('; ')}`,
    });
    launch ||= wrong.length === 0 && (compared.includes('measurement') || compared.includes('mrtd'));
  }
  for (const part of appraisal.kind === 'arm-cca' && parts.length > 0 ? ['platform', 'realm'] : [])
    if (!parts.includes(part))
      list.unchecked('reference.value', {
        subject: part,
        expected: `reference value of the ${part}`,
        found: 'none was given',
        hint:
          part === 'realm'
            ? 'any realm runs on genuine firmware: give reference values of yours with --reference'
            : 'the platform’s firmware was compared with nothing: give its maker’s CoRIM with --reference',
      });
  for (const one of references) tellEndorsements(list, one, appraisal);
  // What a set compared is compared: nothing is left to say that it was not.
  const kept = appraisal.checks.filter(
    ({ id, status }) => !(launch && id === 'launch.measurement' && status === 'unchecked'),
  );
  const checks = [...kept, ...list.checks];
  const { kind, title } = appraisal;
  return {
    ...{ kind, title, checks, verdict: verdictOf(checks) },
    get claims() {
      return appraisal.claims;
    },
  };
}

function countText(sets: number): string {
  return `${sets} ${sets === 1 ? 'set' : 'sets'}`;
}

/** Names of what a set compared: of alternatives only those that were right. */
function comparedIn(set: ReferenceSet, claims: Appraisal['claims']): string[] {
  const { fields, choices = [], components } = set;
  const right = choices
    .flat()
    .filter((one) => [...one].every(([field, expected]) => differenceOf(set, claims, field, expected) === null));
  const chosen = right.flatMap((one) => [...one.keys()]);
  return [...new Set([...fields.keys(), ...chosen, ...(components === undefined ? [] : ['software-components'])])];
}

function conditionText(set: ReferenceSet | undefined, claims: Appraisal['claims']): string {
  const names = [...(set?.conditions?.keys() ?? [])];
  return names.map((name) => `${name} ${short(stated(claims, name))}`).join(', ') || 'it';
}

/** Of each endorsement whose condition holds, the first of its series that does. */
function tellEndorsements(list: Checklist, { endorsements, title }: References, { kind, claims }: Appraisal): void {
  const holds = (set: ReferenceSet) => isAbout(set, claims) && wrongOf(set, claims).length === 0;
  for (const { condition, series } of endorsements) {
    if (condition.kind !== kind || !holds(condition)) continue;
    const said = series.find(({ when }) => holds(when))?.endorsed ?? [];
    if (said.length > 0)
      list.note('reference.endorsed', {
        subject: title,
        expected: 'what is endorsed of it',
        found: clean(said.join('; '), ENDORSED_LIMIT),
      });
  }
}

/** The key that signed the file, of those that the verifier gave. */
export function signerOf(
  { signature }: References,
  crypto: Crypto,
  trustedKeys: readonly Uint8Array[],
): Uint8Array | undefined {
  return trustedKeys.find((spki) => signature !== null && verifyCose(crypto.publicKey(spki), signature.message));
}

/** Is the file itself to be believed? Its signature, where it has one, and its dates. */
export function appraiseReferences(
  references: References,
  {
    crypto,
    asOf,
    trustedKeys,
    shown,
  }: {
    readonly crypto: Crypto;
    readonly asOf: number;
    readonly trustedKeys?: readonly Uint8Array[];
    /** Kinds of the evidence that there is; sets of others are told. */
    readonly shown?: ReadonlySet<string>;
  },
): Appraisal {
  const list = createChecklist();
  const { signature, validity } = references;
  const within = ({ from, until }: Period) => (from === null || from <= asOf) && (until === null || asOf <= until);
  const periods = [validity, ...(signature === null ? [] : [signature.validity])];
  const spans = periods.map(
    ({ from, until }) => `${from === null ? '' : timeText(from)}..${until === null ? '' : timeText(until)}`,
  );
  list.check('reference.validity', periods.every(within), {
    expected: `${timeText(asOf)} within ${spans.join(' and ')}`,
    found: periods.every(within) ? 'valid' : 'not valid on that date',
  });
  if (signature !== null) {
    const keys = trustedKeys ?? [];
    const good = signerOf(references, crypto, keys) !== undefined;
    const expected = `${signature.message.name} with a key that the verifier trusts`;
    if (keys.length === 0) list.unchecked('reference.signature', { expected, found: 'no key was given' });
    else list.check('reference.signature', good, { expected, found: good ? 'good' : 'wrong, or another’s' });
  }
  const idle = shown === undefined ? [] : references.sets.filter(({ kind }) => !shown.has(kind));
  if (idle.length > 0)
    list.unchecked('reference.used', {
      expected: `evidence of kind ${[...new Set(idle.map(({ kind }) => kind))].join(', ')}`,
      found: `none was shown: nothing was compared with ${clean(idle.map(({ name }) => name).join(', '), ENDORSED_LIMIT)}`,
    });
  if (references.unread.length > 0)
    list.note('reference.unread', { expected: 'everything in it', found: `not read: ${references.unread.join(', ')}` });
  return {
    kind: 'reference-values',
    title: references.title,
    verdict: verdictOf(list.checks),
    checks: list.checks,
    claims: { sets: references.sets.map(({ name, kind }) => `${kind}: ${name}`) },
  };
}
