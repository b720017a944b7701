/**
 * Concise Reference Integrity Manifests (draft-ietf-rats-corim): signed or not, and the CoMIDs in them, whose triples say
 * what an environment should measure and with which keys it attests.
 */
import { hex } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { asciiBytes, latin1 } from '../bytes.ts';
import { type Cbor, isTag, readCbor } from '../cbor.ts';
import { type CoseSign1, readCoseSign1 } from '../cose.ts';
import { knownCertificate } from '../x509/certificate.ts';
import { readPem } from '../x509/pem.ts';
import { readSpki } from '../x509/spki.ts';

/** Named Information hash algorithms (RFC 6920, IANA). */
const HASHES: ReadonlyMap<string, string> = new Map([
  ['1', 'sha256'],
  ['7', 'sha384'],
  ['8', 'sha512'],
  ['10', 'sha3-256'],
  ['11', 'sha3-384'],
  ['12', 'sha3-512'],
]);
const CORIM = 501;
const COMID = 506;
const SIGN1 = 18;
const TIME = 1;
const SVN = 552;
const MIN_SVN = 553;
const PEM_KEY = 554;
const RAW = 560;
const MASKED_RAW = 563;
const COMPONENT = 601;
const CONTENT_TYPE = 3;
const META = 8;
const TAG_LIMIT = 64;
const TRIPLE_LIMIT = 4096;
const TEXT_LIMIT = 256;
/** conditional-endorsement-series-triples */
const SERIES = 8;
const SERIES_LIMIT = 256;
const RECORD_LIMIT = 64;

export interface Period {
  /** Milliseconds since 1970; null where there is no such end. */
  readonly from: number | null;
  readonly until: number | null;
}

export interface Environment {
  /** `uuid:…`, `oid:…`, `implementation-id:…`, or a tag and its bytes. */
  readonly classId: string | null;
  readonly vendor: string | null;
  readonly model: string | null;
  readonly layer: number | null;
  readonly index: number | null;
  /** In hex, as the instance is named. */
  readonly instance: string | null;
}

export interface Digest {
  /** `sha256`, or the number of one that is not known. */
  readonly algorithm: string;
  readonly value: Uint8Array;
}

export interface CorimMeasurement {
  readonly environment: Environment;
  /** What is measured: a number, a text, or a tag in words; null where the environment measures one thing. */
  readonly key: number | string | null;
  readonly name: string | null;
  readonly version: string | null;
  /** One that must be, or one that is the least. */
  readonly svn: { readonly value: number | bigint; readonly least: boolean } | null;
  readonly digests: readonly Digest[];
  readonly raw: { readonly value: Uint8Array; readonly mask: Uint8Array | null } | null;
  /** A raw value that is a number. */
  readonly rawNumber: number | null;
  /** By code point; those below zero are a profile's. */
  readonly flags: ReadonlyMap<number, boolean>;
  /** Of integrity registers, by number or name. */
  readonly registers: ReadonlyMap<number | string, readonly Digest[]>;
  /** Who signed what is measured: digests of keys, in hex. */
  readonly signers: readonly string[];
  /** Arm's form of a key before profiles: component type, version, signer. */
  readonly component: {
    readonly type: string | null;
    readonly version: string | null;
    readonly signer: string | null;
  } | null;
  /** Code points of values that are not read: nothing can be compared with them. */
  readonly unread: readonly number[];
}

/** Values that hold of an environment where its evidence has others: the first of a series whose condition holds. */
export interface CorimCondition {
  readonly environment: Environment;
  readonly condition: readonly CorimMeasurement[];
  readonly series: readonly {
    readonly when: readonly CorimMeasurement[];
    readonly endorsed: readonly CorimMeasurement[];
  }[];
}

export interface Corim {
  readonly id: string;
  readonly profile: string | null;
  readonly validity: Period;
  /** Reference triples: any of those of one environment and key. */
  readonly references: readonly CorimMeasurement[];
  /** Endorsed triples: what holds of an environment that is attested. */
  readonly endorsements: readonly CorimMeasurement[];
  readonly conditions: readonly CorimCondition[];
  /** Keys that environments attest with, SubjectPublicKeyInfo. */
  readonly attestKeys: readonly { readonly environment: Environment; readonly spki: Uint8Array }[];
  /** Kinds of triples that were read over, by number. */
  readonly otherTriples: readonly number[];
  /** CBOR tags of what is no CoMID: 505 is a CoSWID, which lists files of an installation. */
  readonly otherTags: readonly number[];
  readonly signature: {
    readonly message: CoseSign1;
    readonly signer: string | null;
    readonly validity: Period;
  } | null;
}

