/**
 * A CoRIM's triples as what evidence is held against. Which kind of evidence a triple is for is said by a profile's class id
 * (AMD: draft-deeglaze-amd-sev-snp-corim-profile; Arm: draft-ydb-rats-cca-endorsements and the form before it), else by vendor and
 * model. Within a set everything that the triple asks for must be compared: what nothing here can compare makes the set wrong.
 */
import { hex } from '@airlock/core/bytes.ts';
import {
  bytesExpected,
  type Expected,
  type ExpectedComponent,
  type ReferenceKind,
  type ReferenceSet,
} from '../reference-value.ts';
import type { Corim, CorimMeasurement, Environment } from './corim.ts';

/** Claims that keys may name, by kind; `rtmr` and `pcr` take a number as well. */
export const FIELDS: Readonly<Record<ReferenceKind, readonly string[]>> = {
  'amd-sev-snp': ['measurement', 'host-data', 'id-key-digest', 'author-key-digest', 'family-id', 'image-id'],
  'intel-tdx': ['mrtd', 'rtmr0', 'rtmr1', 'rtmr2', 'rtmr3', 'mr-config-id', 'mr-owner', 'mr-owner-config'],
  'arm-cca': [
    ...['measurement', 'rem0', 'rem1', 'rem2', 'rem3', 'personalization'],
    ...['implementation-id', 'instance-id', 'platform-config'],
  ],
  'tpm-2.0': Array.from({ length: 24 }, (_, i) => `pcr${i}`),
  'ibm-se': ['image-phkh', 'attestation-phkh', 'config-uid', 'additional'],
};

