/** Everything that was found in the files, put together: each piece of evidence with what the others say for it. */
import { hex } from '@airlock/core/bytes.ts';
import type { PlatformAttestation } from '@airlock/policy/attestation.ts';
import { sameBytes } from './bytes.ts';
import { verifyCca } from './cca/verify.ts';
import {
  type Appraisal,
  type Check,
  type Claim,
  createChecklist,
  type Report,
  type ReportedAppraisal,
  verdictOf,
} from './check.ts';
import type { Crypto } from './crypto.ts';
import type { Found, Item } from './item.ts';
import { NVIDIA_ROOTS, verifyNvidia } from './nvidia/verify.ts';
import { checkPlatform, waivedBy } from './platform-policy.ts';
import { appraiseReferences, checkReferences, type References, signerOf } from './references.ts';
import { checkHostKey, hostKeyHash, isHostKey } from './se/host-key.ts';
import { verifySe } from './se/verify.ts';
import { AMD_ROOTS } from './snp/product.ts';
import type { Tcb } from './snp/tcb.ts';
import { isVcek, readVcek } from './snp/vcek.ts';
import { verifySnp } from './snp/verify.ts';
import type { TdxQuote } from './tdx/quote.ts';
import { INTEL_ROOTS, verifyTdx } from './tdx/verify.ts';
import { timeText } from './time.ts';
import { doubtOfTpmCertificate, type TpmCertified } from './tpm/certificate.ts';
import { type EventLog, replay } from './tpm/event-log.ts';
import type { HclReport } from './tpm/hcl.ts';
import type { TpmQuote } from './tpm/quote.ts';
import { pcrClaim, type TpmKey, verifyTpm } from './tpm/verify.ts';
import type { Certificate } from './x509/certificate.ts';
import { checkChain, keyDigest, nameOf, type TrustedRoot } from './x509/chain.ts';

export interface AppraiseOptions {
  readonly crypto: Crypto;
  /** Milliseconds since 1970. */
  readonly asOf: number;
  readonly nonce?: Uint8Array;
  /** Of TPM quotes, where theirs is another: they have less room. */
  readonly tpmNonce?: Uint8Array;
  /** Of a policy. */
  readonly platform?: PlatformAttestation;
  /** What the verifier sealed its Secure Execution request with. */
  readonly seRequestKey?: Uint8Array;
  /** What evidence must state; the files themselves are appraised, too. */
  readonly references?: readonly References[];
  readonly measurements?: readonly Uint8Array[];
  readonly minimumTcb?: Tcb;
  readonly allowed?: ReadonlySet<string>;
  /**
   * SubjectPublicKeyInfos of TPMs that the verifier trusts, never from the evidence’s own files. No other key is looked for
   * among them: a TPM's restricted key signs any text of its owner's that does
   * not begin like what the TPM makes itself (TPM 2.0 Part 3 §20.2, TPM2_Sign with a ticket), so
   * also a platform token, or a CoRIM.
   */
  readonly trustedKeys?: readonly Uint8Array[];
  /** Of CCA platforms (CPAK). What such a key signs is no quote: COSE never begins with TPM_GENERATED. */
  readonly platformKeys?: readonly Uint8Array[];
  /** Of who signs reference values. */
  readonly referenceKeys?: readonly Uint8Array[];
  /**
   * Where there is no evidence, check the certificates for themselves. Not by default: whoever is asked for evidence and
   * shows a vendor's certificates, which are public, must not be accepted.
   */
  readonly certificatesAlone?: boolean;
  /**
   * Roots of makers that none is built in for, the verifier's own choice: of TPM makers, of the authority that certifies IBM's
   * key signing service. Never in place of a vendor's.
   */
  readonly makerRoots?: readonly Certificate[];
  /** Instead of the vendors’ roots; for tests. */
  readonly roots?: readonly TrustedRoot[];
  readonly rimRoots?: readonly TrustedRoot[];
}