type CborMap = ReadonlyMap<number | string, Cbor>;

export function isCorim(bytes: Uint8Array): boolean {
  // Tag 501; or tag 18, a COSE_Sign1, whose header says that it is one.
  if (bytes[0] === 0xd9 && bytes[1] === 0x01 && bytes[2] === 0xf5) return true;
  return bytes[0] === 0xd2 && /application\/rim\+cbor/.test(latin1(bytes.subarray(0, 512)));
}

/** Codes: `corim-invalid`, `cose-invalid`, `cbor-invalid`. */
export function readCorim(bytes: Uint8Array): Result<Corim> {
  const read = readCbor(bytes);
  if (!read.ok) return read;
  if (!isTag(read.value, SIGN1)) return readPayload(read.value, null);
  const message = readCoseSign1(bytes);
  if (!message.ok) return message;
  const { header, payload } = message.value;
  const type = header.get(CONTENT_TYPE);
  if (type !== 'application/rim+cbor' && type !== 'application/corim-unsigned+cbor')
    return fail('corim-invalid', 'the signed content is not said to be a CoRIM');
  const metaBytes = header.get(META);
  const meta = metaBytes instanceof Uint8Array ? readCbor(metaBytes) : null;
  if (meta !== null && !meta.ok) return meta;
  const metaMap = meta === null ? null : mapOf(meta.value);
  const signer = mapOf(metaMap?.get(0));
  const validity = periodOf(metaMap?.get(1));
  if (validity === null || (meta !== null && metaMap === null)) return fail('corim-invalid', 'meta');
  const inner = readCbor(payload);
  if (!inner.ok) return inner;
  return readPayload(inner.value, { message: message.value, signer: textOf(signer?.get(0)), validity });
}

function readPayload(value: Cbor, signature: Corim['signature']): Result<Corim> {
  const wrong = (what: string) => fail('corim-invalid', what);
  const corim = isTag(value, CORIM) ? mapOf(value.value) : null;
  if (corim === null) return wrong('no map with tag 501');
  const id = idOf(corim.get(0));
  const tags = corim.get(1);
  const validity = periodOf(corim.get(4));
  if (id === null || validity === null) return wrong('id or validity');
  if (!Array.isArray(tags) || tags.length > TAG_LIMIT) return wrong(`no list of at most ${TAG_LIMIT} tags`);
  const draft: Draft = {
    references: [],
    endorsements: [],
    conditions: [],
    attestKeys: [],
    otherTriples: new Set(),
    otherTags: new Set(),
  };
  for (const [i, tag] of (tags as readonly Cbor[]).entries()) {
    // CoSWID (505) and others are not reference values of measurements.
    if (!isTag(tag, COMID)) {
      draft.otherTags.add(isAnyTag(tag) ? tag.tag : 0);
      continue;
    }
    const comid = tag.value instanceof Uint8Array ? readCbor(tag.value) : null;
    if (comid === null || !comid.ok) return wrong(`tag ${i} is no CoMID`);
    const problem = readComid(draft, comid.value);
    if (problem !== null) return wrong(`CoMID ${i}: ${problem}`);
  }
  const profile = corim.get(3);
  return ok({
    id,
    profile: profile === undefined ? null : (textOf(profile) ?? tagText(profile)),
    validity,
    ...draft,
    otherTriples: [...draft.otherTriples],
    otherTags: [...draft.otherTags],
    signature,
  });
}

interface Draft {
  readonly references: CorimMeasurement[];
  readonly endorsements: CorimMeasurement[];
  readonly conditions: CorimCondition[];
  readonly attestKeys: { readonly environment: Environment; readonly spki: Uint8Array }[];
  readonly otherTriples: Set<number>;
  readonly otherTags: Set<number>;
}

