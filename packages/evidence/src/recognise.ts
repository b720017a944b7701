/**
 * What a file is, found out from its bytes alone: binary forms, hex, base64, PEM, and JSON of whatever tool, in which every
 * text and every list of bytes is looked at. Names of files say nothing.
 */
import type { Problem } from '@airlock/core/result.ts';
import { asciiBytes, concat, fromBase64, fromHex, latin1, u16le, u32le } from './bytes.ts';
import { isCcaToken, pointSpki, readCcaToken } from './cca/token.ts';
import { isCborCmw, readCborCmw } from './cmw.ts';
import { isCorim } from './corim/corim.ts';
import type { Found, Item } from './item.ts';
import { isObject, readJson } from './json.ts';
import { saysBundle } from './machine/bundle.ts';
import { isNvidiaReport, readNvidiaReport } from './nvidia/report.ts';
import { isRim, readRim } from './nvidia/rim.ts';
import { isSeExchange, isSeHeader, readSeHeader, readSeResponse } from './se/exchange.ts';
import { readCertificateTable } from './snp/certificate-table.ts';
import { REPORT_SIZE, readSnpReport } from './snp/report.ts';
import { readCollateral, readQeIdentity, readTcbInfo } from './tdx/collateral.ts';
import { readQuote } from './tdx/quote.ts';
import { bytesOfDump, bytesOfText, jsonLines, numberedBytes, textOf } from './text-forms.ts';
import { isEventLog, readEventLog } from './tpm/event-log.ts';
import { isHclReport, readHclReport } from './tpm/hcl.ts';
import { isPcrFile, readPcrFile } from './tpm/pcr-file.ts';
import { isPublicArea, readPublicArea, withoutSize } from './tpm/public-area.ts';
import {
  isAttest,
  isBincodeQuote,
  isDerSignature,
  joinQuote,
  readAttest,
  readBincodeQuote,
  readTpmSignature,
} from './tpm/quote.ts';
import { knownCertificate } from './x509/certificate.ts';
import { readRevocationList } from './x509/crl.ts';
import { isOcspResponse, readOcspResponse } from './x509/ocsp.ts';
import { readPem } from './x509/pem.ts';
import { readSpki } from './x509/spki.ts';

export const FILE_LIMIT = 8 * 1024 * 1024;
/** Wrappers within wrappers: base64 of JSON of hex of a quote is four. */
const DEPTH_LIMIT = 5;
const ITEM_LIMIT = 256;
/** Members of a JSON document that are looked at. */
const MEMBER_LIMIT = 4096;
/** Certificates, one after the other. */
const DER_LIMIT = 32;
/** Shorter texts are no evidence. */
const SHORTEST = 64;
const LINE_LIMIT = 256;
const WRAPPER_LIMIT = 64;
const PEM_LABELS: readonly string[] = ['CERTIFICATE', 'TRUSTED CERTIFICATE', 'X509 CRL', 'PUBLIC KEY'];
const TEE_TDX = 0x81;
/** A TDX quote’s header. */
const QUOTE_LEAST = 48;

export interface Recognition {
  readonly found: readonly Found[];
  /** Why the file is nothing, or why a part of it that looked like something is not. */
  readonly problems: readonly Problem[];
}

interface Search {
  readonly found: Found[];
  readonly problems: Problem[];
  members: number;
  crowded: boolean;
}

/** Codes: those of the formats, `file-too-large`, `file-not-recognised`. */
export function recognise(file: string, bytes: Uint8Array): Recognition {
  const search: Search = { found: [], problems: [], members: 0, crowded: false };
  if (bytes.length > FILE_LIMIT) {
    const message = `${bytes.length} bytes; nothing that can be verified is that long`;
    return { found: [], problems: [{ code: 'file-too-large', message }] };
  }
  look(search, bytes, file, 0);
  // What was not looked at could be the evidence that matters.
  if (search.crowded) {
    search.problems.push({
      code: 'file-too-crowded',
      message: `more than ${ITEM_LIMIT} things or ${MEMBER_LIMIT} members, or nested too deep`,
    });
  }
  const foreign = search.found.some(({ item }) => item.kind === 'se-response') ? withoutHeaders(search.found) : null;
  if (foreign !== null && foreign.length < search.found.length)
    return { found: foreign, problems: [...search.problems, HEADER_BESIDE] };
  if (search.found.length === 0 && search.problems.length === 0) {
    const other = otherwise(bytes);
    if (other !== null) return { found: [], problems: [{ code: 'file-not-recognised', ...other }] };
    const problem: Problem = {
      code: 'file-not-recognised',
      message: bytes.length === 0 ? 'the file is empty' : 'no evidence, certificate or collateral that is known',
      hint: 'known are SEV-SNP and NVIDIA reports, TDX and TPM quotes, CCA tokens, Secure Execution responses, TCG event logs, certificates, revocation lists, OCSP responses, NVIDIA manifests and Intel collateral; binary, hex, base64, PEM or JSON',
    };
    return { found: [], problems: [problem] };
  }
  return search;
}

