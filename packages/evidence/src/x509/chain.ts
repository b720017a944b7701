/**
 * From a signer's certificate to a root key that Airlock knows: RFC 5280 §6 without policies and name constraints, which
 * no attestation vendor uses (a critical one is refused). Everything that can be checked is, not only up to the first
 * thing that is wrong.
 */
import { hex } from '@airlock/core/bytes.ts';
import { sameBytes } from '../bytes.ts';
import { type Check, type Checklist, createChecklist } from '../check.ts';
import type { Crypto } from '../crypto.ts';
import { timeText } from '../time.ts';
import { type Certificate, CRL_SIGN, isSignedBy, KEY_CERT_SIGN } from './certificate.ts';
import type { RevocationList } from './crl.ts';
import { attributesOf } from './name.ts';
import { answersFor, isAuthentic, type OcspResponse } from './ocsp.ts';

/** A vendor's root, by the SHA-384 digest of its SubjectPublicKeyInfo in hex. */
export interface TrustedRoot {
  readonly name: string;
  readonly spki: string;
}

export interface ChainInput {
  readonly crypto: Crypto;
  readonly leaf: Certificate;
  /** Where issuers are looked for, in any order, from any source: only the root's key is trusted. */
  readonly pool: readonly Certificate[];
  readonly roots: readonly TrustedRoot[];
  readonly asOf: number;
  readonly revocation: {
    readonly lists: readonly RevocationList[];
    /** Answers that were fetched before, for certificates that no list is given for. */
    readonly responses?: readonly OcspResponse[];
    /** Must there be a list? Where not, its absence is told and rejects nothing. */
    readonly required: boolean;
    /** `authorities`: the signer itself is on no list, because its issuer keeps none (AMD). */
    readonly of: 'all' | 'authorities';
  };
  /** Critical extensions that the caller checks. */
  readonly understood?: readonly string[];
}

export interface Chain {
  /** Signer first. */
  readonly certificates: readonly Certificate[];
  /** The root that it ends at, null when it ends elsewhere or a signature on the way is wrong. */
  readonly root: TrustedRoot | null;
}

const LENGTH_LIMIT = 8;
const CANDIDATE_LIMIT = 8;
const LIST_LIMIT = 32;
const RESPONSE_LIMIT = 64;
/** How long an answer that names no next one is believed. */
const DAY = 24 * 60 * 60 * 1000;
const UNDERSTOOD: readonly string[] = ['2.5.29.15', '2.5.29.19', '2.5.29.37'];
const DIGITAL_SIGNATURE = 1;

interface Remembered {
  readonly input: ChainInput;
  readonly checks: readonly Check[];
  readonly chain: Chain;
}

const remembered = new WeakMap<Crypto, WeakMap<Certificate, Remembered>>();

/**
 * Adds the `chain.*` checks for every certificate on the way. Asked again for the same objects and the same date it adds
 * the same checks: a machine that comes back costs nothing here.
 */
export function checkChain(list: Checklist, input: ChainInput): Chain {
  let known = remembered.get(input.crypto);
  if (known === undefined) {
    known = new WeakMap();
    remembered.set(input.crypto, known);
  }
  const before = known.get(input.leaf);
  if (before !== undefined && isSameInput(before.input, input)) {
    list.adopt(before.checks);
    return before.chain;
  }
  // No check of a chain can be allowed to fail, so that what is remembered holds for whoever asks next.
  const own = createChecklist();
  const chain = walkChain(own, input);
  list.adopt(own.checks);
  const { lists } = input.revocation;
  const copy = {
    ...input,
    pool: [...input.pool],
    roots: [...input.roots],
    revocation: { ...input.revocation, lists: [...lists], responses: [...(input.revocation.responses ?? [])] },
  };
  known.set(input.leaf, { input: copy, checks: own.checks, chain });
  return chain;
}

function isSameInput(a: ChainInput, b: ChainInput): boolean {
  const { revocation: r, understood: u = [] } = a;
  const { revocation: s, understood: v = [] } = b;
  return (
    a.asOf === b.asOf &&
    r.required === s.required &&
    r.of === s.of &&
    isSameList(a.pool, b.pool) &&
    isSameList(r.lists, s.lists) &&
    isSameList(r.responses ?? [], s.responses ?? []) &&
    isSameList(u, v) &&
    isSameList(a.roots, b.roots)
  );
}