/** A machine has one of a kind, and some devices; more than these are rejected as they come. */
const EVIDENCE_LIMIT = 64;

const NONE: readonly Item[] = [];

type Of<K extends Item['kind']> = Extract<Item, { readonly kind: K }>;

/**
 * `found` is evidence and whatever stands beside it; `collateral` only supports. No evidence at all gives `null`.
 */
export function appraise(
  found: readonly Found[],
  collateral: readonly Found[],
  given: AppraiseOptions,
): Omit<Report, 'files' | 'problems'> | null {
  const options =
    given.platform === undefined
      ? given
      : { ...given, allowed: new Set([...(given.allowed ?? []), ...waivedBy(given.platform)]) };
  const items = [...found, ...collateral].map(({ item }) => item);
  const byKind = new Map<Item['kind'], Item[]>();
  for (const item of items) {
    const group = byKind.get(item.kind);
    if (group === undefined) byKind.set(item.kind, [item]);
    else group.push(item);
  }
  const all = <K extends Item['kind']>(kind: K): readonly Of<K>[] => (byKind.get(kind) ?? NONE) as readonly Of<K>[];
  const certificates = [...all('certificate').map(({ certificate }) => certificate), ...(options.makerRoots ?? [])];
  const makers = (options.makerRoots ?? []).map((one) => ({
    name: nameOf(one),
    spki: keyDigest(options.crypto, one),
  }));
  const revocationLists = all('revocation-list').map(({ list }) => list);
  const documents = all('collateral').map(({ document }) => document);
  const common = { ...options, certificates, revocationLists };
  const responses = all('ocsp-response').map(({ response }) => response);
  const rims = all('rim').map(({ rim }) => rim);

  const quotes = pairQuotes(found);
  const logs = all('event-log').map(({ log }) => log);
  // That of a TPM has SHA-256 too; without a quote of a TPM a log with SHA-384 can only be the TD's.
  const ofTd = ({ banks }: EventLog) => banks.includes('sha384') && (quotes.length === 0 || !banks.includes('sha256'));
  // With a TPM the nonce is in its quote; the report below vouches for the TPM's key and cannot carry it.
  const { nonce: _, ...withoutNonce } = common;
  const beneathTpm = quotes.length > 0 ? withoutNonce : common;

  const appraisals: ReportedAppraisal[] = [];
  const vouchers = new Map<HclReport, string | null>();
  /** By the number of the appraisal. */
  const vouching = new Map<number, HclReport>();
  const quotesOfTd = found.filter(({ item }) => item.kind === 'tdx-quote').length;
  for (const { item, source } of found) {
    if (appraisals.length >= EVIDENCE_LIMIT) break;
    if (item.kind === 'snp-report') {
      const { hcl } = item;
      const appraisal = verifySnp({
        ...(hcl === undefined ? common : { ...beneathTpm, runtimeData: hcl.runtimeData }),
        report: item.report,
        requirements: {
          ...(options.minimumTcb === undefined ? {} : { minimumTcb: options.minimumTcb }),
          ...(options.measurements === undefined ? {} : { measurements: options.measurements }),
        },
      });
      if (hcl !== undefined) vouchers.set(hcl, doubtOf(appraisal));
      if (hcl !== undefined) vouching.set(appraisals.length, hcl);
      appraisals.push(fromSource(source, withConfiguration(appraisal, hcl)));
    } else if (item.kind === 'tdx-quote') {
      const hcl = runtimeOf(
        options.crypto,
        item.quote,
        all('hcl-report').map((one) => one.hcl),
        quotesOfTd,
      );
      const appraisal = verifyTdx({
        ...(hcl === undefined ? common : { ...beneathTpm, runtimeData: hcl.runtimeData }),
        quote: item.quote,
        collateral: documents,
        eventLogs: logs.filter(ofTd),
      });
      if (hcl !== undefined) vouchers.set(hcl, doubtOf(appraisal));
      if (hcl !== undefined) vouching.set(appraisals.length, hcl);
      appraisals.push(fromSource(source, withConfiguration(appraisal, hcl)));
    }
  }
  const seHeaders = all('se-header').map(({ header }) => header);
  for (const { item, source } of found) {
    if (item.kind !== 'se-response' || appraisals.length >= EVIDENCE_LIMIT) continue;
    const requestKey = options.seRequestKey === undefined ? {} : { requestKey: options.seRequestKey };
    appraisals.push(
      fromSource(
        source,
        verifySe({ ...common, ...requestKey, response: item.response, headers: seHeaders, hostKeyRoots: makers }),
      ),
    );
  }
  const believing = { ...options, trustedKeys: options.referenceKeys ?? [] };
  // Who vouches for reference values is a maker: what such a key signs is no machine's word of itself.
  const makersOfReferences = (options.references ?? []).map((one) =>
    signerOf(one, options.crypto, options.referenceKeys ?? []),
  );
  const attesting = (keys: readonly Uint8Array[] | undefined) =>
    (keys ?? []).filter((spki) => !makersOfReferences.some((maker) => maker !== undefined && sameBytes(maker, spki)));
  // Keys of platforms count when the file that names them does.
  const endorsed = (options.references ?? [])
    .filter((one) => one.keys.length > 0 && appraiseReferences(one, believing).verdict === 'accepted')
    .flatMap((one) => one.keys);
  const devices = new Set<string>();
  for (const { item, source } of found) {
    if (item.kind !== 'nvidia-report' || appraisals.length >= EVIDENCE_LIMIT) continue;
    const appraisal = verifyNvidia({ ...common, responses, rims, report: item.report, taken: devices });
    const { device } = appraisal;
    if (device !== null) devices.add(device);
    appraisals.push(fromSource(source, appraisal, device ?? undefined));
  }
  for (const { item, source } of found) {
    if (item.kind !== 'cca-token' || appraisals.length >= EVIDENCE_LIMIT) continue;
    const keys = all('public-key').map(({ spki }) => spki);
    const [own, model] = [hex(item.token.instanceId), hex(item.token.implementationId)];
    const itsOwn = endorsed.filter(
      ({ instance, implementation }) =>
        (instance === null || instance === own) && (implementation === null || implementation === model),
    );
    const trustedKeys = [...attesting(options.platformKeys), ...itsOwn.map(({ spki }) => spki)];
    appraisals.push(fromSource(source, verifyCca({ ...options, trustedKeys, token: item.token, keys })));
  }
  const trusted = attesting(options.trustedKeys).map((spki): TpmKey => ({ spki, from: 'the verifier', doubt: null }));
  const keys = quotes.length === 0 ? [] : [...trusted, ...tpmKeys(items, vouchers, { ...common, makers })];
  const quoting = new Set<Claim | undefined>();
  for (const { quote, source } of quotes) {
    const { nonce: own, ...rest } = options;
    const wanted = options.tpmNonce ?? own;
    const quoted = wanted === undefined ? rest : { ...rest, nonce: wanted };
    const appraisal = verifyTpm({ ...quoted, quote, keys, logs });
    quoting.add(appraisal.claims['key']);
    appraisals.push(fromSource(source, appraisal));
  }
  if (beneathTpm === withoutNonce && options.nonce !== undefined) {
    for (const [i, hcl] of vouching) {
      const appraisal = appraisals[i];
      const key = hex(options.crypto.hash('sha256', hcl.attestationKey));
      if (appraisal !== undefined && !quoting.has(key)) appraisals[i] = withoutQuote(appraisal, options.allowed);
    }
  }
  // A log that nothing here can explain would look as if it had been held against something.
  for (const { item, source } of found) {
    const explained = item.kind !== 'event-log' || quotes.length > 0 || (quotesOfTd > 0 && ofTd(item.log));
    if (!explained && appraisals.length < EVIDENCE_LIMIT)
      appraisals.push(fromSource(source, verifyLogAlone(options.crypto, item.log)));
  }
  if (appraisals.length === 0 && options.certificatesAlone === true) {
    for (const { item, source } of found) {
      if (appraisals.length >= EVIDENCE_LIMIT) break;
      if (item.kind !== 'certificate' || isIssuerAmong(item.certificate, certificates)) continue;
      appraisals.push(fromSource(source, verifyCertificate(item.certificate, { ...common, makers })));
    }
  }
  if (appraisals.length === 0) return null;
  const references = options.references ?? [];
  const { platform } = options;
  for (const [i, appraisal] of appraisals.entries()) {
    const held = checkReferences(appraisal, references, options.allowed);
    const judged = platform === undefined ? held : checkPlatform(held, platform, options.asOf, options.allowed);
    if (judged !== appraisal) appraisals[i] = fromSource(appraisal.source, judged, appraisal.identity);
  }
  const shown = new Set(appraisals.map(({ kind }) => kind));
  for (const one of references)
    appraisals.push(fromSource(one.source, appraiseReferences(one, { ...believing, shown })));
  const good = appraisals.length < EVIDENCE_LIMIT && appraisals.every(({ verdict }) => verdict === 'accepted');
  return {
    version: 1,
    verdict: good ? 'accepted' : 'rejected',
    asOf: timeText(options.asOf),
    appraisals,
  };
}