/** What is no evidence and has its place elsewhere. */
function otherwise(bytes: Uint8Array): Pick<Problem, 'message' | 'hint'> | null {
  if (isCorim(bytes))
    return { message: 'a CoRIM: reference values, and no evidence', hint: 'give it with --reference' };
  const start = latin1(bytes.subarray(0, 512));
  if (start.includes('airlock-device-evidence'))
    return { message: 'evidence of one device that speaks SPDM', hint: 'airlock device evidence verify FILE reads it' };
  if (/-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(start)) return { message: 'a private key, and no evidence' };
  return null;
}

/** The image that a Secure Execution response is held against: the verifier's word, never that of whoever answers. */
export const HEADER_BESIDE: Problem = {
  code: 'se-header-invalid',
  message: 'the header of an image came together with the evidence; who answers does not say which image is expected',
  hint: 'give the header of your own image as a file of its own',
};

export function withoutHeaders(found: readonly Found[]): readonly Found[] {
  return found.filter(({ item }) => item.kind !== 'se-header');
}

function add(search: Search, source: string, item: Item): void {
  if (search.found.length < ITEM_LIMIT) search.found.push({ item, source });
  else search.crowded = true;
}

/** True when it was something, good or broken. */
function look(search: Search, bytes: Uint8Array, source: string, depth: number): boolean {
  if (bytes.length === 0) return false;
  if (depth > DEPTH_LIMIT) {
    search.crowded = true;
    return false;
  }
  if (lookBinary(search, bytes, source, depth)) return true;
  const text = textOf(bytes);
  return text !== null && lookText(search, text.trim(), source, depth);
}

function lookText(search: Search, text: string, source: string, depth: number): boolean {
  if (text.startsWith('{') || text.startsWith('[')) return lookJson(search, text, source, depth);
  if (isRim(text)) {
    const rim = readRim(asciiBytes(text));
    if (rim.ok) add(search, source, { kind: 'rim', rim: rim.value });
    else search.problems.push(rim.error);
    return true;
  }
  if (text.includes('-----BEGIN ')) return lookPem(search, text, source, depth);
  if (text.length < SHORTEST) return false;
  // A document that is one text.
  const quoted = text.startsWith('"') ? readJson(text) : null;
  if (quoted?.ok === true && typeof quoted.value.value === 'string')
    return deeper(search, depth, () => lookText(search, String(quoted.value.value).trim(), source, depth + 1));
  const bytes = bytesOfText(text) ?? (depth === 0 ? bytesOfDump(text) : undefined);
  return bytes !== undefined && look(search, bytes, source, depth + 1);
}

function deeper(search: Search, depth: number, work: () => boolean): boolean {
  if (depth < DEPTH_LIMIT) return work();
  search.crowded = true;
  return false;
}

function lookPem(search: Search, text: string, source: string, depth: number): boolean {
  const blocks = readPem(text);
  if (!blocks.ok) {
    // A dump shows what looks like PEM in its margin.
    const bytes = bytesOfText(text) ?? (depth === 0 ? bytesOfDump(text) : undefined);
    if (bytes !== undefined) return look(search, bytes, source, depth + 1);
    search.problems.push(blocks.error);
    return true;
  }
  for (const { label, bytes } of blocks.value) {
    if (PEM_LABELS.includes(label)) lookDer(search, bytes, source);
    // Some tools give evidence a label of their own.
    else if (!/\bKEY\b|PARAMETERS|REQUEST/.test(label)) look(search, bytes, source, depth + 1);
  }
  return true;
}

function lookDer(search: Search, bytes: Uint8Array, source: string): void {
  if (isOcspResponse(bytes)) {
    const response = readOcspResponse(bytes);
    if (response.ok) add(search, source, { kind: 'ocsp-response', response: response.value });
    else search.problems.push(response.error);
    return;
  }
  const certificate = knownCertificate(bytes);
  if (certificate.ok) {
    add(search, source, { kind: 'certificate', certificate: certificate.value });
    return;
  }
  const list = readRevocationList(bytes);
  const spki = readSpki(bytes);
  if (list.ok) add(search, source, { kind: 'revocation-list', list: list.value });
  else if (spki.ok) add(search, source, { kind: 'public-key', spki: spki.value });
  else search.problems.push(certificate.error);
}

