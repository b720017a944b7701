/** TCB info and QE identity, as Intel's PCS (API v4) and the tools that cache it write them. */
import { hex } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { asciiBytes, fromHex } from '../bytes.ts';
import { isObject, type JsonObject, readJson } from '../json.ts';
import { readTime } from '../time.ts';

export const TCB_STATUSES = [
  'UpToDate',
  'SWHardeningNeeded',
  'ConfigurationNeeded',
  'ConfigurationAndSWHardeningNeeded',
  'OutOfDate',
  'OutOfDateConfigurationNeeded',
  'Revoked',
] as const;
export type TcbStatus = (typeof TCB_STATUSES)[number];

/** What both documents have in common. */
export interface Signed {
  /** The bytes that Intel signed. */
  readonly body: Uint8Array;
  /** r || s. */
  readonly signature: Uint8Array;
  readonly issueDate: number;
  readonly nextUpdate: number;
  readonly evaluationNumber: number;
}

export interface TcbLevel {
  readonly status: TcbStatus;
  /** Milliseconds since 1970; what is of this level has all fixes of before then. */
  readonly date: number;
  readonly advisories: readonly string[];
}

export interface PlatformLevel extends TcbLevel {
  /** 16 each. */
  readonly sgx: readonly number[];
  readonly tdx: readonly number[];
  readonly pceSvn: number;
}

export interface EnclaveLevel extends TcbLevel {
  readonly isvSvn: number;
}

export interface TdxModule {
  /** `TDX_03`; null for the entry of modules of version 0. */
  readonly id: string | null;
  readonly mrSigner: Uint8Array;
  readonly attributes: Uint8Array;
  readonly attributesMask: Uint8Array;
  readonly levels: readonly EnclaveLevel[];
}

export interface TcbInfo extends Signed {
  readonly kind: 'tcb-info';
  readonly id: string;
  readonly fmspc: string;
  readonly pceId: string;
  readonly modules: readonly TdxModule[];
  readonly levels: readonly PlatformLevel[];
}

export interface QeIdentity extends Signed {
  readonly kind: 'qe-identity';
  readonly id: string;
  readonly miscSelect: Uint8Array;
  readonly miscSelectMask: Uint8Array;
  readonly attributes: Uint8Array;
  readonly attributesMask: Uint8Array;
  readonly mrSigner: Uint8Array;
  readonly isvProdId: number;
  readonly levels: readonly EnclaveLevel[];
}

const LEVEL_LIMIT = 256;
const ADVISORY_LIMIT = 128;

/** The PCS's answer: `{"tcbInfo":{…},"signature":"…"}` or `{"enclaveIdentity":{…},"signature":"…"}`. */
export function readCollateral(text: string): Result<TcbInfo | QeIdentity> {
  const read = readJson(text);
  if (!read.ok) return read;
  const { value, members } = read.value;
  const signature = isObject(value) ? value['signature'] : undefined;
  const tcbInfo = members.get('tcbInfo');
  const identity = members.get('enclaveIdentity');
  if (typeof signature !== 'string' || (tcbInfo === undefined) === (identity === undefined))
    return fail('collateral-invalid', 'neither TCB info nor QE identity with a signature');
  return tcbInfo !== undefined ? readTcbInfo(tcbInfo, signature) : readQeIdentity(identity ?? '', signature);
}

/** `body` is the text that was signed, `signature` 128 hex digits. Codes: `json-invalid`, `collateral-invalid`. */
export function readTcbInfo(body: string, signature: string): Result<TcbInfo> {
  return readDocument(body, signature, (document, signed): TcbInfo => {
    if (document.number('version') !== 3) document.refuse('version 3 is needed');
    const single = document.has('tdxModule') ? [readModule(document.object('tdxModule'), null)] : [];
    const several = document.has('tdxModuleIdentities')
      ? document.objects('tdxModuleIdentities').map((one) => readModule(one, one.text('id')))
      : [];
    return {
      kind: 'tcb-info',
      ...signed,
      id: document.text('id'),
      fmspc: hex(document.hex('fmspc', 6)),
      pceId: hex(document.hex('pceId', 2)),
      modules: [...single, ...several],
      levels: document.objects('tcbLevels').map((level) => {
        const tcb = level.object('tcb');
        const svns = (name: string) => {
          const found = tcb.objects(name).map((one) => one.number('svn', 255));
          if (found.length !== 16) tcb.refuse(`${name} has ${found.length} parts, 16 are needed`);
          return found;
        };
        return {
          ...readLevel(level),
          sgx: svns('sgxtcbcomponents'),
          tdx: tcb.has('tdxtcbcomponents') ? svns('tdxtcbcomponents') : [],
          pceSvn: tcb.number('pcesvn'),
        };
      }),
    };
  });
}