function isSameList(a: readonly unknown[], b: readonly unknown[]): boolean {
  return a.length === b.length && a.every((one, i) => one === b[i]);
}

function walkChain(list: Checklist, input: ChainInput): Chain {
  const { crypto, leaf, roots } = input;
  const certificates: Certificate[] = [leaf];
  let root: TrustedRoot | null = null;
  let whole = true;
  for (let current = leaf; ; ) {
    const digest = keyDigest(crypto, current);
    root = roots.find(({ spki }) => spki === digest) ?? null;
    if (root !== null && current !== leaf) break;
    const selfIssued = sameBytes(current.issuer.der, current.subject.der);
    if (selfIssued || certificates.length >= LENGTH_LIMIT) {
      root = null;
      break;
    }
    const found = findIssuer(input, current, certificates);
    if (found === null) {
      whole = false;
      root = null;
      break;
    }
    const subject = nameOf(current);
    const signed = isSignedBy(crypto, current, found);
    if (!signed) whole = false;
    list.check('chain.signature', signed, {
      subject,
      expected: `signed by ${nameOf(found)}, ${current.algorithm.name}`,
      found: signed ? 'good' : current.algorithm.scheme === undefined ? 'an algorithm that is not accepted' : 'wrong',
    });
    certificates.push(found);
    current = found;
  }
  const last = certificates[certificates.length - 1] ?? leaf;
  if (root !== null || sameBytes(last.issuer.der, last.subject.der)) {
    const selfSigned = isSignedBy(crypto, last, last);
    if (last !== leaf) {
      list.check('chain.signature', selfSigned, {
        subject: nameOf(last),
        expected: `signed by itself, ${last.algorithm.name}`,
        found: selfSigned ? 'good' : 'wrong',
      });
    }
    if (!selfSigned) whole = false;
    list.check('chain.root', root !== null, {
      subject: nameOf(last),
      expected:
        roots.length === 0
          ? 'a trusted root; none was given'
          : `the key of ${roots.map(({ name }) => name).join(' or ')}`,
      found:
        root !== null
          ? root.name
          : last === leaf && roots.some(({ spki }) => spki === keyDigest(crypto, last))
            ? 'the root itself, which is no device’s or signer’s certificate'
            : `another key, SHA-384 ${keyDigest(crypto, last).slice(0, 16)}…`,
    });
  } else {
    list.check('chain.path', false, {
      subject: nameOf(last),
      expected: `a certificate of its issuer, ${last.issuer.text}`,
      found: certificates.length >= LENGTH_LIMIT ? `a chain of more than ${LENGTH_LIMIT}` : 'none among the files',
    });
  }
  for (const [index, certificate] of certificates.entries()) checkCertificate(list, input, certificate, index);
  checkRevocation(list, input, certificates);
  return { certificates, root: whole ? root : null };
}

/** One whose key verifies; else one that has at least the name, for a report that says whose signature is wrong. */
function findIssuer(
  { crypto, pool, roots, asOf }: ChainInput,
  certificate: Certificate,
  taken: readonly Certificate[],
): Certificate | null {
  const named = pool
    .filter((one) => sameBytes(one.subject.der, certificate.issuer.der) && !taken.includes(one))
    .slice(0, CANDIDATE_LIMIT);
  const signers = named.filter((one) => isSignedBy(crypto, certificate, one));
  if (signers.length < 2) return signers[0] ?? named[0] ?? null;
  // Certificates of one key: renewed ones, and ones of other issuers. What does not lead further is the last choice.
  const promise = (one: Certificate): number => {
    const valid = one.notBefore <= asOf && asOf <= one.notAfter ? 4 : 0;
    if (!sameBytes(one.issuer.der, one.subject.der)) return valid + 1;
    return valid + (roots.some(({ spki }) => spki === keyDigest(crypto, one)) ? 2 : 0);
  };
  return signers.reduce((best, one) => (promise(one) > promise(best) ? one : best));
}