function lookBinary(search: Search, bytes: Uint8Array, source: string, depth: number): boolean {
  const keep = <T>(
    read: { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: Problem },
    make: (value: T) => Item,
  ): true => {
    if (read.ok) add(search, source, make(read.value));
    else search.problems.push(read.error);
    return true;
  };
  const version = u16le(bytes, 0);
  if ((version === 4 || version === 5) && u32le(bytes, 4) === TEE_TDX && bytes.length >= QUOTE_LEAST)
    return keep(readQuote(bytes), (quote) => ({ kind: 'tdx-quote', quote }));
  if (isHclReport(bytes)) return lookHcl(search, bytes, source);
  if (isSeExchange(bytes)) return keep(readSeResponse(bytes), (response) => ({ kind: 'se-response', response }));
  if (isSeHeader(bytes)) return keep(readSeHeader(bytes), (header) => ({ kind: 'se-header', header }));
  if (isNvidiaReport(bytes)) return keep(readNvidiaReport(bytes), (report) => ({ kind: 'nvidia-report', report }));
  if (isCborCmw(bytes)) {
    const records = readCborCmw(bytes);
    if (records.ok) {
      for (const [i, { value }] of records.value.entries())
        look(search, value, `${source}: record ${i}`, Math.max(depth + 1, DEPTH_LIMIT - 2));
      return true;
    }
  }
  if (isCcaToken(bytes)) return keep(readCcaToken(bytes), (token) => ({ kind: 'cca-token', token }));
  if (isEventLog(bytes)) return keep(readEventLog(bytes), (log) => ({ kind: 'event-log', log }));
  if (isPcrFile(bytes)) return keep(readPcrFile(bytes), (banks) => ({ kind: 'tpm-pcrs', banks }));
  if (isPublicArea(bytes)) return keep(readPublicArea(bytes), (spki) => ({ kind: 'public-key', spki }));
  if (isAttest(withoutSize(bytes)))
    return keep(readAttest(withoutSize(bytes)), (attest) => ({ kind: 'tpm-attest', attest }));
  if (isBincodeQuote(bytes)) return keep(readBincodeQuote(bytes), (quote) => ({ kind: 'tpm-quote', quote }));
  const maySign = (bytes[0] === 0 && bytes.length > 16 && bytes.length < 1024) || isDerSignature(bytes);
  const signature = maySign ? readTpmSignature(bytes) : null;
  if (signature?.ok === true) return keep(signature, (value) => ({ kind: 'tpm-signature', signature: value }));
  if (bytes.length === REPORT_SIZE && u32le(bytes, 0) < 256) return lookSnp(search, bytes, source);
  // As the guest device answers: status, size, 24 reserved bytes, then the report.
  if (bytes.length >= 32 + REPORT_SIZE && u32le(bytes, 0) === 0 && u32le(bytes, 4) === REPORT_SIZE)
    return lookSnp(search, bytes.subarray(32), source);
  // Report and certificate table in one.
  if (bytes.length > REPORT_SIZE + 48 && isSnpVersion(bytes)) return lookSnp(search, bytes, source);
  if (bytes[0] === 0x30 && (bytes[1] ?? 0) >= 0x81 && (bytes[1] ?? 0) <= 0x83) {
    const parts = splitDer(bytes);
    if (parts.length > DER_LIMIT) search.crowded = true;
    for (const one of parts.slice(0, DER_LIMIT)) lookDer(search, one, source);
    return true;
  }
  return false;
}

function lookHcl(search: Search, bytes: Uint8Array, source: string): true {
  const hcl = readHclReport(bytes);
  if (!hcl.ok) {
    search.problems.push(hcl.error);
    return true;
  }
  add(search, source, { kind: 'hcl-report', hcl: hcl.value });
  if (hcl.value.platform !== 'snp') return true;
  const report = readSnpReport(hcl.value.hardwareReport);
  if (report.ok) add(search, source, { kind: 'snp-report', report: report.value, hcl: hcl.value });
  else search.problems.push(report.error);
  return true;
}

function isSnpVersion(bytes: Uint8Array): boolean {
  const version = u32le(bytes, 0);
  return version >= 2 && version <= 5 && u32le(bytes, 0x34) === 1 && u32le(bytes, 0x30) <= 3;
}

