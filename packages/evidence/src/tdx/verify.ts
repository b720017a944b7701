/** A TDX quote against Intel's keys, Intel's collateral and what the verifier asks for. */
import { hex } from '@airlock/core/bytes.ts';
import type { Result } from '@airlock/core/result.ts';
import { concat, fromHex, isZero, latin1, sameBytes } from '../bytes.ts';
import { type Appraisal, type Checklist, type Claim, createChecklist, verdictOf } from '../check.ts';
import type { Crypto } from '../crypto.ts';
import { checkMeasurement, checkNonce, checkRuntimeData } from '../expectations.ts';
import { ranges } from '../ranges.ts';
import { timeText } from '../time.ts';
import { checkEventData } from '../tpm/event-data.ts';
import { type EventLog, replay } from '../tpm/event-log.ts';
import { type Certificate, keyOf, knownCertificate } from '../x509/certificate.ts';
import { type ChainInput, checkChain, type TrustedRoot } from '../x509/chain.ts';
import type { RevocationList } from '../x509/crl.ts';
import { readPem } from '../x509/pem.ts';
import { isDebug, readAttributes } from './attributes.ts';
import { checkTcb, type TcbFindings } from './check-tcb.ts';
import type { QeIdentity, TcbInfo } from './collateral.ts';
import { isPck, type Pck, readPck } from './pck.ts';
import type { TdxQuote } from './quote.ts';

/** SHA-384 of the SubjectPublicKeyInfo of Intel's SGX root. */
export const INTEL_ROOTS: readonly TrustedRoot[] = [
  {
    name: 'Intel SGX Root CA',
    spki: '3cdf1feb4e5eac629170f17625648da4a16effa22ae2bcca030b4358a8961c1bf26cf54a9598cd6a2d4a9cbb62377d22',
  },
];

export interface TdxInput {
  readonly crypto: Crypto;
  readonly quote: TdxQuote;
  /** Besides those in the quote: the chain of the TCB signing key. */
  readonly certificates?: readonly Certificate[];
  readonly revocationLists?: readonly RevocationList[];
  /** Of any platforms; those of this one are picked. */
  readonly collateral?: readonly (TcbInfo | QeIdentity)[];
  /** Logs of this boot, in the form of CCEL: register 1 is RTMR 0. */
  readonly eventLogs?: readonly EventLog[];
  readonly asOf: number;
  /** At most 64 bytes; REPORTDATA must be it, filled up with zeros. */
  readonly nonce?: Uint8Array;
  /** Azure’s runtime data, which REPORT_DATA must be the digest of; the nonce is then in the TPM’s quote. */
  readonly runtimeData?: Uint8Array;
  /** Any of these as MRTD. */
  readonly measurements?: readonly Uint8Array[];
  readonly allowed?: ReadonlySet<string>;
  readonly roots?: readonly TrustedRoot[];
}

const ECDSA_P256 = { kind: 'ecdsa', hash: 'sha256', form: 'raw' } as const;
const INTEL_QE = '939a7233f79c4ca9940a0db3957f0607';
const TDX = 0x81;
const PCK_LEAF = 4;
const PEM_CHAIN = 5;
const PCK_LIMIT = 16;

/** SubjectPublicKeyInfo of a P-256 key up to its point (RFC 5480 §2). */
const P256_SPKI = fromHex('3059301306072a8648ce3d020106082a8648ce3d030107034200') ?? new Uint8Array();

export function verifyTdx(input: TdxInput): Appraisal {
  const { quote, crypto } = input;
  const list = createChecklist(input.allowed);
  const quoteChain = readQuoteChain(quote);
  const pool = [...(quoteChain.ok ? quoteChain.value : []), ...(input.certificates ?? [])];
  const leaf = choosePck(crypto, quote, pool);

  checkHeader(list, quote);
  checkQuote(list, crypto, quote, leaf, quoteChain);
  const withoutCollateral = input.allowed?.has('tdx.collateral') === true;
  const chain = (signer: Certificate): Omit<ChainInput, 'leaf'> & { leaf: Certificate } => ({
    crypto,
    leaf: signer,
    pool,
    roots: input.roots ?? INTEL_ROOTS,
    asOf: input.asOf,
    // Revocation lists are collateral: whoever allows evidence without it does without them.
    revocation: { lists: input.revocationLists ?? [], required: !withoutCollateral, of: 'all' },
  });
  let findings: TcbFindings = {};
  let pck: Pck | null = null;
  if (leaf !== null) {
    checkChain(list, chain(leaf));
    const read = readPck(leaf);
    if (read.ok) {
      pck = read.value;
      findings = checkTcb({ list, crypto, quote, pck, pool, input, chain });
    } else {
      list.check('tdx.collateral-platform', false, { expected: 'Intel’s SGX extension', found: read.error.message });
    }
  }
  checkTd(list, input);
  for (const log of input.eventLogs ?? []) checkEventLog(list, input, log);
  return {
    kind: 'intel-tdx',
    title: `Intel TDX quote, version ${quote.version}, TD ${quote.generation}`,
    verdict: verdictOf(list.checks),
    checks: list.checks,
    claims: claimsOf(quote, pck, findings),
  };
}