/** Or what is wrong. */
function readComid(draft: Draft, value: Cbor): string | null {
  const comid = mapOf(value);
  const triples = mapOf(comid?.get(4));
  if (comid === null || triples === null) return 'no triples';
  for (const [kind, list] of triples) {
    if (!Array.isArray(list)) return `triples ${kind} are no list`;
    if (kind === SERIES) {
      for (const record of list as readonly Cbor[]) {
        if (draft.conditions.length >= SERIES_LIMIT) return `more than ${SERIES_LIMIT} conditional endorsements`;
        const condition = seriesOf(record);
        if (typeof condition === 'string') return condition;
        draft.conditions.push(condition);
      }
      continue;
    }
    if (kind !== 0 && kind !== 1 && kind !== 3) {
      if (typeof kind === 'number') draft.otherTriples.add(kind);
      continue;
    }
    for (const triple of list as readonly Cbor[]) {
      if (draft.references.length + draft.endorsements.length + draft.attestKeys.length > TRIPLE_LIMIT)
        return `more than ${TRIPLE_LIMIT} values`;
      const [where, what] = Array.isArray(triple) && triple.length >= 2 ? (triple as readonly Cbor[]) : [];
      const environment = where === undefined ? null : environmentOf(where);
      if (environment === null || !Array.isArray(what)) return `a triple of kind ${kind}`;
      for (const one of what as readonly Cbor[]) {
        if (kind === 3) {
          const spki = keyOf(one);
          if (spki === null) return 'an attestation key that is no public key or certificate in PEM';
          draft.attestKeys.push({ environment, spki });
          continue;
        }
        const measurement = measurementOf(environment, one);
        if (typeof measurement === 'string') return measurement;
        (kind === 0 ? draft.references : draft.endorsements).push(measurement);
      }
    }
  }
  return null;
}

/** [[environment, [measurement]], [[[measurement], [measurement]], …]]; or what is wrong. */
function seriesOf(value: Cbor): CorimCondition | string {
  const wrong = 'a conditional endorsement';
  const [state, records] = Array.isArray(value) && value.length === 2 ? (value as readonly Cbor[]) : [];
  const [where, given] =
    Array.isArray(state) && state.length >= 1 && state.length <= 3 ? (state as readonly Cbor[]) : [];
  const environment = where === undefined ? null : environmentOf(where);
  if (environment === null || !Array.isArray(records) || records.length > RECORD_LIMIT) return wrong;
  const condition = measurementsOf(environment, given ?? []);
  if (typeof condition === 'string') return condition;
  const series: CorimCondition['series'][number][] = [];
  for (const record of records as readonly Cbor[]) {
    const [refv, endv] = Array.isArray(record) && record.length === 2 ? (record as readonly Cbor[]) : [];
    const when = measurementsOf(environment, refv ?? null);
    const endorsed = measurementsOf(environment, endv ?? null);
    if (typeof when === 'string' || typeof endorsed === 'string') return wrong;
    series.push({ when, endorsed });
  }
  return { environment, condition, series };
}

/** Or what is wrong. */
function measurementsOf(environment: Environment, value: Cbor): readonly CorimMeasurement[] | string {
  if (!Array.isArray(value) || value.length > RECORD_LIMIT) return `no list of at most ${RECORD_LIMIT} measurements`;
  const measurements: CorimMeasurement[] = [];
  for (const one of value as readonly Cbor[]) {
    const measurement = measurementOf(environment, one);
    if (typeof measurement === 'string') return measurement;
    measurements.push(measurement);
  }
  return measurements;
}

function environmentOf(value: Cbor): Environment | null {
  const environment = mapOf(value);
  if (environment === null) return null;
  const named = environment.get(0);
  const group = named === undefined ? new Map<number, Cbor>() : mapOf(named);
  if (group === null) return null;
  const instance = environment.get(1);
  const number = (key: number): number | null => {
    const found = group.get(key);
    return typeof found === 'number' && found >= 0 ? found : null;
  };
  return {
    classId: classIdOf(group.get(0)),
    vendor: textOf(group.get(1)),
    model: textOf(group.get(2)),
    layer: number(3),
    index: number(4),
    instance: instance === undefined ? null : bytesText(instance),
  };
}

