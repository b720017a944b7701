/** A profile: what a responder pretends to be, as parsed from YAML or JSON. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { asciiBytes, fromHex } from '@airlock/evidence/bytes.ts';
import { SPDM_VERSIONS, type SpdmVersion } from '../algorithms.ts';
import { parsePciName } from '../identity/pci-name.ts';
import { MEASUREMENT_TYPES } from '../messages/measurements.ts';
import type { ResponderMeasurement } from '../responder/state.ts';
import { type InterfaceReport, RANGE_ATTRIBUTE } from '../tdisp/report.ts';
import { LIES, type Lie } from './hostile.ts';

export interface Profile {
  readonly versions: readonly SpdmVersion[];
  /** CMA name for the leaf of a made-up device; null for none. */
  readonly name: string | null;
  /** Files of a real chain and its key, in place of made-up ones. */
  readonly files: { readonly chain: string; readonly key: string } | null;
  readonly measurements: readonly ResponderMeasurement[];
  /** Functions that speak TDISP in a session. */
  readonly tdisp: readonly ProfileInterface[];
  readonly hostile: Lie | null;
  /** Hands everything on to the responder there: `tcp://HOST:PORT`. */
  readonly relay: string | null;
}

export interface ProfileInterface {
  /** FUNCTION_ID */
  readonly id: number;
  /** With MSI-X locked. */
  readonly report: InterfaceReport;
}

const MEASUREMENT_LIMIT = 239;
const VALUE_LIMIT = 4096;

export const DEFAULT_PROFILE: Profile = {
  versions: ['1.1', '1.2', '1.3', '1.4'],
  name: null,
  files: null,
  measurements: [
    { index: 1, typeCode: 0, raw: false, value: asciiBytes('Airlock made-up ROM'), tcb: true },
    { index: 2, typeCode: 1, raw: false, value: asciiBytes('Airlock made-up firmware 1.0'), tcb: true },
    { index: 16, typeCode: 7, raw: true, value: Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0), tcb: true },
  ],
  tdisp: [],
  hostile: null,
  relay: null,
};

/** Strict: an unknown key is an error. Codes: `profile-invalid`. */
export function readProfile(given: unknown, source: string): Result<Profile> {
  const refuse = (message: string): Result<never> => fail('profile-invalid', `${source}: ${message}`);
  if (typeof given !== 'object' || given === null || Array.isArray(given)) return refuse('a map is needed at the top');
  const whole = given as Readonly<Record<string, unknown>>;
  const keys = ['version', 'spdm', 'name', 'chain', 'key', 'measurements', 'tdisp', 'hostile', 'relay'];
  const unknown = Object.keys(whole).find((key) => !keys.includes(key));
  if (unknown !== undefined) return refuse(`unknown key ${unknown}; known: ${keys.join(', ')}`);
  if (whole['version'] !== 1) return refuse('version: 1 is needed');
  const { spdm, name, chain, key, tdisp = [], hostile = null, relay = null } = whole;
  const versions = spdm === undefined ? DEFAULT_PROFILE.versions : versionsOf(spdm);
  if (versions === undefined) return refuse(`spdm is a list out of ${SPDM_VERSIONS.join(', ')}`);
  if (name !== undefined && (typeof name !== 'string' || parsePciName(name) === undefined))
    return refuse('name is Vendor=1af4:Device=1041:CC=020000:REV=01:SSVID=1af4:SSID=0001');
  if ((chain === undefined) !== (key === undefined)) return refuse('chain and key belong together');
  if ((chain !== undefined && typeof chain !== 'string') || (key !== undefined && typeof key !== 'string'))
    return refuse('chain and key are files');
  if (chain !== undefined && name !== undefined) return refuse('name is for a made-up device; a chain has its own');
  const lie = hostile === null ? null : LIES.find((one) => one === hostile);
  if (lie === undefined) return refuse(`hostile is one of ${LIES.join(', ')}`);
  if (relay !== null && typeof relay !== 'string') return refuse('relay is tcp://HOST:PORT');
  const functions = functionsOf(tdisp);
  if (typeof functions === 'string') return refuse(functions);
  const measurements =
    whole['measurements'] === undefined ? DEFAULT_PROFILE.measurements : measurementsOf(whole['measurements']);
  if (typeof measurements === 'string') return refuse(measurements);
  return ok({
    versions,
    name: name ?? null,
    files: chain === undefined || key === undefined ? null : { chain, key },
    measurements,
    tdisp: functions,
    hostile: lie,
    relay,
  });
}

function versionsOf(given: unknown): readonly SpdmVersion[] | undefined {
  if (!Array.isArray(given) || given.length === 0) return undefined;
  const found = (given as readonly unknown[]).map((one) => SPDM_VERSIONS.find((version) => version === String(one)));
  return found.every((one) => one !== undefined) ? SPDM_VERSIONS.filter((one) => found.includes(one)) : undefined;
}