/** As `readTcbInfo`. */
export function readQeIdentity(body: string, signature: string): Result<QeIdentity> {
  return readDocument(body, signature, (document, signed): QeIdentity => {
    if (document.number('version') !== 2) document.refuse('version 2 is needed');
    return {
      kind: 'qe-identity',
      ...signed,
      id: document.text('id'),
      miscSelect: document.hex('miscselect', 4),
      miscSelectMask: document.hex('miscselectMask', 4),
      attributes: document.hex('attributes', 16),
      attributesMask: document.hex('attributesMask', 16),
      mrSigner: document.hex('mrsigner', 32),
      isvProdId: document.number('isvprodid'),
      levels: document.objects('tcbLevels').map(readEnclaveLevel),
    };
  });
}

function readDocument<T>(
  body: string,
  signatureText: string,
  read: (document: Fields, signed: Signed) => T,
): Result<T> {
  const json = readJson(body);
  if (!json.ok) return json;
  const signature = fromHex(signatureText);
  if (signature?.length !== 64) return fail('collateral-invalid', 'the signature is not 64 bytes in hex');
  // Intel writes ASCII; with anything else text and signed bytes could differ.
  if (!/^[\x09\x0a\x0d\x20-\x7e]*$/.test(body)) return fail('collateral-invalid', 'not ASCII');
  const fault: Fault = { message: null };
  const document = fieldsOf(json.value.value, fault);
  const signed: Signed = {
    body: asciiBytes(body),
    signature,
    issueDate: document.time('issueDate'),
    nextUpdate: document.time('nextUpdate'),
    evaluationNumber: document.number('tcbEvaluationDataNumber'),
  };
  const value = read(document, signed);
  return fault.message === null ? ok(value) : fail('collateral-invalid', fault.message);
}

function readModule(module: Fields, id: string | null): TdxModule {
  return {
    id,
    mrSigner: module.hex('mrsigner', 48),
    attributes: module.hex('attributes', 8),
    attributesMask: module.hex('attributesMask', 8),
    levels: module.has('tcbLevels') ? module.objects('tcbLevels').map(readEnclaveLevel) : [],
  };
}

function readEnclaveLevel(level: Fields): EnclaveLevel {
  return { ...readLevel(level), isvSvn: level.object('tcb').number('isvsvn') };
}

function readLevel(level: Fields): TcbLevel {
  const said = level.text('tcbStatus');
  const status = TCB_STATUSES.find((one) => one === said);
  if (status === undefined) level.refuse('tcbStatus is none that Intel documents');
  return {
    status: status ?? 'Revoked',
    date: level.time('tcbDate'),
    advisories: level.has('advisoryIDs') ? level.texts('advisoryIDs') : [],
  };
}

interface Fault {
  message: string | null;
}

/** Members of an object by the type they must have; the first that has not is kept. */
interface Fields {
  has(name: string): boolean;
  refuse(what: string): void;
  text(name: string): string;
  texts(name: string): string[];
  number(name: string, most?: number): number;
  hex(name: string, length: number): Uint8Array;
  time(name: string): number;
  object(name: string): Fields;
  objects(name: string): Fields[];
}

function fieldsOf(value: unknown, fault: Fault): Fields {
  const members: JsonObject = isObject(value) ? value : {};
  const refuse = (what: string): void => {
    fault.message ??= what;
  };
  if (!isObject(value)) refuse('an object was expected');
  const has = (name: string) => Object.hasOwn(members, name);
  const list = (name: string, limit: number): readonly unknown[] => {
    const found = has(name) ? members[name] : undefined;
    if (Array.isArray(found) && found.length <= limit) return found as readonly unknown[];
    refuse(`${name} is not a list of at most ${limit}`);
    return [];
  };
  const text = (name: string): string => {
    const found = has(name) ? members[name] : undefined;
    if (typeof found === 'string' && found.length <= 256) return found;
    refuse(`${name} is not a text`);
    return '';
  };
  return {
    has,
    refuse,
    text,
    texts: (name) =>
      list(name, ADVISORY_LIMIT).map((one) => {
        if (typeof one === 'string' && /^[\x20-\x7e]{1,64}$/.test(one)) return one;
        refuse(`${name} holds what is no id`);
        return '';
      }),
    number: (name, most = 0xffff) => {
      const found = has(name) ? members[name] : undefined;
      if (typeof found === 'number' && Number.isInteger(found) && found >= 0 && found <= most) return found;
      refuse(`${name} is not a number from 0 to ${most}`);
      return 0;
    },
    hex: (name, length) => {
      const bytes = fromHex(text(name));
      if (bytes?.length === length) return bytes;
      refuse(`${name} is not ${length} bytes in hex`);
      return new Uint8Array(length);
    },
    time: (name) => {
      const moment = readTime(text(name));
      if (moment === undefined) refuse(`${name} is not a time`);
      return moment ?? 0;
    },
    object: (name) => fieldsOf(has(name) ? members[name] : undefined, fault),
    objects: (name) => list(name, LEVEL_LIMIT).map((one) => fieldsOf(one, fault)),
  };
}