const CLASS_TAGS: Readonly<Record<number, string>> = { 37: 'uuid', 111: 'oid', 560: 'bytes', 600: 'implementation-id' };

function classIdOf(value: Cbor | undefined): string | null {
  if (value === undefined || !isAnyTag(value)) return null;
  const bytes = value.value instanceof Uint8Array ? hex(value.value) : null;
  return bytes === null ? null : `${CLASS_TAGS[value.tag] ?? `tag-${value.tag}`}:${bytes}`;
}

/** Or what is wrong. */
function measurementOf(environment: Environment, value: Cbor): CorimMeasurement | string {
  const measurement = mapOf(value);
  const values = mapOf(measurement?.get(1));
  if (measurement === null || values === null) return 'a measurement without values';
  const key = measurement.get(0);
  const digests = digestsOf(values.get(2) ?? []);
  if (typeof digests === 'string') return digests;
  const version = mapOf(values.get(0));
  const svn = svnOf(values.get(1));
  const raw = rawOf(values.get(4), values.get(5));
  if (svn === undefined || raw === undefined) return 'SVN or raw value';
  const flags = flagsOf(values.get(3));
  const registers = registersOf(values.get(14));
  const signers = signersOf(values.get(13));
  if (flags === null || registers === null || signers === null) return 'flags, keys or integrity registers';
  const component = key !== undefined && isTag(key, COMPONENT) ? mapOf(key.value) : null;
  const signer = component?.get(5);
  const rawNumber = values.get(4);
  return {
    rawNumber: typeof rawNumber === 'number' ? rawNumber : null,
    ...{ flags, registers, signers },
    component:
      component === null
        ? null
        : {
            type: textOf(component.get(1)),
            version: textOf(component.get(4)),
            signer: signer instanceof Uint8Array ? hex(signer) : null,
          },
    unread: [...values.keys()].filter((code) => typeof code !== 'number' || !READ.includes(code)).map(Number),
    environment,
    key: key === undefined ? null : typeof key === 'number' ? key : (textOf(key) ?? tagText(key)),
    name: textOf(values.get(11)),
    version: textOf(version?.get(0)),
    svn,
    digests,
    raw,
  };
}

/** Code points of a measurement's values that are read; 6 to 10 name the thing, and are no measurement. */
const READ: readonly number[] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14];

/** Or what is wrong. */
function digestsOf(listed: Cbor): readonly Digest[] | string {
  if (!Array.isArray(listed) || listed.length > 64) return 'digests are no list of at most 64';
  const digests: Digest[] = [];
  for (const one of listed as readonly Cbor[]) {
    const [algorithm, digest] = Array.isArray(one) && one.length === 2 ? (one as readonly Cbor[]) : [];
    if ((typeof algorithm !== 'number' && typeof algorithm !== 'string') || !(digest instanceof Uint8Array))
      return 'a digest that is not an algorithm and bytes';
    if (digest.length < 20 || digest.length > 64) return `a digest of ${digest.length} bytes`;
    digests.push({
      algorithm: HASHES.get(String(algorithm)) ?? String(algorithm).replace('sha-', 'sha'),
      value: digest,
    });
  }
  return digests;
}

function flagsOf(value: Cbor | undefined): ReadonlyMap<number, boolean> | null {
  if (value === undefined) return new Map();
  const flags = new Map<number, boolean>();
  for (const [code, set] of mapOf(value) ?? [['', null] as const]) {
    if (typeof code !== 'number' || typeof set !== 'boolean') return null;
    flags.set(code, set);
  }
  return flags;
}

function registersOf(value: Cbor | undefined): ReadonlyMap<number | string, readonly Digest[]> | null {
  if (value === undefined) return new Map();
  const map = mapOf(value);
  if (map === null || map.size > 64) return null;
  const registers = new Map<number | string, readonly Digest[]>();
  for (const [name, listed] of map) {
    const digests = digestsOf(listed);
    if (typeof digests === 'string') return null;
    registers.set(name, digests);
  }
  return registers;
}

/** Bytes (tag 560), or digests of keys (tag 557); whole keys name nobody that evidence states. */
function signersOf(value: Cbor | undefined): readonly string[] | null {
  if (value === undefined) return [];
  if (!Array.isArray(value) || value.length > 16) return null;
  return (value as readonly Cbor[]).flatMap((one) => {
    const inner = isAnyTag(one) ? one.value : one;
    const bytes = Array.isArray(inner) ? (inner as readonly Cbor[])[1] : inner;
    return bytes instanceof Uint8Array ? [hex(bytes)] : [];
  });
}