/** Quotes in one file, and those whose message, signature and PCR values are files of their own, in the order given. */
function pairQuotes(found: readonly Found[]): { readonly quote: TpmQuote; readonly source: string }[] {
  const signatures = found.flatMap(({ item }) => (item.kind === 'tpm-signature' ? [item.signature] : []));
  const values = found.flatMap(({ item }) => (item.kind === 'tpm-pcrs' ? [item.banks] : []));
  const quotes: { quote: TpmQuote; source: string }[] = [];
  let loose = 0;
  for (const { item, source } of found) {
    if (item.kind === 'tpm-quote') quotes.push({ quote: item.quote, source });
    if (item.kind !== 'tpm-attest') continue;
    const banks = values[loose] ?? [];
    const bank = item.attest.selections.find(({ pcrs }) => pcrs.length > 0)?.bank;
    const pcrs = banks.find((one) => one.bank === bank) ?? banks[0] ?? null;
    const signature = signatures[loose++] ?? { scheme: { kind: 'rsa-pkcs1', hash: 'sha256' }, bytes: new Uint8Array() };
    quotes.push({ quote: { attest: item.attest, signature, pcrs }, source });
  }
  return quotes.slice(0, EVIDENCE_LIMIT);
}

/** What the evidence states stays unwritten until somebody reads it. */
function fromSource(source: string, appraisal: Appraisal, identity?: string): ReportedAppraisal {
  const { kind, title, verdict, checks } = appraisal;
  return {
    ...{ source, kind, title, verdict, checks },
    ...(identity === undefined ? {} : { identity }),
    get claims() {
      return appraisal.claims;
    },
  };
}