const SET_LIMIT = 256;
const AMD_CHIP = 'uuid:d05e6d1b9f464ae2a610ce3e6ee7e153';
const AMD_PROVIDER = 'uuid:89a7a1f0e7044faaacbd81c86df8a961';
const CCA_PLATFORM = /^(?:tag:arm\.com,20\d\d:cca_platform#|http:\/\/arm\.com\/cca\/ssd\/)/i;
const CCA_REALM = /^(?:tag:arm\.com,20\d\d:cca_realm#|http:\/\/arm\.com\/cca\/realm\/)/i;

interface About {
  readonly kind: ReferenceKind;
  readonly part: string;
  readonly conditions: ReadonlyMap<string, string>;
  /** By the profile's own keys. */
  readonly profile: 'amd' | 'cca-platform' | 'cca-realm' | null;
}

/** What an environment is; null for devices and everything else. */
function aboutOf(environment: Environment, corim: Pick<Corim, 'profile'>): About | null {
  const { classId, instance } = environment;
  const bytes = classId?.startsWith('bytes:') === true ? classId.slice('bytes:'.length) : null;
  const own = (name: string, value: string | null) => (value === null ? [] : [[name, value] as const]);
  if (classId === AMD_CHIP || classId === AMD_PROVIDER) {
    const conditions = classId === AMD_CHIP ? own('chip-id', instance) : own('provider', textOf(instance));
    return { kind: 'amd-sev-snp', part: '', conditions: new Map(conditions), profile: 'amd' };
  }
  const profile = (corim.profile ?? '').replace(/^32:/, '');
  const implementation = classId?.startsWith('implementation-id:') === true ? classId.slice(18) : null;
  if (CCA_REALM.test(profile) && bytes !== null)
    return { kind: 'arm-cca', part: 'realm', conditions: new Map([['measurement', bytes]]), profile: 'cca-realm' };
  if (implementation !== null || (CCA_PLATFORM.test(profile) && bytes !== null)) {
    const conditions = new Map([...own('implementation-id', implementation ?? bytes), ...own('instance-id', instance)]);
    return { kind: 'arm-cca', part: 'platform', conditions, profile: 'cca-platform' };
  }
  const kind = kindByName(environment);
  return kind === null ? null : { kind, part: kind === 'arm-cca' ? 'realm' : '', conditions: new Map(), profile: null };
}

function textOf(bytes: string | null): string | null {
  return bytes === null
    ? null
    : String.fromCharCode(...(bytes.match(/../g) ?? []).map((one) => Number.parseInt(one, 16)));
}

/** Where no profile says it. */
function kindByName({ vendor, model }: Environment): ReferenceKind | null {
  const words = `${vendor ?? ''} ${model ?? ''}`.toLowerCase();
  if (/\bsev-?snp\b|\bsnp\b/.test(words)) return 'amd-sev-snp';
  if (/\btdx?\b/.test(words)) return 'intel-tdx';
  if (/\bcca\b|\brealm\b/.test(words)) return 'arm-cca';
  return /\btpm\b/.test(words) ? 'tpm-2.0' : null;
}

/** What one measurement asks for: all of it. */
interface Building {
  readonly about: About;
  readonly fields: Map<string, Expected[]>;
  readonly components: ExpectedComponent[];
  readonly open: string[];
}

/** One environment: of each key some measurement must be right, whole. */
interface Gathered {
  readonly about: About;
  readonly name: string;
  readonly byKey: Map<string, Building[]>;
}

function gather(into: Gathered, one: CorimMeasurement): void {
  const building: Building = { about: into.about, fields: new Map(), components: [], open: [] };
  addTo(building, one);
  const key = building.components.length > 0 ? 'component' : JSON.stringify(one.key);
  const before = into.byKey.get(key);
  if (before === undefined) into.byKey.set(key, [building]);
  else before.push(building);
}

/** Measurements of one value each are told by the name of their field; others are alternatives as wholes. */
function finish({ about, name, byKey }: Gathered): ReferenceSet {
  const { kind, part, conditions } = about;
  const fields = new Map<string, Expected[]>();
  const choices: ReadonlyMap<string, readonly Expected[]>[][] = [];
  const components: ExpectedComponent[] = [];
  const open: string[] = [];
  for (const alternatives of byKey.values()) {
    for (const one of alternatives) {
      components.push(...one.components);
      open.push(...one.open);
    }
    const some = alternatives.filter((one) => one.fields.size > 0);
    const [field, ...more] = new Set(some.flatMap((one) => [...one.fields.keys()]));
    if (field === undefined) continue;
    if (more.length === 0) {
      const values = fields.get(field) ?? [];
      fields.set(field, [...values, ...some.flatMap((one) => one.fields.get(field) ?? [])]);
    } else choices.push(some.map((one) => one.fields));
  }
  return { name, kind, part, conditions, fields, choices, open, ...(components.length === 0 ? {} : { components }) };
}

/** Reference triples as sets, one an environment. */
export function setsOfCorim(corim: Corim, clean: (text: string) => string): readonly ReferenceSet[] {
  const sets = new Map<string, Gathered>();
  for (const one of corim.references) {
    const about = aboutOf(one.environment, corim);
    if (about === null) continue;
    const { vendor, model, classId, instance, layer, index } = one.environment;
    const version = about.profile === null ? one.version : null;
    const id = JSON.stringify([about.kind, about.part, vendor, model, classId, instance, layer, index, version]);
    const name = [vendor, model, version].filter((part) => part !== null).join(' ') || corim.id;
    const named = clean(about.part === '' ? name : `${name}, ${about.part}`);
    const set = sets.get(id) ?? { about, name: named, byKey: new Map() };
    sets.set(id, set);
    gather(set, one);
  }
  return [...sets.values()].slice(0, SET_LIMIT).map(finish);
}

/** A key and the one platform that it is of, in hex; null where any has it. */
export interface PlatformKey {
  readonly spki: Uint8Array;
  readonly instance: string | null;
  readonly implementation: string | null;
}

/** Those of CCA platforms, which the profile says or the environment: a maker endorses keys of other devices alike. */
export function platformKeys({ profile, attestKeys }: Corim): readonly PlatformKey[] {
  return attestKeys.flatMap(({ environment, spki }): PlatformKey[] => {
    const cca = profile === null ? kindByName(environment) === 'arm-cca' : /(?:^|[^a-z])cca(?:[^a-z]|$)/i.test(profile);
    // Tagged bytes since the profile of 2025.
    const implementation = /^(?:implementation-id|bytes):(.*)$/.exec(environment.classId ?? '')?.[1] ?? null;
    return cca ? [{ spki, instance: environment.instance, implementation }] : [];
  });
}

/** What is endorsed of an environment, with what its evidence must have for that: the first of the series that holds. */
export interface Endorsement {
  readonly condition: ReferenceSet;
  readonly series: readonly { readonly when: ReferenceSet; readonly endorsed: readonly string[] }[];
}

export function endorsementsOfCorim(corim: Corim): readonly Endorsement[] {
  const setOf = (environment: Environment, measurements: readonly CorimMeasurement[]): ReferenceSet | null => {
    const about = aboutOf(environment, corim);
    if (about === null) return null;
    const set: Gathered = { about, name: corim.id, byKey: new Map() };
    for (const one of measurements) gather(set, one);
    return finish(set);
  };
  const plain = corim.endorsements.flatMap((one): Endorsement[] => {
    const condition = setOf(one.environment, []);
    return condition === null ? [] : [{ condition, series: [{ when: condition, endorsed: [endorsedText(one)] }] }];
  });
  const conditional = corim.conditions.flatMap(({ environment, condition, series }): Endorsement[] => {
    const set = setOf(environment, condition);
    if (set === null) return [];
    const records = series.flatMap(({ when, endorsed }) => {
      const own = setOf(environment, when);
      return own === null ? [] : [{ when: own, endorsed: endorsed.map(endorsedText) }];
    });
    return [{ condition: set, series: records }];
  });
  return [...plain, ...conditional].slice(0, SET_LIMIT);
}

const TOLD_LIMIT = 96;

function endorsedText(one: CorimMeasurement): string {
  const { key, name, version, svn, digests, raw, flags } = one;
  const parts = [
    ...[name, version].filter((part) => part !== null),
    ...(svn === null ? [] : [`SVN ${svn.least ? 'at least ' : ''}${svn.value}`]),
    ...digests.map(({ algorithm, value }) => `${algorithm} ${hex(value)}`),
    ...(raw === null ? [] : [hex(raw.value)]),
    ...[...flags].map(([code, set]) => `flag ${code} ${set ? 'set' : 'clear'}`),
  ];
  return `${key === null ? '' : `${String(key)}: `}${parts.join(', ') || 'nothing that is read'}`.slice(0, TOLD_LIMIT);
}

function addTo(set: Building, one: CorimMeasurement): void {
  const { profile, kind } = set.about;
  for (const code of one.unread) set.open.push(`value ${code} of ${keyText(one)}`);
  if (profile === 'amd') addAmd(set, one);
  else if (profile === 'cca-platform' && isComponent(one)) addComponent(set, one);
  else if (profile === 'cca-platform' && isConfiguration(one)) addBytes(set, 'platform-config', one);
  else if (profile === 'cca-realm') addBytes(set, realmField(one.key), one);
  else addNamed(set, kind, one);
}

function keyText({ key }: CorimMeasurement): string {
  return key === null ? 'the measurement' : String(key).slice(0, 64);
}

function add(set: Building, field: string, ...expected: Expected[]): void {
  const values = set.fields.get(field) ?? [];
  set.fields.set(field, values);
  values.push(...expected);
}

/** Digests and raw values; what else stands there is left open. */
function addBytes(set: Building, field: string | null, one: CorimMeasurement): void {
  const { digests, raw, svn, flags, registers } = one;
  const empty = digests.length === 0 && raw === null;
  if (field === null) set.open.push(keyText(one));
  else {
    if (raw !== null) add(set, field, bytesExpected(hex(raw.value), raw.mask === null ? null : hex(raw.mask)));
    for (const { value } of digests) add(set, field, bytesExpected(hex(value)));
  }
  if (svn !== null) set.open.push(`SVN of ${keyText(one)}`);
  if (flags.size > 0) set.open.push(`flags of ${keyText(one)}`);
  if (registers.size > 0 || one.rawNumber !== null) set.open.push(`value of ${keyText(one)}`);
  else if (empty && svn === null && flags.size === 0 && one.unread.length === 0 && field !== null)
    set.open.push(`${keyText(one)} without a value`);
}

/** Without a profile: keys are names of fields, or a PCR's number; integrity registers are theirs. */
function addNamed(set: Building, kind: ReferenceKind, one: CorimMeasurement): void {
  const { key, registers, svn } = one;
  if (registers.size > 0) {
    const prefix = kind === 'intel-tdx' ? 'rtmr' : kind === 'tpm-2.0' ? 'pcr' : kind === 'arm-cca' ? 'rem' : '';
    for (const [name, digests] of registers) {
      const field = typeof name === 'number' ? `${prefix}${name}` : name.toLowerCase();
      if (!FIELDS[kind].includes(field)) set.open.push(`register ${String(name).slice(0, 32)}`);
      else add(set, field, ...digests.map(({ value }) => bytesExpected(hex(value))));
    }
    const rest = { ...one, registers: new Map() };
    if (one.digests.length > 0 || one.raw !== null || svn !== null || one.flags.size > 0) addNamed(set, kind, rest);
    return;
  }
  const alone = kind === 'intel-tdx' ? 'mrtd' : 'measurement';
  const named =
    key === null ? alone : kind === 'tpm-2.0' && typeof key === 'number' ? `pcr${key}` : String(key).toLowerCase();
  if (kind === 'amd-sev-snp' && svn !== null && (key === null || named === 'measurement' || named === 'guest-svn')) {
    addNumber(set, 'guest-svn', svn, one);
    if (one.digests.length > 0 || one.raw !== null) addBytes(set, 'measurement', { ...one, svn: null });
    return;
  }
  addBytes(set, FIELDS[kind].includes(named) ? named : null, one);
}

function addNumber(
  set: Building,
  field: string,
  svn: NonNullable<CorimMeasurement['svn']>,
  one: CorimMeasurement,
): void {
  if (typeof svn.value === 'number') add(set, field, { is: 'number', value: svn.value, least: svn.least });
  else set.open.push(`SVN of ${keyText(one)}, which is larger than any`);
}

function realmField(key: CorimMeasurement['key']): string | null {
  const named = String(key ?? '').toLowerCase();
  if (named === 'cca.rim') return 'measurement';
  if (named === 'cca.rpv') return 'personalization';
  return /^cca\.rem[0-3]$/.test(named) ? named.slice(4) : null;
}

function isComponent({ key, component }: CorimMeasurement): boolean {
  return component !== null || key === 'cca.software-component';
}

/** Tag 602, with a label that nothing in evidence has; or by name. */
function isConfiguration({ key }: CorimMeasurement): boolean {
  return typeof key === 'string' && (key === 'cca.platform-config' || key.startsWith('602:'));
}

function addComponent(set: Building, one: CorimMeasurement): void {
  const { component, digests, signers, name, version } = one;
  set.components.push({
    type: component === null ? name : component.type,
    version: component === null ? version : component.version,
    signer: component === null ? (signers[0] ?? null) : component.signer,
    measurements: digests.map(({ value }) => hex(value)),
  });
  if (one.svn !== null || one.flags.size > 0 || one.raw !== null || signers.length > 1)
    set.open.push(`values of component ${component?.type ?? name ?? '?'}`);
}

/** AMD's profile: which field of a report each key is, and each value of it. */
const AMD: readonly {
  readonly version?: string;
  readonly svn?: string;
  readonly digests?: string;
  readonly raw?: string;
  readonly flags?: 'policy' | 'platform';
}[] = [
  { digests: 'measurement', svn: 'guest-svn', raw: 'family-id', version: 'image-id', flags: 'policy' },
  { version: 'minimum-abi' },
  { raw: 'vmpl' },
  { raw: 'report-id' },
  { raw: 'report-id-ma' },
  { raw: 'id-key-digest' },
  { raw: 'author-key-digest' },
  { svn: 'tcb-reported' },
  { version: 'firmware-current', svn: 'tcb-current', raw: 'host-data', flags: 'platform' },
  { version: 'firmware-committed', svn: 'tcb-committed' },
  { svn: 'tcb-launch' },
];

function addAmd(set: Building, one: CorimMeasurement): void {
  const { version, svn, digests, raw, rawNumber, flags, registers } = one;
  const fields = typeof one.key === 'number' ? (AMD[one.key] ?? {}) : {};
  const open = (what: string) => set.open.push(`${what} of key ${keyText(one)}`);
  if (version !== null) {
    const { version: field } = fields;
    if (field === undefined) open('version');
    else if (field === 'image-id') add(set, field, bytesExpected(version.toLowerCase()));
    else
      add(set, field, {
        is: 'text',
        value: field === 'minimum-abi' ? version.replace(/^(\d+\.\d+)\.0$/, '$1') : version,
      });
  }
  if (svn !== null) {
    if (fields.svn === undefined) open('SVN');
    else if (fields.svn.startsWith('tcb-'))
      add(set, fields.svn, { is: 'tcb', value: littleEndian(svn.value), least: svn.least });
    else addNumber(set, fields.svn, svn, one);
  }
  if (digests.length > 0) {
    if (fields.digests === undefined) open('digests');
    else add(set, fields.digests, ...digests.map(({ value }) => bytesExpected(hex(value))));
  }
  if (raw !== null) {
    if (fields.raw === undefined || fields.raw === 'vmpl') open('raw value');
    else add(set, fields.raw, bytesExpected(hex(raw.value), raw.mask === null ? null : hex(raw.mask)));
  }
  if (rawNumber !== null) {
    if (fields.raw !== 'vmpl') open('raw value');
    else add(set, 'vmpl', { is: 'number', value: rawNumber, least: false });
  }
  for (const [code, value] of flags) {
    const bit = fields.flags === undefined ? null : amdBit(fields.flags, code);
    if (bit === null) open(`flag ${code}`);
    else add(set, bit, { is: 'bit', value });
  }
  if (registers.size > 0) open('integrity registers');
}

/** The eight bytes of a TCB that is counted as one number. */
function littleEndian(value: number | bigint): string {
  const number = BigInt(value);
  return Array.from({ length: 8 }, (_, i) => Number((number >> BigInt(8 * i)) & 0xffn))
    .map((byte) => byte.toString(16).padStart(2, '0'))
    .join('');
}

/** is-debug is bit 19 of POLICY; -1 is bit 16, -2 to -8 are bits 18 to 24, from there on one by one; PLATFORM_INFO from -49. */
function amdBit(of: 'policy' | 'platform', code: number): string | null {
  if (of === 'platform') return code <= -49 && code >= -112 ? `platform-bit-${-49 - code}` : null;
  if (code === 3) return 'policy-bit-19';
  if (code === -1) return 'policy-bit-16';
  return code <= -2 && code >= -47 ? `policy-bit-${16 - code}` : null;
}
