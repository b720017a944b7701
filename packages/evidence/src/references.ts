/**
 * What a verifier expects evidence to state: sets of values, each for one kind of evidence. Evidence must have all values
 * of one set of its kind: the sets are the versions that somebody vouches for, and parts of two versions are none.
 */
import { hex } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { fromHex } from './bytes.ts';
import { type Appraisal, type Claim, createChecklist, verdictOf } from './check.ts';
import type { Corim, CorimMeasurement, Period } from './corim/corim.ts';
import { verifyCose } from './cose.ts';
import type { Crypto } from './crypto.ts';
import { isObject } from './json.ts';
import { readTime, timeText } from './time.ts';
import { type BootEvent, eventsThatDiffer } from './tpm/boot-events.ts';

export const REFERENCE_KINDS = ['amd-sev-snp', 'intel-tdx', 'arm-cca', 'tpm-2.0', 'ibm-se'] as const;
export type ReferenceKind = (typeof REFERENCE_KINDS)[number];

/** Claims that a set may name, by kind; `rtmr` and `pcr` take a number as well. */
const FIELDS: Readonly<Record<ReferenceKind, readonly string[]>> = {
  'amd-sev-snp': ['measurement', 'host-data', 'id-key-digest', 'author-key-digest', 'family-id', 'image-id'],
  'intel-tdx': ['mrtd', 'rtmr0', 'rtmr1', 'rtmr2', 'rtmr3', 'mr-config-id', 'mr-owner', 'mr-owner-config'],
  'arm-cca': ['measurement', 'rem0', 'rem1', 'rem2', 'rem3', 'personalization', 'implementation-id', 'instance-id'],
  'tpm-2.0': Array.from({ length: 24 }, (_, i) => `pcr${i}`),
  'ibm-se': ['image-phkh', 'attestation-phkh', 'config-uid', 'additional'],
};

export interface ReferenceSet {
  /** For people: `guest 1.2`. */
  readonly name: string;
  readonly kind: ReferenceKind;
  /** Values in hex; any of a field's is right. */
  readonly fields: ReadonlyMap<string, readonly string[]>;
  /** Of a PCR's value (`pcr9`) the events that make it: they say what differs, and decide nothing. */
  readonly events?: ReadonlyMap<string, readonly BootEvent[]>;
}

/** A key and the one platform that it is of, in hex; null where any has it. */
export interface PlatformKey {
  readonly spki: Uint8Array;
  readonly instance: string | null;
  readonly implementation: string | null;
}

export interface References {
  readonly source: string;
  readonly title: string;
  readonly validity: Period;
  readonly sets: readonly ReferenceSet[];
  /** Keys that CCA platforms attest with. */
  readonly keys: readonly PlatformKey[];
  readonly signature: Corim['signature'];
}

const SET_LIMIT = 256;
const VALUE_LIMIT = 64;

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
  return ok({ source, title, validity: { from, until }, sets, keys: [], signature: null });
}

/** Undefined for what is no date, null for nothing. */
function dateOf(value: unknown): number | null | undefined {
  if (value === undefined || value === null) return null;
  return typeof value === 'string' ? readTime(value) : undefined;
}

function clean(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, '?').slice(0, 64);
}

/** Or what is wrong with it. */
function readSet(one: unknown, index: number): ReferenceSet | string {
  if (!isObject(one)) return 'a map is needed';
  const kind = REFERENCE_KINDS.find((known) => known === one['kind']);
  if (kind === undefined) return `kind is one of ${REFERENCE_KINDS.join(', ')}`;
  const fields = new Map<string, readonly string[]>();
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
    const values: string[] = [];
    for (const text of texts) {
      const bytes = typeof text === 'string' ? fromHex(text) : undefined;
      if (bytes === undefined || bytes.length === 0)
        return `${key} is bytes in hex (in quotes, where they are digits only)`;
      values.push(hex(bytes));
    }
    fields.set(key, values);
  }
  if (fields.size === 0) return 'a set without values is right for everything: leave it out';
  // Events without the value that they explain would look like an expectation and be none.
  const idle = [...events.keys()].find((field) => !fields.has(field));
  if (idle !== undefined) return `${idle}-events says what makes ${idle}, which is not there`;
  return { name: typeof one['name'] === 'string' ? clean(one['name']) : `set ${index}`, kind, fields, events };
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