/** A report whose nonce is looked for in the quote of its TPM, where there is no quote of that TPM. */
function withoutQuote(appraisal: ReportedAppraisal, allowed: ReadonlySet<string> | undefined): ReportedAppraisal {
  const list = createChecklist(allowed);
  list.check('freshness.nonce', false, {
    expected: 'a quote of the TPM that the report vouches for, which covers the nonce',
    found: 'quotes of other TPMs only',
    where: { field: 'HCLAkPub' },
  });
  const { kind, title } = appraisal;
  const checks = [...appraisal.checks.filter(({ id }) => id !== 'freshness.nonce'), ...list.checks];
  return fromSource(appraisal.source, {
    ...{ kind, title, checks, verdict: verdictOf(checks) },
    get claims() {
      return appraisal.claims;
    },
  });
}

/** Null when the report may vouch for what its runtime data says. */
function doubtOf({ verdict, checks }: Appraisal): string | null {
  const bound = checks.some(({ id, status }) => id === 'azure.runtime-data' && status === 'passed');
  if (!bound) return 'the report does not cover it';
  return verdict === 'accepted' ? null : 'the report that vouches for it is rejected';
}

/** The runtime data that a TDX quote covers; where there is one quote only, the one that it ought to. */
function runtimeOf(
  crypto: Crypto,
  quote: TdxQuote,
  reports: readonly HclReport[],
  quotes: number,
): HclReport | undefined {
  const candidates = reports.filter(({ platform }) => platform === 'tdx').slice(0, EVIDENCE_LIMIT);
  const covered = candidates.find(({ runtimeData }) =>
    sameBytes(crypto.hash('sha256', runtimeData), quote.td.reportData.subarray(0, 32)),
  );
  return covered ?? (quotes === 1 ? candidates[0] : undefined);
}

