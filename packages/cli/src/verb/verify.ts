/** `airlock verify`: is this attestation evidence genuine, fresh and good enough? Offline. */
import { formatProblem, type Problem } from '@airlock/core/result.ts';
import { type AppraiseOptions, appraise, describe } from '@airlock/evidence/appraise.ts';
import { sameBytes } from '@airlock/evidence/bytes.ts';
import { CHECKS, type CheckId } from '@airlock/evidence/catalogue.ts';
import type { Appraisal, Report } from '@airlock/evidence/check.ts';
import { CMW_INDICATORS, writeCmw } from '@airlock/evidence/cmw.ts';
import { EAR_PROFILE, earClaims } from '@airlock/evidence/ear.ts';
import type { Found, Item } from '@airlock/evidence/item.ts';
import { appraiseMachine, type MachineOptions, reportOfMachine } from '@airlock/evidence/machine/appraise.ts';
import { isBundle, type MachineBundle, readBundle } from '@airlock/evidence/machine/bundle.ts';
import { signEar } from '@airlock/evidence/node-ear.ts';
import { recognise } from '@airlock/evidence/recognise.ts';
import type { References } from '@airlock/evidence/references.ts';
import { reportText } from '@airlock/evidence/text.ts';
import { timeText } from '@airlock/evidence/time.ts';
import type { Certificate } from '@airlock/evidence/x509/certificate.ts';
import { printable } from '@airlock/linux/attribute.ts';
import type { PlatformAttestation } from '@airlock/policy/attestation.ts';
import manifest from '../../package.json' with { type: 'json' };
import { judgeSpdm, type SpdmTrust } from '../bundle-devices.ts';
import { leastVersionOf } from '../device-appraisal.ts';
import { readBytes, readCollateral, readReferenceFile, texts } from '../evidence-input.ts';
import { readPolicy } from '../policy-input.ts';
import { readTrustedKeys } from '../trusted-keys.ts';
import { type Context, EXIT, UsageError, type Values, type Verb } from '../verb.ts';
import { optionsOf } from '../verify-options.ts';

export const verb: Verb = {
  name: 'verify',
  summary: 'is this attestation evidence genuine, fresh and good enough? Offline',
  usage: 'FILE... [--collateral DIR] [--nonce HEX] [--as-of DATE] [--json | --ear] | --list [--json]',
  help: `
FILE is evidence (SEV-SNP report, TDX quote, TPM quote, CCA token, Secure Execution response, NVIDIA report, event log) or
what stands beside it (certificates, revocation lists, OCSP responses, Intel collateral, NVIDIA manifests), in any order, or
what airlock evidence collect wrote of a whole machine; binary, hex, base64, PEM, or the JSON of whatever tool. - is
standard input. What a file is, is found out from what it holds. Nothing is fetched: what is missing is named.
docs/evidence.md tells more.

  --collateral DIR    also what lies in DIR, or in a document of airlock collateral bundle: certificates, revocation lists
                      and OCSP responses, TCB info, QE identities, NVIDIA manifests
  --nonce HEX         the nonce that the evidence was asked for with
  --as-of DATE        check for this date, 2026-11-20 or 2026-11-20T12:00:00Z, instead of now
  --measurement HEX   the launch digest (SNP MEASUREMENT, TDX MRTD, CCA RIM) expected; may stand more than once
  --key FILE          the public key of a TPM that you trust (PEM, DER, JWK, TPMT_PUBLIC), or what airlock evidence collect
                      wrote of a machine whose TPM you know; may stand more than once
  --platform-key FILE the public key of a CCA platform (PEM, DER, JWK); may stand more than once
  --reference-key FILE  a public key that may sign a CoRIM (PEM, DER, JWK); may stand more than once
  --se-key FILE       IBM Secure Execution: the key that your request was sealed with (pvattest create --arpk)
  --policy FILE       what platform.attestation of this policy asks of the machine
  --reference FILE    what the evidence must state: CoRIM (signed or not) or YAML; may stand more than once
  --minimum-tcb LIST  the least SNP firmware: bootloader=4,snp=24,microcode=219
  --allow ID          accept although this check failed, where that is a matter of policy; may stand more than once
  --tier NAME         of a machine's devices: attested (also when not said) or bound
  --roots FILE        root certificates that you trust where none is built in: of TPM makers, of the authority that certifies
                      IBM's key signing service (host key documents); may stand more than once
  --device-root FILE  root certificates of makers of a machine's SPDM devices; may stand more than once
  --least-version V   the lowest version of SPDM that is good enough for those: 1.1, 1.2, 1.3 or 1.4
  --ear               the result as a signed JWT (EAR), made with the private key that --key FILE holds
  --cmw               with --ear: wrapped as RFC 9999 says
  --json              the whole report as one JSON value
  --certificates      where there is no evidence: check the certificates for themselves
  --verbose, -v       also every check that passed and everything that the evidence states
  --list              every check: id, rule, may it be allowed to fail

Exit codes: 0 accepted, 1 rejected, 2 usage.

  airlock verify report.bin vcek.der cert_chain.pem
  airlock verify quote.dat --collateral pcs/ --nonce 6f1d...
  airlock verify machine.json --nonce 6f1d... --tier bound --collateral collateral.json
  airlock verify evidence.json --json | jq '.appraisals[].checks[] | select(.status == "failed")'
`,
  options: {
    collateral: { type: 'string', multiple: true },
    nonce: { type: 'string' },
    'as-of': { type: 'string' },
    measurement: { type: 'string', multiple: true },
    key: { type: 'string', multiple: true },
    'platform-key': { type: 'string', multiple: true },
    'reference-key': { type: 'string', multiple: true },
    'minimum-tcb': { type: 'string' },
    allow: { type: 'string', multiple: true },
    certificates: { type: 'boolean' },
    roots: { type: 'string', multiple: true },
    'device-root': { type: 'string', multiple: true },
    'least-version': { type: 'string' },
    policy: { type: 'string' },
    'se-key': { type: 'string' },
    reference: { type: 'string', multiple: true },
    tier: { type: 'string' },
    ear: { type: 'boolean' },
    cmw: { type: 'boolean' },
    json: { type: 'boolean' },
    verbose: { type: 'boolean', short: 'v' },
    list: { type: 'boolean' },
  },
  run,
};