/**
 * A CoRIM's reference triples as sets: one an environment, whose vendor and model say the kind of evidence and whose
 * measurement keys are the names of fields (`measurement`, `mrtd`, `rtmr1`, `pcr7`). Others are for devices, and are left.
 */
export function referencesOfCorim(corim: Corim, source: string): References {
  const byEnvironment = new Map<string, { kind: ReferenceKind; name: string; values: Map<string, string[]> }>();
  for (const one of corim.references) {
    const kind = kindOf(one);
    const field = kind === null ? null : fieldOf(kind, one);
    if (kind === null || field === null) continue;
    const { vendor, model, classId, instance, layer, index } = one.environment;
    const id = JSON.stringify([kind, vendor, model, classId, instance, layer, index, one.version]);
    const name = [vendor, model, one.version].filter((part) => part !== null).join(' ') || corim.id;
    const set = byEnvironment.get(id) ?? { kind, name: clean(name), values: new Map<string, string[]>() };
    byEnvironment.set(id, set);
    const values = set.values.get(field) ?? [];
    set.values.set(field, values);
    if (one.raw !== null && one.raw.mask === null) values.push(hex(one.raw.value));
    for (const { value } of one.digests) values.push(hex(value));
  }
  const sets = [...byEnvironment.values()]
    .slice(0, SET_LIMIT)
    .map(({ kind, name, values }) => ({ name, kind, fields: values }));
  const { id, validity, signature } = corim;
  const title = `CoRIM ${clean(id)}${signature === null ? '' : `, signed${signature.signer === null ? '' : ` by ${clean(signature.signer)}`}`}`;
  return { source, title, validity, sets, keys: platformKeys(corim), signature };
}

/** Those of CCA platforms, which the profile says or the environment: a maker endorses keys of other devices alike. */
function platformKeys({ profile, attestKeys }: Corim): readonly PlatformKey[] {
  return attestKeys.flatMap(({ environment, spki }): PlatformKey[] => {
    const cca = profile === null ? kindOf({ environment }) === 'arm-cca' : /(?:^|[^a-z])cca(?:[^a-z]|$)/i.test(profile);
    const implementation = /^implementation-id:(.*)$/.exec(environment.classId ?? '')?.[1] ?? null;
    return cca ? [{ spki, instance: environment.instance, implementation }] : [];
  });
}

function kindOf({ environment }: Pick<CorimMeasurement, 'environment'>): ReferenceKind | null {
  const words = `${environment.vendor ?? ''} ${environment.model ?? ''}`.toLowerCase();
  if (/\bsev-?snp\b|\bsnp\b/.test(words)) return 'amd-sev-snp';
  if (/\btdx?\b/.test(words)) return 'intel-tdx';
  if (/\bcca\b|\brealm\b/.test(words)) return 'arm-cca';
  return /\btpm\b/.test(words) ? 'tpm-2.0' : null;
}

function fieldOf(kind: ReferenceKind, { key, digests, raw }: CorimMeasurement): string | null {
  if (digests.length === 0 && raw === null) return null;
  const alone = kind === 'intel-tdx' ? 'mrtd' : 'measurement';
  const named =
    key === null ? alone : kind === 'tpm-2.0' && typeof key === 'number' ? `pcr${key}` : String(key).toLowerCase();
  return FIELDS[kind].includes(named) ? named : null;
}