function withConfiguration(appraisal: Appraisal, hcl: HclReport | undefined): Appraisal {
  if (hcl === undefined) return appraisal;
  return { ...appraisal, claims: { ...appraisal.claims, 'azure-configuration': hcl.configuration } };
}

function tpmKeys(
  items: readonly Item[],
  vouchers: ReadonlyMap<HclReport, string | null>,
  certified: TpmCertified,
): TpmKey[] {
  const keys = items.flatMap((item): TpmKey[] => {
    if (item.kind === 'hcl-report') {
      const doubt = vouchers.get(item.hcl);
      const from = 'Azure’s runtime data';
      return [
        {
          spki: item.hcl.attestationKey,
          from,
          doubt: doubt === undefined ? 'no hardware report that covers it was given' : doubt,
        },
      ];
    }
    if (item.kind === 'public-key')
      return [{ spki: item.spki, from: 'one of the files', doubt: 'nobody vouches for it' }];
    if (item.kind === 'certificate' && !item.certificate.authority) {
      const { certificate } = item;
      const from = `the certificate of ${nameOf(certificate)}`;
      const { doubt, checks } = doubtOfTpmCertificate(certificate, certified);
      return [{ spki: certificate.spki, from, doubt, checks, limit: 'a TPM of that maker, in whatever machine' }];
    }
    return [];
  });
  return [...keys.filter(({ doubt }) => doubt === null), ...keys.filter(({ doubt }) => doubt !== null)];
}

/** A log without a quote is a story that nobody signed. */
function verifyLogAlone(crypto: Crypto, log: EventLog): Appraisal {
  const list = createChecklist();
  list.check('tpm.event-log', false, {
    expected: 'a quote of the same boot to hold the log against',
    found: 'none was given',
    hint: 'give the TPM or TDX quote of the same boot',
  });
  const bank = log.banks.find((one) => one === 'sha256') ?? log.banks[0];
  return {
    kind: 'tcg-event-log',
    title: `TCG event log, ${log.events.length} events, ${log.banks.join(' ')}`,
    verdict: verdictOf(list.checks),
    checks: list.checks,
    claims: { bank: bank ?? null, pcrs: bank === undefined ? null : pcrClaim(replay(crypto, log, bank)) },
  };
}

function isIssuerAmong(certificate: Certificate, certificates: readonly Certificate[]): boolean {
  const name = hex(certificate.subject.der);
  return certificates.some((one) => one !== certificate && hex(one.issuer.der) === name);
}