/** The media type of an EAR (RFC 9782, draft-ietf-rats-ear). */
const EAR_TYPE = `application/eat+jwt; eat_profile="${EAR_PROFILE}"`;

/** What would have to be judged; everything else supports it. */
const EVIDENCE: readonly Item['kind'][] = [
  ...(['snp-report', 'tdx-quote', 'nvidia-report', 'cca-token', 'se-response', 'tpm-quote', 'tpm-attest'] as const),
];

async function run(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  const json = values['json'] === true;
  if (values['list'] === true) {
    context.stdout(json ? `${JSON.stringify(CHECKS, null, 2)}\n` : listText());
    return EXIT.fine;
  }
  if (positionals.length === 0) throw new UsageError('at least one FILE is needed');
  if (positionals.filter((one) => one === '-').length > 1) throw new UsageError('- may stand once');
  let options = optionsOf(values);

  const { signing, ...keys } = await readTrustedKeys(context, values);
  if (values['ear'] === true && signing === null)
    throw new UsageError('--ear: the private key to sign with is missing: --key FILE (PEM or JWK)');
  if (values['ear'] === true && json) throw new UsageError('--ear and --json are two forms of one result: choose one');
  if (values['cmw'] === true && signing === null) throw new UsageError('--cmw wraps what --ear signs');
  const found: Found[] = [];
  const files: { file: string; holds: string[] }[] = [];
  const problems: { file: string; problem: Problem }[] = [];
  let machine: { readonly name: string; readonly bundle: MachineBundle } | null = null;
  for (const path of positionals) {
    const read = await readBytes(context, path);
    if (typeof read === 'string') {
      context.stderr(`airlock verify: ${printable(path)}: ${read}\n`);
      return EXIT.usage;
    }
    const name = path === '-' ? 'standard input' : printable(path);
    const text = Buffer.from(read).toString('latin1');
    if (isBundle(text)) {
      if (machine !== null) throw new UsageError('the evidence of one machine at a time');
      const bundle = readBundle(text);
      if (!bundle.ok) {
        files.push({ file: name, holds: [] });
        problems.push({ file: name, problem: bundle.error });
      } else machine = { name, bundle: bundle.value };
      continue;
    }
    const recognition = recognise(name, read);
    found.push(...recognition.found);
    files.push({ file: name, holds: recognition.found.map(({ item }) => describe(item)) });
    problems.push(...recognition.problems.map((problem) => ({ file: name, problem })));
  }
  const loose = machine === null ? undefined : found.find(({ item }) => EVIDENCE.includes(item.kind));
  if (loose !== undefined)
    throw new UsageError(`${loose.source}: evidence beside that of a machine is not judged; verify it by itself`);
  const collateral = await readCollateral(context, 'verify', texts(values, 'collateral'));
  if (typeof collateral === 'string') {
    context.stderr(`airlock verify: --collateral ${collateral}\n`);
    return EXIT.usage;
  }

  const deviceRoots = await readRoots(context, values, 'device-root');
  const makerRoots = await readRoots(context, values, 'roots');
  const references: References[] = [];
  for (const path of texts(values, 'reference')) {
    const read = await readReferenceFile(context, path);
    if (!read.ok) throw new UsageError(`--reference ${printable(path)}: ${formatProblem(read.error)}`);
    references.push(read.value);
  }
  const seKey = values['se-key'];
  if (typeof seKey === 'string') {
    const read = await readBytes(context, seKey);
    if (typeof read === 'string' || read.length !== 32)
      throw new UsageError(`--se-key ${printable(seKey)}: ${typeof read === 'string' ? read : 'not 32 bytes'}`);
    options = { ...options, seRequestKey: read };
  }
  if (typeof values['policy'] === 'string')
    options = { ...options, platform: await readPlatform(context, values['policy']) };
  options = { ...options, ...keys, references, makerRoots };
  const least = leastVersionOf(values);
  if (machine === null && deviceRoots.length > 0)
    throw new UsageError('--device-root: is for the devices of a machine, as airlock evidence collect writes it');
  if (machine === null && least.leastVersion !== undefined)
    throw new UsageError('--least-version: is for the devices of a machine, as airlock evidence collect writes it');
  const report =
    machine === null
      ? reportOf(context, values, options, { found, collateral, files, problems })
      : machineReport(
          machine,
          [...found, ...collateral],
          { ...options, judgeDevice: judgeWith(options, { roots: deviceRoots, ...least }, [...found, ...collateral]) },
          { files, problems },
        );
  if (report === null) return EXIT.usage;
  const open = machine === null || report.problems.length > 0 ? null : unanswered(values, report.appraisals);
  if (open !== null) {
    context.stderr(`airlock verify: --${open}: no evidence among the files states such a thing\n`);
    return EXIT.usage;
  }
  if (signing !== null) {
    const claims = earClaims(report, {
      issuedAt: Date.now(),
      build: `airlock ${manifest.version}`,
      ...(options.nonce === undefined ? {} : { nonce: options.nonce }),
    });
    const token = await signEar(claims, signing);
    if (!token.ok) {
      context.stderr(`airlock verify: ${token.error.message}\n`);
      return EXIT.environment;
    }
    const record = {
      type: EAR_TYPE,
      value: new TextEncoder().encode(token.value),
      indicator: CMW_INDICATORS['attestation-results'],
    };
    context.stdout(`${values['cmw'] === true ? writeCmw(record) : token.value}\n`);
    return report.verdict === 'accepted' ? EXIT.fine : EXIT.findings;
  }
  context.stdout(
    json
      ? `${JSON.stringify(report, null, 2)}\n`
      : reportText(report, {
          colour: context.terminal,
          columns: context.columns,
          verbose: values['verbose'] === true,
        }),
  );
  return report.verdict === 'accepted' ? EXIT.fine : EXIT.findings;
}