function svnOf(value: Cbor | undefined): CorimMeasurement['svn'] | undefined {
  if (value === undefined) return null;
  const plain = isTag(value, SVN) || isTag(value, MIN_SVN) ? value.value : value;
  return typeof plain === 'bigint' || (typeof plain === 'number' && plain >= 0)
    ? { value: plain, least: isTag(value, MIN_SVN) }
    : undefined;
}

function rawOf(value: Cbor | undefined, given: Cbor | undefined): CorimMeasurement['raw'] | undefined {
  if (value === undefined || typeof value === 'number') return null;
  if (isTag(value, MASKED_RAW)) {
    const [bytes, mask] = Array.isArray(value.value) ? (value.value as readonly Cbor[]) : [];
    const fits = bytes instanceof Uint8Array && mask instanceof Uint8Array && mask.length === bytes.length;
    return fits ? { value: bytes, mask } : undefined;
  }
  const bytes = isTag(value, RAW) ? value.value : value;
  if (!(bytes instanceof Uint8Array)) return undefined;
  if (given === undefined) return { value: bytes, mask: null };
  return given instanceof Uint8Array && given.length === bytes.length ? { value: bytes, mask: given } : undefined;
}

/** Tag 554 is a public key in PEM, 555 a certificate, 556 a path of them of which the first counts. */
function keyOf(value: Cbor): Uint8Array | null {
  if (!isTag(value, PEM_KEY) && !isTag(value, 555) && !isTag(value, 556)) return null;
  const text = typeof value.value === 'string' ? value.value : null;
  const blocks = text === null ? null : readPem(text);
  const [block] = blocks?.ok === true ? blocks.value : [];
  if (block === undefined) return null;
  if (block.label === 'PUBLIC KEY') {
    const spki = readSpki(block.bytes);
    return spki.ok ? spki.value : null;
  }
  const certificate = block.label === 'CERTIFICATE' ? knownCertificate(block.bytes) : null;
  return certificate?.ok === true ? certificate.value.spki : null;
}

function periodOf(value: Cbor | undefined): Period | null {
  if (value === undefined) return { from: null, until: null };
  const period = mapOf(value);
  if (period === null) return null;
  const at = (key: number): number | null | undefined => {
    const found = period.get(key);
    if (found === undefined) return null;
    const seconds = isTag(found, TIME) ? found.value : found;
    return typeof seconds === 'number' ? seconds * 1000 : undefined;
  };
  const [from, until] = [at(0), at(1)];
  return from === undefined || until === undefined ? null : { from, until };
}

function mapOf(value: Cbor | undefined): CborMap | null {
  return value instanceof Map ? (value as CborMap) : null;
}

function textOf(value: Cbor | undefined): string | null {
  return typeof value === 'string' && value.length <= TEXT_LIMIT ? value : null;
}

function idOf(value: Cbor | undefined): string | null {
  return value instanceof Uint8Array && value.length <= 64 ? hex(value) : textOf(value);
}

function isAnyTag(value: Cbor): value is { readonly tag: number; readonly value: Cbor } {
  return typeof value === 'object' && value !== null && 'tag' in value;
}

function bytesText(value: Cbor): string | null {
  const inner = isAnyTag(value) ? value.value : value;
  return inner instanceof Uint8Array ? hex(inner) : null;
}

/** `602:cfg v1.0.0`, `37:31fb…`, `601:{1:BL,…}`: a tagged key in one form, for comparison and for people. */
function tagText(value: Cbor): string {
  if (isAnyTag(value)) return `${value.tag}:${tagText(value.value)}`;
  if (value instanceof Uint8Array) return hex(value.subarray(0, TEXT_LIMIT));
  if (value instanceof Map)
    return `{${[...(value as CborMap)]
      .map(([name, one]) => `${name}:${tagText(one)}`)
      .sort()
      .join(',')}}`;
  return latin1(asciiBytes(String(value).slice(0, TEXT_LIMIT)));
}