/** A certificate for itself: does it lead to a vendor? */
function verifyCertificate(
  leaf: Certificate,
  input: AppraiseOptions & {
    readonly certificates: readonly Certificate[];
    readonly revocationLists: Parameters<typeof checkChain>[1]['revocation']['lists'];
    readonly makers: readonly TrustedRoot[];
  },
): Appraisal {
  const list = createChecklist(input.allowed);
  if (isHostKey(leaf)) {
    checkHostKey(list, leaf, { ...input, roots: input.makers });
    return certificateReport(leaf, list.checks, 'IBM host key document', {
      'host-key-hash': hostKeyHash(input.crypto, leaf),
    });
  }
  const vcek = isVcek(leaf) ? readVcek(leaf) : null;
  const chain = checkChain(list, {
    crypto: input.crypto,
    leaf,
    pool: input.certificates,
    roots: input.roots ?? [...AMD_ROOTS, ...INTEL_ROOTS, ...NVIDIA_ROOTS, ...input.makers],
    asOf: input.asOf,
    revocation: { lists: input.revocationLists, required: false, of: vcek === null ? 'all' : 'authorities' },
  });
  if (vcek !== null) {
    const root = chain.root?.name ?? 'none';
    list.check('snp.product', vcek.ok && root === `ARK-${vcek.value.product}`, {
      expected: vcek.ok ? `ARK-${vcek.value.product}` : 'AMD’s extensions',
      found: vcek.ok ? root : vcek.error.message,
    });
  }
  const more: Record<string, Claim> =
    vcek?.ok === true
      ? {
          product: vcek.value.product,
          tcb: { ...vcek.value.tcb },
          'hardware-id': vcek.value.hardwareId === null ? null : hex(vcek.value.hardwareId),
          provider: vcek.value.provider,
        }
      : {};
  const title = `certificate of ${nameOf(leaf)}${vcek?.ok === true ? `, ${vcek.value.productName}` : ''}`;
  return certificateReport(leaf, list.checks, title, more);
}

function certificateReport(
  leaf: Certificate,
  checks: readonly Check[],
  title: string,
  more: Readonly<Record<string, Claim>>,
): Appraisal {
  return {
    kind: 'certificate',
    title,
    verdict: verdictOf(checks),
    checks,
    claims: {
      subject: leaf.subject.text,
      issuer: leaf.issuer.text,
      serial: leaf.serial,
      'not-before': timeText(leaf.notBefore),
      'not-after': timeText(leaf.notAfter),
      ...more,
    },
  };
}

/** `TDX quote, version 4`: one line for a list of files. */
export function describe(item: Item): string {
  switch (item.kind) {
    case 'snp-report':
      return `SEV-SNP report, version ${item.report.version}`;
    case 'tdx-quote':
      return `TDX quote, version ${item.quote.version}`;
    case 'nvidia-report':
      return `NVIDIA report, ${item.report.measurements.size} measurements`;
    case 'cca-token':
      return 'Arm CCA token';
    case 'certificate':
      return `certificate of ${nameOf(item.certificate)}`;
    case 'revocation-list':
      return `revocation list of ${item.list.issuer.commonName ?? item.list.issuer.text}`;
    case 'ocsp-response':
      return `OCSP response of ${timeText(item.response.producedAt)}, ${item.response.answers.length} answers`;
    case 'se-response':
      return 'IBM Secure Execution response';
    case 'se-header':
      return 'header of a Secure Execution image';
    case 'rim':
      return `NVIDIA manifest of ${item.rim.product} ${item.rim.version}`;
    case 'collateral':
      return item.document.kind === 'tcb-info'
        ? `TCB info of FMSPC ${item.document.fmspc}`
        : `QE identity ${item.document.id.replace(/[^\x21-\x7e]/g, '?').slice(0, 16)}`;
    case 'hcl-report':
      return `Azure runtime data beside ${item.hcl.platform === 'snp' ? 'an SEV-SNP' : 'a TDX'} report`;
    case 'tpm-quote':
      return `TPM quote with ${item.quote.pcrs === null ? 'no' : item.quote.pcrs.values.size} PCR values`;
    case 'tpm-attest':
      return 'TPM quote without its signature';
    case 'tpm-signature':
      return 'signature of a TPM';
    case 'tpm-pcrs':
      return `PCR values of ${item.banks.map(({ bank }) => bank).join(', ') || 'no known bank'}`;
    case 'event-log':
      return `TCG event log, ${item.log.events.length} events`;
    case 'public-key':
      return 'public key';
  }
}