async function readRoots(context: Context, values: Values, option: string): Promise<Certificate[]> {
  const roots: Certificate[] = [];
  for (const path of texts(values, option)) {
    const read = await readBytes(context, path);
    const held = typeof read === 'string' ? [] : recognise(printable(path), read).found;
    const all = held.flatMap(({ item }) => (item.kind === 'certificate' ? [item.certificate] : []));
    // Of a whole chain the root is meant.
    const own = all.filter(({ issuer, subject }) => sameBytes(issuer.der, subject.der));
    const certificates = own.length > 0 ? own : all;
    if (certificates.length === 0)
      throw new UsageError(
        `--${option} ${printable(path)}: ${typeof read === 'string' ? read : 'no certificate in it'}`,
      );
    roots.push(...certificates);
  }
  return roots;
}

interface Given {
  readonly found: readonly Found[];
  readonly collateral: readonly Found[];
  readonly files: Report['files'];
  readonly problems: Report['problems'];
}

/** Null where there was nothing to verify, which was told. */
function reportOf(context: Context, values: Values, options: AppraiseOptions, given: Given): Report | null {
  const { files, problems } = given;
  if (values['tier'] !== undefined)
    throw new UsageError('--tier: needs the evidence of a machine, as airlock evidence collect writes it');
  const judged = appraise(given.found, given.collateral, options);
  if (judged === null && problems.length === 0) {
    const held = [...new Set(files.flatMap(({ holds }) => holds))].join(', ');
    context.stderr(
      `airlock verify: nothing to verify: no evidence among the files (${printable(held)}); --certificates checks certificates for themselves\n`,
    );
    return null;
  }
  const asked = unanswered(values, judged?.appraisals ?? []);
  if (judged !== null && asked !== null) {
    context.stderr(`airlock verify: --${asked}: no evidence among the files states such a thing\n`);
    return null;
  }
  return {
    version: 1,
    asOf: timeText(options.asOf),
    appraisals: judged?.appraisals ?? [],
    verdict: judged?.verdict === 'accepted' && problems.length === 0 ? 'accepted' : 'rejected',
    files,
    problems,
  };
}

