/** What `device attest` and `device evidence verify` share: roots, reference values, options, and how a verdict is shown. */
import { formatProblem, ok, type Result } from '@airlock/core/result.ts';
import { fromHex } from '@airlock/evidence/bytes.ts';
import type { Appraisal, Check, Report } from '@airlock/evidence/check.ts';
import { type Corim, isCorim, readCorim } from '@airlock/evidence/corim/corim.ts';
import { nodeCrypto } from '@airlock/evidence/node-crypto.ts';
import { recognise } from '@airlock/evidence/recognise.ts';
import { appraiseReferences, type References, referencesOfCorim } from '@airlock/evidence/references.ts';
import { readTime, timeText } from '@airlock/evidence/time.ts';
import type { Certificate } from '@airlock/evidence/x509/certificate.ts';
import type { RevocationList } from '@airlock/evidence/x509/crl.ts';
import { printable } from '@airlock/linux/attribute.ts';
import { SPDM_VERSIONS } from '@airlock/spdm/algorithms.ts';
import { type AppraiseDevice, appraiseDevice, type DeviceAppraisal } from '@airlock/spdm/attest/appraise.ts';
import type { DeviceEvidence } from '@airlock/spdm/attest/evidence.ts';
import { corimReferences } from '@airlock/spdm/identity/corim-references.ts';
import { type PciIdentity, parsePciName } from '@airlock/spdm/identity/pci-name.ts';
import { type ReferenceSet, readReferences } from '@airlock/spdm/identity/references.ts';
import { nodeSpdmCrypto } from '@airlock/spdm/node-crypto.ts';
import type { InterfaceRecord } from '@airlock/spdm/tdisp/record.ts';
import { judgeInterface } from './bundle-devices.ts';
import { readBytes, texts } from './evidence-input.ts';
import { readPlainYaml } from './plain-yaml.ts';
import { keysOf } from './trusted-keys.ts';
import { type Context, EXIT, UsageError, type Values } from './verb.ts';
import { waivableCheck } from './waivable-check.ts';

export const APPRAISAL_OPTIONS = {
  roots: { type: 'string', multiple: true },
  crl: { type: 'string', multiple: true },
  reference: { type: 'string', multiple: true },
  'reference-key': { type: 'string', multiple: true },
  nonce: { type: 'string' },
  'least-version': { type: 'string' },
  function: { type: 'string' },
  'as-of': { type: 'string' },
  'require-crl': { type: 'boolean' },
  allow: { type: 'string', multiple: true },
  json: { type: 'boolean' },
  verbose: { type: 'boolean', short: 'v' },
} as const;

export const APPRAISAL_HELP = `  --roots FILE        root certificates that you trust (PEM, DER), and revocation lists that come with them; may stand
                      more than once
  --crl FILE          revocation lists of the issuers; may stand more than once
  --require-crl       reject where an issuer's list is missing
  --reference FILE    reference values of measurements (YAML, JSON, CoRIM); may stand more than once
  --reference-key FILE  a public key that may sign a CoRIM (PEM, JWK); may stand more than once
  --least-version V   the lowest version of SPDM that is good enough: 1.1, 1.2, 1.3 or 1.4
  --as-of DATE        check for this date, 2026-11-20 or 2026-11-20T12:00:00Z, instead of now
  --allow ID          accept although this check failed, where that is a matter of policy; may stand more than once
  --json              the whole result as one JSON value
  --verbose, -v       also every check that passed and everything that the device states`;

const NONCE_SIZE = 32;

export type AppraisalInput = Omit<AppraiseDevice, 'nonce' | 'function'> & {
  readonly nonce: Uint8Array | null;
  /** From `--function`; null when it was not given. */
  readonly function: PciIdentity | null;
  /** `referenceChecks` for another date, in milliseconds. */
  readonly referenceChecksAt: (asOf: number) => readonly Check[];
};