function lookSnp(search: Search, bytes: Uint8Array, source: string): true {
  const report = readSnpReport(bytes.subarray(0, REPORT_SIZE));
  if (!report.ok) {
    search.problems.push(report.error);
    return true;
  }
  add(search, source, { kind: 'snp-report', report: report.value });
  const rest = bytes.subarray(REPORT_SIZE);
  if (rest.every((byte) => byte === 0)) return true;
  const table = readCertificateTable(rest);
  if (!table.ok) {
    search.problems.push(table.error);
    return true;
  }
  // The host wrote these: good for certificates, whose signatures lead to keys that Airlock knows itself.
  for (const entry of table.value) {
    const read = knownCertificate(entry);
    if (read.ok) add(search, `${source}: certificate table`, { kind: 'certificate', certificate: read.value });
  }
  return true;
}

/** Certificates one after the other, as SPDM chains hold them. The lengths are those of their outermost elements. */
function splitDer(bytes: Uint8Array): Uint8Array[] {
  const parts: Uint8Array[] = [];
  for (let at = 0; at < bytes.length && parts.length <= DER_LIMIT; ) {
    const octets = (bytes[at + 1] ?? 0) & 0x7f;
    let length = 2 + octets;
    let content = 0;
    for (let i = 0; i < octets && i < 3; i++) content = content * 256 + (bytes[at + 2 + i] ?? 0);
    length += content;
    if (bytes[at] !== 0x30 || (bytes[at + 1] ?? 0) < 0x81 || at + length > bytes.length) {
      parts.push(bytes.subarray(at));
      break;
    }
    parts.push(bytes.subarray(at, at + length));
    at += length;
  }
  return parts;
}

function lookJson(search: Search, text: string, source: string, depth: number): boolean {
  const json = readJson(text);
  if (!json.ok) {
    const lines = jsonLines(text);
    if (lines !== null && lines.length <= LINE_LIMIT)
      return deeper(search, depth, () =>
        lines.map((line, i) => lookText(search, line.trim(), `${source}: line ${i + 1}`, depth + 1)).includes(true),
      );
    const bytes = bytesOfText(text) ?? (depth === 0 ? bytesOfDump(text) : undefined);
    if (bytes !== undefined) return look(search, bytes, source, depth + 1);
    search.problems.push(json.error);
    return true;
  }
  const { value, members } = json.value;
  if (members.has('tcbInfo') || members.has('enclaveIdentity')) {
    const read = readCollateral(text);
    if (read.ok) add(search, source, { kind: 'collateral', document: read.value });
    else search.problems.push(read.error);
    return true;
  }
  const before = search.found.length + search.problems.length;
  lookValue(search, value, source, depth);
  return search.found.length + search.problems.length > before;
}

function lookValue(search: Search, value: unknown, source: string, depth: number): void {
  if (depth > DEPTH_LIMIT * 4 || search.members++ > MEMBER_LIMIT) {
    search.crowded = true;
    return;
  }
  if (typeof value === 'string') {
    if (value.length >= SHORTEST) lookMember(search, value, source);
    return;
  }
  if (Array.isArray(value)) {
    const bytes = byteList(value);
    if (bytes !== undefined) {
      look(search, bytes, source, DEPTH_LIMIT - 1);
      return;
    }
    for (const [i, one] of value.entries()) lookValue(search, one, `${source}[${i}]`, depth + 1);
    return;
  }
  if (!isObject(value)) return;
  if (saysBundle(value)) {
    const message =
      'the evidence of a machine within something else, or without its format: its parts mean nothing alone';
    search.problems.push({ code: 'bundle-invalid', message, hint: 'give the document of the machine as it is' });
    return;
  }
  const numbered = numberedBytes(value, SHORTEST);
  if (numbered !== undefined) {
    look(search, numbered, source, DEPTH_LIMIT - 1);
    return;
  }
  const join = source.includes(': ') ? '.' : ': ';
  lookJwk(search, value, source);
  const done = new Set([...lookCollateralWrapper(search, value, source), ...lookQuoteWrapper(search, value, source)]);
  for (const [name, member] of Object.entries(value)) {
    if (!done.has(name))
      lookValue(search, member, `${source}${join}${name.replace(/[^\x21-\x7e]/g, '?').slice(0, 40)}`, depth + 1);
  }
}

/** One text of a JSON document: most are not evidence, so what is nothing is no problem. */
function lookMember(search: Search, text: string, source: string): void {
  lookText(search, text.trim(), source, DEPTH_LIMIT - 2);
}

/** Bytes written as a list of numbers, as Rust’s serde does. */
function byteList(list: readonly unknown[]): Uint8Array | undefined {
  if (list.length < SHORTEST) return undefined;
  return list.every((one) => typeof one === 'number' && Number.isInteger(one) && one >= 0 && one <= 255)
    ? Uint8Array.from(list as readonly number[])
    : undefined;
}