function checkCertificate(list: Checklist, input: ChainInput, certificate: Certificate, index: number): void {
  const { asOf } = input;
  const subject = nameOf(certificate);
  list.check('chain.validity', certificate.notBefore <= asOf && asOf <= certificate.notAfter, {
    subject,
    expected: `${timeText(asOf)} within ${timeText(certificate.notBefore)}..${timeText(certificate.notAfter)}`,
    found:
      asOf < certificate.notBefore
        ? `not valid until ${timeText(certificate.notBefore)}`
        : asOf > certificate.notAfter
          ? `expired on ${timeText(certificate.notAfter)}`
          : 'valid',
  });
  const understood = [...UNDERSTOOD, ...(input.understood ?? [])];
  const unknown = [...certificate.extensions].find(([oid, { critical }]) => critical && !understood.includes(oid))?.[0];
  const maySign = index > 0 || certificate.keyUsage === null || (certificate.keyUsage & DIGITAL_SIGNATURE) !== 0;
  list.check('chain.extensions', unknown === undefined && maySign, {
    subject,
    expected: 'no unknown critical extension; the signer’s key may sign',
    found:
      unknown !== undefined ? `critical extension ${unknown}` : maySign ? 'as expected' : 'keyUsage without signing',
  });
  if (index === 0) return;
  const { authority, keyUsage, pathLength } = certificate;
  const mayIssue = keyUsage === null || (keyUsage & KEY_CERT_SIGN) !== 0;
  const deepEnough = pathLength === null || pathLength >= index - 1;
  list.check('chain.authority', authority && mayIssue && deepEnough, {
    subject,
    expected: `an authority over ${index} certificate${index === 1 ? '' : 's'}`,
    found: !authority
      ? 'no authority'
      : !mayIssue
        ? 'keyUsage without keyCertSign'
        : deepEnough
          ? 'an authority'
          : `at most ${pathLength} authorities below it`,
  });
}

function checkRevocation(list: Checklist, input: ChainInput, certificates: readonly Certificate[]): void {
  const { crypto, revocation, asOf } = input;
  const first = revocation.of === 'authorities' ? 1 : 0;
  for (let index = first; index < certificates.length - 1; index++) {
    const [certificate, issuer] = [certificates[index], certificates[index + 1]];
    if (certificate === undefined || issuer === undefined) continue;
    const subject = nameOf(certificate);
    const named = revocation.lists.filter(({ issuer: name }) => sameBytes(name.der, certificate.issuer.der));
    if (named.length > LIST_LIMIT) {
      // Among too many the one that counts could be hidden.
      list.check('chain.revocation-list', false, {
        subject: `of ${nameOf(issuer)}`,
        expected: `at most ${LIST_LIMIT} lists of one issuer`,
        found: String(named.length),
      });
      continue;
    }
    const answered = checkAnswers(list, input, certificate, issuer);
    if (named.length === 0 && answered) continue;
    if (named.length === 0) {
      const detail = { subject, expected: `the revocation list of ${nameOf(issuer)}`, found: 'none was given' };
      if (revocation.required) list.check('chain.revocation', false, detail);
      else list.unchecked('chain.revocation', detail);
      continue;
    }
    // A revocation counts on whatever genuine list it stands: an older or newer one does not take it back.
    const genuine = named.filter((one) => isSignedBy(crypto, one, issuer));
    const mayList = issuer.keyUsage === null || (issuer.keyUsage & CRL_SIGN) !== 0;
    const current = genuine.find((one) => one.thisUpdate <= asOf && asOf <= one.nextUpdate);
    const shown = current ?? genuine[0] ?? named[0];
    list.check('chain.revocation-list', current !== undefined && mayList, {
      subject: `of ${nameOf(issuer)}`,
      expected: `signed by ${nameOf(issuer)}, current on ${timeText(asOf)}`,
      found:
        genuine.length === 0
          ? 'the signature is wrong'
          : !mayList
            ? 'keyUsage without cRLSign'
            : current !== undefined || shown === undefined
              ? `issued ${timeText(shown?.thisUpdate ?? 0)}, next due ${timeText(shown?.nextUpdate ?? 0)}`
              : asOf < shown.thisUpdate
                ? `issued in the future, on ${timeText(shown.thisUpdate)}`
                : `expired: the next was due ${timeText(shown.nextUpdate)}`,
    });
    const revokedAt = genuine.map(({ revoked }) => revoked.get(certificate.serial)).find((at) => at !== undefined);
    list.check('chain.revocation', revokedAt === undefined, {
      subject,
      expected: `serial ${certificate.serial} on no list of ${nameOf(issuer)}`,
      found: revokedAt === undefined ? 'not revoked' : `revoked on ${timeText(revokedAt)}`,
      ...(revokedAt === undefined ? {} : { hint: 'the vendor withdrew this certificate: do not trust the machine' }),
    });
  }
}