function checkHeader(list: Checklist, quote: TdxQuote): void {
  const good = quote.keyType === 2 && quote.teeType === TDX && hex(quote.vendor) === INTEL_QE;
  list.check('tdx.header', good, {
    expected: 'TEE type 0x81, key type 2 (ECDSA P-256), Intel’s quoting enclave',
    found: good
      ? `version ${quote.version}`
      : `TEE type 0x${quote.teeType.toString(16)}, key type ${quote.keyType}, vendor ${hex(quote.vendor)}`,
    where: { field: 'header', bytes: [0, 48] },
  });
  if (quote.trailing > 0) {
    list.note('tdx.size', {
      expected: `${quote.size} bytes, as its size fields say`,
      found: `${quote.trailing} bytes more, which nothing covers; they were not looked at`,
      where: { bytes: [quote.size, quote.size + quote.trailing] },
    });
  }
}

/** Of the files there may be several machines': the one that signed the quoting enclave's report, else the first. */
function choosePck(crypto: Crypto, quote: TdxQuote, pool: readonly Certificate[]): Certificate | null {
  const candidates = pool.filter(isPck).slice(0, PCK_LIMIT);
  const [first = null] = candidates;
  if (candidates.length <= 1) return first;
  const { bytes } = quote.enclave;
  const signed = (one: Certificate) => keyOf(crypto, one)?.verify(ECDSA_P256, bytes, quote.enclaveSignature) === true;
  return candidates.find(signed) ?? first;
}

/**
 * The chain within the quote: type 5 is PEM, with a zero byte at its end in quotes of some makers; type 4 is the leaf alone. Types 1
 * to 3 name the platform (PPID, CPUSVN, PCESVN, PCEID) to whoever fetches its certificate: it has to be among the files.
 */
function readQuoteChain(quote: TdxQuote): Result<Certificate[]> {
  const { certificationType: type } = quote;
  if (type === PCK_LEAF) {
    const leaf = knownCertificate(quote.certificationData);
    if (leaf.ok) return { ok: true, value: [leaf.value] };
  } else if (type !== PEM_CHAIN) {
    const what = type >= 1 && type <= 3 ? 'which only names the platform' : 'which is not known';
    return {
      ok: false,
      error: { code: 'tdx-quote-invalid', message: `the quote has certification data of type ${type}, ${what}` },
    };
  }
  const blocks = readPem(latin1(quote.certificationData));
  if (!blocks.ok) return blocks;
  const certificates: Certificate[] = [];
  for (const { label, bytes } of blocks.value) {
    if (label !== 'CERTIFICATE') continue;
    const read = knownCertificate(bytes);
    if (!read.ok) return read;
    certificates.push(read.value);
  }
  return { ok: true, value: certificates };
}

function checkQuote(
  list: Checklist,
  crypto: Crypto,
  quote: TdxQuote,
  leaf: Certificate | null,
  quoteChain: Result<unknown>,
): void {
  const key = crypto.publicKey(concat(P256_SPKI, Uint8Array.of(4), quote.attestationKey));
  const signed = key?.verify(ECDSA_P256, quote.signed, quote.signature) ?? false;
  const signatureAt = quote.signed.length + 4;
  list.check('tdx.signature', signed, {
    expected: `ECDSA P-256 over bytes 0 to ${quote.signed.length - 1} with the attestation key`,
    found: signed ? 'good' : key === undefined ? 'the attestation key is no point of P-256' : 'wrong',
    where: { field: 'quote signature', bytes: [signatureAt, signatureAt + 64] },
  });
  const digest = crypto.hash('sha256', concat(quote.attestationKey, quote.authenticationData));
  const stated = quote.enclave.reportData;
  const bound = sameBytes(digest, stated.subarray(0, 32)) && isZero(stated.subarray(32));
  list.check('tdx.attestation-key', bound, {
    expected: hex(digest),
    found: bound ? 'the same' : hex(stated),
    where: { field: 'quoting enclave’s REPORTDATA' },
  });
  const vouched =
    leaf !== null && (keyOf(crypto, leaf)?.verify(ECDSA_P256, quote.enclave.bytes, quote.enclaveSignature) ?? false);
  list.check('tdx.qe-signature', vouched, {
    expected: 'ECDSA P-256 with the key of the PCK certificate',
    found: vouched
      ? 'good'
      : leaf !== null
        ? 'wrong'
        : quoteChain.ok
          ? 'no PCK certificate'
          : `no PCK certificate: ${quoteChain.error.message}`,
    ...(leaf === null ? { hint: 'give the platform’s PCK certificate chain as another file' } : {}),
    where: { field: 'quoting enclave’s report' },
  });
}