/** The wrapper of dcap-qvl and others: body and signature in members of their own. Gives back what it took. */
function lookCollateralWrapper(search: Search, value: Readonly<Record<string, unknown>>, source: string): Set<string> {
  const done = new Set<string>();
  for (const [name, read] of [
    ['tcb_info', readTcbInfo],
    ['qe_identity', readQeIdentity],
  ] as const) {
    const [body, signature] = [value[name], value[`${name}_signature`]];
    if (typeof body !== 'string' || typeof signature !== 'string') continue;
    const document = read(body, signature);
    if (document.ok) add(search, `${source}: ${name}`, { kind: 'collateral', document: document.value });
    else search.problems.push(document.error);
    done.add(name);
    done.add(`${name}_signature`);
  }
  return done;
}

/**
 * A TPM quote: a member that a TPM attests, one called a signature, and perhaps PCR values. `{"message", "signature", "pcrs": […]}` of
 * Trustee and Azure's tools, `{"quote", "rawSig", "pcrs": {"hash", "pcrs": {…}}}` of go-tpm's.
 */
function lookQuoteWrapper(search: Search, value: Readonly<Record<string, unknown>>, source: string): Set<string> {
  const members = Object.entries(value).slice(0, WRAPPER_LIMIT);
  const attested = members.flatMap(([name, one]) => {
    const bytes = bytesOf(one);
    const plain = bytes === undefined ? undefined : withoutSize(bytes);
    return plain !== undefined && isAttest(plain) ? [{ name, bytes: plain }] : [];
  })[0];
  const signed = members.flatMap(([name, one]) => {
    const bytes = /sig/i.test(name) && name !== attested?.name ? bytesOf(one) : undefined;
    return bytes === undefined ? [] : [{ name, bytes }];
  })[0];
  if (attested === undefined || signed === undefined) return new Set();
  const listed = members.find(([name, one]) => /pcr/i.test(name) && typeof one === 'object' && one !== null);
  const pcrs = listed === undefined ? new Map<number, Uint8Array>() : pcrsOf(listed[1]);
  if (pcrs === null)
    search.problems.push({ code: 'quote-wrapper-invalid', message: 'a PCR value is neither hex nor base64' });
  else {
    const quote = joinQuote(attested.bytes, signed.bytes, pcrs);
    if (quote.ok) add(search, source, { kind: 'tpm-quote', quote: quote.value });
    else search.problems.push(quote.error);
  }
  return new Set([attested.name, signed.name, ...(listed === undefined ? [] : [listed[0]])]);
}

/** A list from PCR 0 on, or a map by number, also with the bank's name beside it: `{ hash, pcrs: { 0: … } }`. Null for another form. */
function pcrsOf(value: unknown): ReadonlyMap<number, Uint8Array> | null {
  const inner = isObject(value) ? (value['pcrs'] ?? value['values'] ?? value) : value;
  const entries = Array.isArray(inner)
    ? inner.slice(0, 33).map((one, i) => [String(i), one as unknown] as const)
    : isObject(inner)
      ? Object.entries(inner).slice(0, 33)
      : null;
  if (entries === null) return null;
  const values = new Map<number, Uint8Array>();
  for (const [name, one] of entries) {
    const bytes = bytesOf(one);
    if (bytes === undefined || !/^\d{1,2}$/.test(name)) return null;
    values.set(Number(name), bytes);
  }
  return values;
}

function bytesOf(value: unknown): Uint8Array | undefined {
  if (typeof value === 'string') return value.length > 8192 ? undefined : (fromHex(value) ?? fromBase64(value));
  if (!Array.isArray(value) || value.length > 4096) return undefined;
  return value.every((one) => typeof one === 'number' && Number.isInteger(one) && one >= 0 && one <= 255)
    ? Uint8Array.from(value as readonly number[])
    : undefined;
}

/** An EC public key as JWK (RFC 7517): `{"kty":"EC","x":…,"y":…}`. */
function lookJwk(search: Search, value: Readonly<Record<string, unknown>>, source: string): void {
  if (value['kty'] !== 'EC') return;
  const [x, y] = [value['x'], value['y']].map((one) => (typeof one === 'string' ? fromBase64(one) : undefined));
  const spki =
    x === undefined || y === undefined || x.length !== y.length ? undefined : pointSpki(concat(Uint8Array.of(4), x, y));
  if (spki !== undefined) add(search, source, { kind: 'public-key', spki });
}