/** A claim by the name that sets use; null where the evidence does not state it. */
function stated(claims: Appraisal['claims'], field: string): string | null {
  const numbered = /^(rtmr|rem|pcr)(\d+)$/.exec(field);
  if (numbered === null) return textClaim(claims[field]);
  const [, name = '', number = ''] = numbered;
  const list = claims[name === 'rem' ? 'extensible-measurements' : name === 'pcr' ? 'pcrs' : name];
  if (Array.isArray(list)) return textClaim((list as readonly Claim[])[Number(number)]);
  return typeof list === 'object' && list !== null && Object.hasOwn(list, number)
    ? textClaim((list as Readonly<Record<string, Claim>>)[number])
    : null;
}

function textClaim(claim: Claim | undefined): string | null {
  return typeof claim === 'string' ? claim : null;
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

/** The same appraisal with what the sets say of it, all files taken together. */
export function checkReferences(
  appraisal: Appraisal,
  references: readonly References[],
  allowed?: ReadonlySet<string>,
): Appraisal {
  const sets = references.flatMap((one) => one.sets.filter(({ kind }) => kind === appraisal.kind));
  if (references.length === 0 || !(REFERENCE_KINDS as readonly string[]).includes(appraisal.kind)) return appraisal;
  const list = createChecklist(allowed);
  list.check('reference.present', sets.length > 0, {
    expected: `reference values for ${appraisal.kind}`,
    found: sets.length > 0 ? `${sets.length} sets` : 'none in what was given',
  });
  const judged = sets.map((set) => {
    const wrong = [...set.fields].flatMap(([field, values]) => {
      const found = stated(appraisal.claims, field);
      return found !== null && values.includes(found)
        ? []
        : [
            `${field} ${found ?? 'is not stated'}${found === null ? '' : `, not ${values.join(' or ')}${whyItDiffers(set, appraisal.claims, field)}`}`,
          ];
    });
    return { set, wrong };
  });
  const nearest = judged.reduce<(typeof judged)[number] | null>(
    (best, one) => (best === null || one.wrong.length < best.wrong.length ? one : best),
    null,
  );
  if (nearest !== null) {
    const { set, wrong } = nearest;
    list.check('reference.value', wrong.length === 0, {
      subject: set.name,
      expected: `all values of one of ${sets.length} sets`,
      found: wrong.length === 0 ? [...set.fields.keys()].join(', ') : `nearest is ${set.name}: ${wrong.join('; ')}`,
    });
  }
  // What a set compared is compared: nothing is left to say that it was not.
  const launch =
    nearest?.wrong.length === 0 && (nearest.set.fields.has('measurement') || nearest.set.fields.has('mrtd'));
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
  }: { readonly crypto: Crypto; readonly asOf: number; readonly trustedKeys?: readonly Uint8Array[] },
): Appraisal {
  const list = createChecklist();
  const { signature, validity } = references;
  const within = ({ from, until }: Period) => (from === null || from <= asOf) && (until === null || asOf <= until);
  const periods = [validity, ...(signature === null ? [] : [signature.validity])];
  const shown = periods.map(
    ({ from, until }) => `${from === null ? '' : timeText(from)}..${until === null ? '' : timeText(until)}`,
  );
  list.check('reference.validity', periods.every(within), {
    expected: `${timeText(asOf)} within ${shown.join(' and ')}`,
    found: periods.every(within) ? 'valid' : 'not valid on that date',
  });
  if (signature !== null) {
    const keys = trustedKeys ?? [];
    const good = signerOf(references, crypto, keys) !== undefined;
    const expected = `${signature.message.name} with a key that the verifier trusts`;
    if (keys.length === 0) list.unchecked('reference.signature', { expected, found: 'no key was given' });
    else list.check('reference.signature', good, { expected, found: good ? 'good' : 'wrong, or another’s' });
  }
  return {
    kind: 'reference-values',
    title: references.title,
    verdict: verdictOf(list.checks),
    checks: list.checks,
    claims: { sets: references.sets.map(({ name, kind }) => `${kind}: ${name}`) },
  };
}