/** A text says what is wrong. */
function measurementsOf(given: unknown): readonly ResponderMeasurement[] | string {
  if (!Array.isArray(given) || given.length > MEASUREMENT_LIMIT)
    return `measurements is a list of up to ${MEASUREMENT_LIMIT}`;
  const found: ResponderMeasurement[] = [];
  for (const [at, one] of (given as readonly unknown[]).entries()) {
    const where = `measurements[${at}]`;
    if (typeof one !== 'object' || one === null || Array.isArray(one)) return `${where}: a map is needed`;
    const entry = one as Readonly<Record<string, unknown>>;
    const unknown = Object.keys(entry).find((key) => !['index', 'type', 'hex', 'text', 'raw'].includes(key));
    if (unknown !== undefined) return `${where}: unknown key ${unknown}`;
    const { index, type, hex, text, raw = false } = entry;
    const typeCode = (MEASUREMENT_TYPES as readonly unknown[]).indexOf(type);
    if (typeof index !== 'number' || !Number.isInteger(index) || index < 1 || index > 0xfe)
      return `${where}: index is 1 to 254`;
    if (found.some((other) => other.index >= index)) return `${where}: indices ascend`;
    if (typeCode === -1) return `${where}: type is one of ${MEASUREMENT_TYPES.join(', ')}`;
    if (typeof raw !== 'boolean') return `${where}: raw is true or false`;
    const value =
      typeof hex === 'string' && text === undefined
        ? fromHex(hex)
        : typeof text === 'string' && hex === undefined
          ? asciiBytes(text)
          : undefined;
    if (value === undefined || value.length === 0 || value.length > VALUE_LIMIT)
      return `${where}: hex or text is the value`;
    found.push({ index, typeCode, raw, value, tcb: true });
  }
  return found;
}

/** A bare FUNCTION_ID has BAR 0 with four pages and no MSI-X. */
const BARE: InterfaceReport = {
  info: 0b11,
  msixControl: 0,
  lnrControl: 0,
  tphControl: 0,
  ranges: [{ firstPage: 0n, pages: 4, attributes: 0, rangeId: 0 }],
  deviceSpecific: new Uint8Array(),
};
const INTERFACE_LIMIT = 64;
const RANGE_LIMIT = 64;
const RANGE_MARKS: Readonly<Record<string, number>> = {
  'msix-table': RANGE_ATTRIBUTE.msixTable,
  'msix-pba': RANGE_ATTRIBUTE.msixPba,
  'non-tee': RANGE_ATTRIBUTE.nonTee,
};

function isWhole(value: unknown, most: number): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= most;
}

/** A text says what is wrong. */
function functionsOf(given: unknown): readonly ProfileInterface[] | string {
  if (!Array.isArray(given) || given.length > INTERFACE_LIMIT) return `tdisp is a list of up to ${INTERFACE_LIMIT}`;
  const found: ProfileInterface[] = [];
  for (const [at, one] of (given as readonly unknown[]).entries()) {
    const where = `tdisp[${at}]`;
    const entry =
      typeof one === 'object' && one !== null ? (one as Readonly<Record<string, unknown>>) : { function: one };
    const unknown = Object.keys(entry).find((key) => !['function', 'msix', 'ranges'].includes(key));
    if (unknown !== undefined) return `${where}: unknown key ${unknown}`;
    const { function: id, msix = 0, ranges } = entry;
    if (!isWhole(id, 2 ** 25 - 1)) return `${where}: a FUNCTION_ID, as 0xbeef`;
    if (!isWhole(msix, 2048)) return `${where}: msix is a number of vectors, up to 2048`;
    const read = ranges === undefined ? BARE.ranges : rangesOf(ranges, where);
    if (typeof read === 'string') return read;
    found.push({ id, report: { ...BARE, msixControl: msix === 0 ? 0 : msix - 1, ranges: read } });
  }
  return found;
}

function rangesOf(given: unknown, where: string): InterfaceReport['ranges'] | string {
  if (!Array.isArray(given) || given.length > RANGE_LIMIT) return `${where}: ranges is a list of up to ${RANGE_LIMIT}`;
  const ranges: InterfaceReport['ranges'][number][] = [];
  for (const one of given as readonly unknown[]) {
    const entry = typeof one === 'object' && one !== null ? (one as Readonly<Record<string, unknown>>) : {};
    const { id, page = 0, pages, is = [] } = entry;
    const stray = Object.keys(entry).some((key) => !['id', 'page', 'pages', 'is'].includes(key));
    const marks = Array.isArray(is) ? (is as readonly unknown[]).map((mark) => RANGE_MARKS[String(mark)]) : [undefined];
    if (
      stray ||
      !isWhole(id, 0xffff) ||
      !isWhole(page, 2 ** 52 - 1) ||
      !isWhole(pages, 0xffff_ffff) ||
      marks.includes(undefined)
    )
      return `${where}: a range is { id: BAR, page: first 4 KiB page, pages: how many, is: [${Object.keys(RANGE_MARKS).join(', ')}] }`;
    const attributes = marks.reduce<number>((all, mark) => all | (mark ?? 0), 0);
    ranges.push({ firstPage: BigInt(page), pages, attributes, rangeId: id });
  }
  return ranges;
}