/** Everything but the evidence. Throws UsageError for what the user got wrong. */
export async function appraisalInput(context: Context, values: Values): Promise<AppraisalInput> {
  const roots: Certificate[] = [];
  const lists: RevocationList[] = [];
  for (const path of texts(values, 'roots')) {
    const found = await itemsOf(context, 'roots', path);
    const certificates = found.flatMap((item) => (item.kind === 'certificate' ? [item.certificate] : []));
    if (certificates.length === 0) throw new UsageError(`--roots ${printable(path)}: no certificate in it`);
    roots.push(...certificates);
    // A maker's file may hold both; the agent is given no other.
    lists.push(...found.flatMap((item) => (item.kind === 'revocation-list' ? [item.list] : [])));
  }
  for (const path of texts(values, 'crl')) {
    const found = await itemsOf(context, 'crl', path);
    const read = found.flatMap((item) => (item.kind === 'revocation-list' ? [item.list] : []));
    if (read.length === 0) throw new UsageError(`--crl ${printable(path)}: no revocation list in it`);
    lists.push(...read);
  }
  const asOf = dateOf(values);
  const x509 = nodeCrypto();
  const keys = await keysOf(context, values, 'reference-key');
  const references: ReferenceSet[] = [];
  const files: References[] = [];
  for (const path of texts(values, 'reference')) {
    const read = await readReferenceFile(context, path);
    if (read.corim === null) references.push(read.set);
    else {
      const { references: set, left } = corimReferences(read.corim, printable(path));
      if (set.values.length === 0)
        throw new UsageError(`--reference ${printable(path)}: no triple of it is for a measurement index`);
      if (left.length > 0)
        context.stderr(`airlock: ${printable(path)}: not for a measurement index: ${printable(left.join(', '))}\n`);
      references.push(set);
      files.push(referencesOfCorim(read.corim, printable(path)));
    }
  }
  const referenceChecksAt = (date: number) =>
    files.flatMap((file) => appraiseReferences(file, { crypto: x509, asOf: date, trustedKeys: keys }).checks);
  const named = values['function'];
  const pciFunction = typeof named === 'string' ? parsePciName(named) : null;
  if (pciFunction === undefined)
    throw new UsageError('--function: Vendor=1af4:Device=1041:CC=020000:REV=01:SSVID=1af4:SSID=0001 is the form');
  return {
    x509,
    spdm: nodeSpdmCrypto(),
    roots,
    references,
    referenceChecks: referenceChecksAt(asOf),
    referenceChecksAt,
    asOf,
    revocation: { lists, required: values['require-crl'] === true },
    function: pciFunction,
    nonce: nonceOf(values),
    ...leastVersionOf(values),
    allowed: new Set(texts(values, 'allow').map(waivableCheck)),
  };
}

export interface DeviceVerdict {
  readonly appraisal: DeviceAppraisal;
  /** Null where nothing was recorded of one. */
  readonly interface: Appraisal | null;
  /** Whose word that is. */
  readonly recordedBy: InterfaceRecord['by'] | null;
  readonly report: Report;
}

/**
 * `address` is that of the function, null where nobody knows it. A rejected interface rejects all: nobody may then say
 * that the device is attested. Codes: those of `appraiseDevice`.
 */
export function judge(
  evidence: DeviceEvidence,
  source: string,
  input: AppraiseDevice,
  address: string | null = null,
): Result<DeviceVerdict> {
  const appraisal = appraiseDevice(evidence, input);
  if (!appraisal.ok) return appraisal;
  const { kind, title, checks, claims } = appraisal.value;
  const record = evidence.interface;
  const one = { kind, title, verdict: appraisal.value.verdict, checks, claims, source: printable(source) };
  const { allowed } = input;
  const its =
    record === undefined
      ? null
      : judgeInterface(record, evidence.chain, {
          ...{ function: address, compare: record.by === 'tsm' },
          ...(allowed === undefined ? {} : { allowed }),
        });
  const verdict = its?.verdict === 'rejected' ? 'rejected' : appraisal.value.verdict;
  const tier = verdict === 'accepted' ? appraisal.value.tier : 'claimed';
  return ok({
    appraisal: { ...appraisal.value, verdict, tier },
    interface: its,
    recordedBy: record?.by ?? null,
    report: {
      version: 1,
      verdict,
      asOf: timeText(input.asOf),
      appraisals: [one, ...(its === null ? [] : [{ ...its, source: printable(source) }])],
      files: [],
      problems: [],
    },
  });
}