function checkTd(list: Checklist, input: TdxInput): void {
  const { td } = input.quote;
  const where = { field: 'TDATTRIBUTES', bytes: [td.at + 120, td.at + 128] as const };
  const raw = `0x${td.tdAttributes.toString(16)}`;
  list.check('tdx.debug', !isDebug(td.tdAttributes), {
    expected: 'DEBUG, bit 0, is zero',
    found: isDebug(td.tdAttributes) ? `TDATTRIBUTES ${raw}: DEBUG is set` : 'zero',
    where,
  });
  const { weakening, unknown } = readAttributes(td.tdAttributes);
  list.check('tdx.attributes', weakening.length === 0, {
    expected: 'no profiling, no migration',
    found: weakening.length === 0 ? `TDATTRIBUTES ${raw}` : `TDATTRIBUTES ${raw}: ${weakening.join(', ')}`,
    where,
  });
  if (unknown.length > 0) {
    list.note('tdx.attributes', { expected: 'zero', found: `bits that are not known: ${unknown.join(', ')}`, where });
  }
  const dataAt = { field: 'REPORTDATA', bytes: [td.at + 520, td.at + 584] as const };
  const { runtimeData, nonce } = input;
  if (runtimeData !== undefined) checkRuntimeData(list, input.crypto, runtimeData, td.reportData, dataAt);
  if (runtimeData === undefined || nonce !== undefined) checkNonce(list, nonce, td.reportData, dataAt);
  checkMeasurement(list, input.measurements, td.mrTd, { field: 'MRTD', bytes: [td.at + 136, td.at + 184] });
}

/** RTMRs that the log does not extend must be as they began. Intel GHCI 1.5, CCEL: register 0 is MRTD, 1 to 4 RTMR 0 to 3. */
function checkEventLog(list: Checklist, { crypto, quote }: TdxInput, log: EventLog): void {
  const registers = replay(crypto, log, 'sha384');
  const zero = new Uint8Array(48);
  const wrong = quote.td.rtmrs.flatMap((value, i) => (sameBytes(registers.get(i + 1) ?? zero, value) ? [] : [i]));
  list.check('tdx.event-log', wrong.length === 0, {
    expected: 'RTMR 0 to 3 as quoted',
    found: wrong.length === 0 ? `the same, after ${log.events.length} events` : `other values of RTMR ${ranges(wrong)}`,
    where: { field: 'RTMR', bytes: [quote.td.at + 328, quote.td.at + 520] },
  });
  checkEventData(list, crypto, log, 'sha384');
}

function claimsOf(quote: TdxQuote, pck: Pck | null, findings: TcbFindings): Record<string, Claim> {
  const { td } = quote;
  return {
    tcb: {
      status: findings.status ?? null,
      date: findings.date === undefined ? null : timeText(findings.date),
      advisories: findings.advisories ?? [],
      'collateral-until': findings.until === undefined ? null : timeText(findings.until),
    },
    platform:
      pck === null ? null : { fmspc: pck.fmspc, 'pce-id': pck.pceId, 'pce-svn': pck.pceSvn, sgx: [...pck.components] },
    mrtd: hex(td.mrTd),
    rtmr: td.rtmrs.map(hex),
    'report-data': hex(td.reportData),
    attributes: { raw: `0x${td.tdAttributes.toString(16)}`, ...readAttributes(td.tdAttributes).values },
    xfam: `0x${td.xfam.toString(16)}`,
    'mr-config-id': hex(td.mrConfigId),
    'mr-owner': hex(td.mrOwner),
    'mr-owner-config': hex(td.mrOwnerConfig),
    module: {
      svn: hex(td.teeTcbSvn),
      'svn-2': td.teeTcbSvn2 === null ? 'absent' : hex(td.teeTcbSvn2),
      mrseam: hex(td.mrSeam),
      mrsignerseam: hex(td.mrSignerSeam),
      attributes: hex(td.seamAttributes),
    },
    'mr-service-td': td.mrServiceTd === null ? 'absent' : hex(td.mrServiceTd),
    'quoting-enclave': { mrsigner: hex(quote.enclave.mrSigner), svn: quote.enclave.isvSvn },
  };
}