/** What OCSP responses say of one certificate; false when none that is genuine says anything. */
function checkAnswers(list: Checklist, input: ChainInput, certificate: Certificate, issuer: Certificate): boolean {
  const { crypto, asOf } = input;
  const about = (input.revocation.responses ?? []).flatMap((response) => {
    const answers = answersFor(crypto, response, certificate, issuer);
    return answers.length === 0 ? [] : [{ response, answers }];
  });
  if (about.length > RESPONSE_LIMIT) {
    // Among too many the one that counts could be hidden.
    list.check('chain.revocation', false, {
      subject: nameOf(certificate),
      expected: `at most ${RESPONSE_LIMIT} answers for one certificate`,
      found: String(about.length),
    });
    return true;
  }
  const found = about.flatMap(({ response, answers }) =>
    // Whoever revoked need not be able to answer today.
    answers.filter(
      ({ status, thisUpdate }) =>
        isAuthentic(crypto, response, issuer, asOf) ||
        (status === 'revoked' && isAuthentic(crypto, response, issuer, thisUpdate)),
    ),
  );
  if (found.length === 0) return false;
  const subject = nameOf(certificate);
  // As with lists: a revocation counts on whatever genuine answer it stands.
  const revoked = found.find(({ status }) => status === 'revoked');
  const current = found.find(
    ({ status, thisUpdate, nextUpdate }) =>
      status === 'good' && thisUpdate <= asOf && asOf <= (nextUpdate ?? thisUpdate + DAY),
  );
  const [shown = null] = found;
  const expected = `an answer of ${nameOf(issuer)} that serial ${certificate.serial} is good on ${timeText(asOf)}`;
  if (revoked !== undefined) {
    const held = revoked.onHold ? ', on hold: its issuer may take that back' : '';
    list.check('chain.revocation', false, {
      subject,
      expected,
      found: `revoked on ${timeText(revoked.revokedAt ?? 0)}${held}`,
      hint: 'the vendor withdrew this certificate: do not trust the machine',
    });
  } else {
    list.check('chain.revocation', current !== undefined, {
      subject,
      expected,
      found:
        current !== undefined
          ? 'good'
          : shown?.status === 'unknown'
            ? 'its issuer does not know it'
            : `good from ${timeText(shown?.thisUpdate ?? 0)} to ${timeText(shown?.nextUpdate ?? shown?.thisUpdate ?? 0)} only`,
      hint: 'fetch the OCSP response anew, or check the date (--as-of)',
    });
  }
  return true;
}

/** The common name; where it is only that of the organisation, with what tells its certificates apart. */
export function nameOf({ subject }: Certificate): string {
  const { commonName, text } = subject;
  if (commonName === null) return text;
  if (!text.includes(`O=${commonName}`)) return commonName;
  const unit = attributesOf(subject).find(([label]) => label === 'OU')?.[1];
  return unit === undefined ? commonName : `${commonName}, ${unit}`;
}

const digests = new WeakMap<Certificate, string>();

/** SHA-384 of the SubjectPublicKeyInfo, in hex. */
export function keyDigest(crypto: Crypto, certificate: Certificate): string {
  let digest = digests.get(certificate);
  if (digest === undefined) {
    digest = hex(crypto.hash('sha384', certificate.spki));
    digests.set(certificate, digest);
  }
  return digest;
}