/** What lies beside a machine's evidence only supports it. */
function machineReport(
  { name, bundle }: { readonly name: string; readonly bundle: MachineBundle },
  collateral: readonly Found[],
  options: MachineOptions,
  given: Pick<Given, 'files' | 'problems'>,
): Report {
  const report = reportOfMachine(appraiseMachine(bundle, collateral, options), name);
  const problems = [...report.problems, ...given.problems];
  return {
    ...report,
    verdict: problems.length === 0 ? report.verdict : 'rejected',
    files: [...report.files, ...given.files],
    problems,
  };
}

/** Devices that speak SPDM, by their makers’ roots. */
function judgeWith(
  { asOf, allowed }: MachineOptions,
  own: Pick<SpdmTrust, 'roots' | 'leastVersion'>,
  found: readonly Found[],
): NonNullable<MachineOptions['judgeDevice']> {
  const lists = found.flatMap(({ item }) => (item.kind === 'revocation-list' ? [item.list] : []));
  const trust = { ...own, lists, asOf, ...(allowed === undefined ? {} : { allowed }) };
  return (device, nonce) => judgeSpdm(device, nonce, trust);
}

async function readPlatform(context: Context, path: string): Promise<PlatformAttestation> {
  const { policy, problems } = await readPolicy(context, path);
  const [problem] = problems;
  if (policy === undefined)
    throw new UsageError(
      `--policy ${printable(path)}: ${problem === undefined ? 'no policy' : formatProblem(problem)}`,
    );
  const { attestation } = policy.platform;
  if (attestation === undefined) throw new UsageError(`--policy ${printable(path)}: it has no platform.attestation`);
  return attestation;
}

/** An expectation that no evidence was held against must not seem to hold. */
function unanswered(values: Values, appraisals: readonly Appraisal[]): string | null {
  const made = (id: CheckId) => appraisals.some(({ checks }) => checks.some((check) => check.id === id));
  if (values['measurement'] !== undefined && !made('launch.measurement')) return 'measurement';
  if (values['minimum-tcb'] !== undefined && !made('snp.tcb.order')) return 'minimum-tcb';
  if (values['policy'] !== undefined && !made('policy.platform')) return 'policy';
  if (values['reference'] !== undefined && !made('reference.present')) return 'reference';
  return values['nonce'] !== undefined && !made('freshness.nonce') ? 'nonce' : null;
}

function listText(): string {
  const width = Math.max(...Object.keys(CHECKS).map((id) => id.length));
  const rows = Object.entries(CHECKS).map(
    ([id, { rule, waivable }]) =>
      `${id.padEnd(width)}  ${waivable === true ? 'may be allowed' : '              '}  ${rule}`,
  );
  return `${'ID'.padEnd(width)}  --allow         RULE\n${rows.join('\n')}\n`;
}