/** One problem on stderr. `environment` ones have an exit code of their own. */
export function complain(context: Context, verb: string, result: Result<never>): number {
  if (result.ok) return EXIT.fine;
  context.stderr(`airlock ${verb}: ${printable(formatProblem(result.error))}\n`);
  return isEnvironment(result.error.code) ? EXIT.environment : EXIT.findings;
}

/** Nobody could be asked; everything else is what the device did. */
function isEnvironment(code: string): boolean {
  return /^(tdisp-in-use|tsm-absent|tsm-held|netlink-timeout|system-call|link-refused|link-timeout|link-cancelled|doe-absent|doe-unsupported|doe-busy|doe-gone|config-|file-|write-|sysfs-|bus-|inventory-)/.test(
    code,
  );
}

/** The bytes of a file of the user’s. Throws UsageError. */
export async function readUserFile(context: Context, option: string, path: string): Promise<Uint8Array> {
  const read = await readBytes(context, path);
  if (typeof read === 'string') throw new UsageError(`${option}${option === '' ? '' : ' '}${printable(path)}: ${read}`);
  return read;
}

async function itemsOf(context: Context, option: string, path: string) {
  const bytes = await readUserFile(context, `--${option}`, path);
  return recognise(printable(path), bytes).found.map(({ item }) => item);
}

type ReferenceFile = { readonly corim: Corim } | { readonly corim: null; readonly set: ReferenceSet };

async function readReferenceFile(context: Context, path: string): Promise<ReferenceFile> {
  const bytes = await readUserFile(context, '--reference', path);
  const name = printable(path);
  if (isCorim(bytes)) {
    const corim = readCorim(bytes);
    if (!corim.ok) throw new UsageError(`--reference ${name}: ${formatProblem(corim.error)}`);
    return { corim: corim.value };
  }
  const plain = readPlainYaml(new TextDecoder().decode(bytes), name, 'reference-values-invalid');
  const references = plain.ok ? readReferences(plain.value, name) : plain;
  if (!references.ok) throw new UsageError(`--reference ${formatProblem(references.error)}`);
  return { corim: null, set: references.value };
}

function nonceOf(values: Values): Uint8Array | null {
  const text = values['nonce'];
  if (typeof text !== 'string') return null;
  const bytes = fromHex(text);
  if (bytes === undefined || bytes.length !== NONCE_SIZE)
    throw new UsageError(`--nonce: ${NONCE_SIZE} bytes, ${2 * NONCE_SIZE} hex digits`);
  return bytes;
}

/** `--least-version`, as `AppraiseDevice` takes it. Throws UsageError. */
export function leastVersionOf(values: Values): Pick<AppraiseDevice, 'leastVersion'> {
  const text = values['least-version'];
  if (typeof text !== 'string') return {};
  const leastVersion = SPDM_VERSIONS.find((one) => one === text);
  if (leastVersion === undefined)
    throw new UsageError(`--least-version ${printable(text)}: one of ${SPDM_VERSIONS.join(', ')}`);
  return { leastVersion };
}

function dateOf(values: Values): number {
  const text = values['as-of'];
  const date = typeof text === 'string' ? readTime(text) : Date.now();
  if (date === undefined)
    throw new UsageError(`--as-of ${printable(String(text))}: a date such as 2026-11-20 or 2026-11-20T12:00:00Z`);
  return date;
}
