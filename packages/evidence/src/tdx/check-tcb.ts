/** The checks that need Intel's collateral: whose it is, how old, and what it says of this platform. */
import { hex } from '@airlock/core/bytes.ts';
import type { Checklist } from '../check.ts';
import type { Crypto } from '../crypto.ts';
import { timeText } from '../time.ts';
import { type Certificate, isVerifiedBy } from '../x509/certificate.ts';
import { type ChainInput, checkChain } from '../x509/chain.ts';
import type { QeIdentity, Signed, TcbInfo, TcbLevel, TcbStatus } from './collateral.ts';
import type { Pck } from './pck.ts';
import type { TdxQuote } from './quote.ts';
import { enclaveLevel, joinStatus, moduleOf, newestLevel, platformLevel, shortOf } from './tcb.ts';

export interface TcbFindings {
  readonly status?: TcbStatus;
  /** The matching level's date. */
  readonly date?: number;
  readonly advisories?: readonly string[];
  /** When the first of the collateral runs out. */
  readonly until?: number;
}

interface TcbCheck {
  readonly list: Checklist;
  readonly crypto: Crypto;
  readonly quote: TdxQuote;
  readonly pck: Pck;
  readonly pool: readonly Certificate[];
  readonly input: { readonly collateral?: readonly (TcbInfo | QeIdentity)[]; readonly asOf: number };
  readonly chain: (signer: Certificate) => ChainInput;
}

const DAY = 24 * 60 * 60 * 1000;
const SIGNER_LIMIT = 8;

export function checkTcb(check: TcbCheck): TcbFindings {
  const { list, pck, input } = check;
  const infos = (input.collateral ?? []).filter((one): one is TcbInfo => one.kind === 'tcb-info');
  const identities = (input.collateral ?? []).filter((one): one is QeIdentity => one.kind === 'qe-identity');
  const info = pick(infos.filter(fits(pck)), input.asOf) ?? infos[0];
  const identity =
    pick(
      identities.filter(({ id }) => id === 'TD_QE'),
      input.asOf,
    ) ?? identities[0];
  const missing = [
    ...(info === undefined ? [`TCB info of FMSPC ${pck.fmspc}`] : []),
    ...(identity === undefined ? ['QE identity'] : []),
  ];
  list.check('tdx.collateral', missing.length === 0, {
    expected: `TCB info of FMSPC ${pck.fmspc} and the quoting enclave’s identity`,
    found: missing.length === 0 ? 'both' : `none was given: ${missing.join(', ')}`,
  });
  const signers = new Set<Certificate>();
  if (info !== undefined) checkSigned(check, 'TCB info', info, signers);
  if (identity !== undefined) checkSigned(check, 'QE identity', identity, signers);
  for (const signer of signers) checkChain(list, check.chain(signer));

  if (info !== undefined) {
    list.check('tdx.collateral-platform', fits(pck)(info), {
      expected: `TDX, FMSPC ${pck.fmspc}, PCE ${pck.pceId}`,
      found: `${info.id.slice(0, 16)}, FMSPC ${info.fmspc}, PCE ${info.pceId}`,
    });
  }
  const enclave = identity === undefined ? checkEnclaveAlone(check) : checkEnclave(check, identity);
  if (info === undefined || !fits(pck)(info)) return {};
  return checkLevels(check, info, identity, enclave);
}

function fits(pck: Pck): (info: TcbInfo) => boolean {
  return ({ id, fmspc, pceId }) => id === 'TDX' && fmspc === pck.fmspc && pceId === pck.pceId;
}

/**
 * One that is current, of the highest evaluation: Intel keeps several current, and a host that brings one of a lower
 * evaluation must not win by its date. Else the one issued last.
 */
function pick<T extends Signed>(documents: readonly T[], asOf: number): T | undefined {
  const newestFirst = [...documents].sort((a, b) => b.issueDate - a.issueDate);
  const current = newestFirst.filter((one) => one.issueDate <= asOf && asOf <= one.nextUpdate);
  const highest = Math.max(...current.map(({ evaluationNumber }) => evaluationNumber));
  return current.find(({ evaluationNumber }) => evaluationNumber === highest) ?? newestFirst[0];
}

function checkSigned(check: TcbCheck, subject: string, document: Signed, signers: Set<Certificate>): void {
  const { list, crypto, input } = check;
  const candidates = check.pool.filter(({ subject: name }) => name.commonName === 'Intel SGX TCB Signing');
  // A fleet brings the same few documents again and again.
  const verifies = (one: Certificate) =>
    isVerifiedBy(crypto, document, one, {
      scheme: { kind: 'ecdsa', hash: 'sha256', form: 'raw' },
      message: document.body,
      signature: document.signature,
    });
  const signer = candidates.slice(0, SIGNER_LIMIT).find(verifies);
  list.check('tdx.collateral-signature', signer !== undefined, {
    subject,
    expected: 'ECDSA P-256 with Intel’s TCB signing key',
    found: signer !== undefined ? 'good' : candidates.length === 0 ? 'no TCB signing certificate was given' : 'wrong',
    ...(candidates.length === 0
      ? { hint: 'give the TCB signing chain as another file, or with --collateral DIR' }
      : {}),
  });
  const shown = signer ?? candidates[0];
  if (shown !== undefined) signers.add(shown);
  const { asOf } = input;
  const { issueDate, nextUpdate } = document;
  list.check('tdx.collateral-date', issueDate <= asOf && asOf <= nextUpdate, {
    subject,
    expected: `${timeText(asOf)} within ${timeText(issueDate)}..${timeText(nextUpdate)}`,
    found:
      asOf < issueDate
        ? `issued in the future, on ${timeText(issueDate)}`
        : asOf > nextUpdate
          ? `${subject} expired: the next was due ${timeText(nextUpdate)}`
          : 'current',
  });
}

interface EnclaveFinding {
  readonly level: TcbLevel | null;
  readonly behind: string;
}

function checkEnclave({ list, quote }: TcbCheck, identity: QeIdentity): EnclaveFinding {
  const { enclave } = quote;
  const masked = (value: Uint8Array, mask: Uint8Array) => hex(value.map((byte, i) => byte & (mask[i] ?? 0)));
  const differences = [
    ...(identity.id === 'TD_QE' ? [] : [`identity of ${identity.id.slice(0, 16)}, not of TD_QE`]),
    ...(hex(enclave.mrSigner) === hex(identity.mrSigner) ? [] : [`MRSIGNER ${hex(enclave.mrSigner)}`]),
    ...(enclave.isvProdId === identity.isvProdId ? [] : [`ISVPRODID ${enclave.isvProdId}`]),
    ...(masked(enclave.miscSelect, identity.miscSelectMask) === hex(identity.miscSelect)
      ? []
      : [`MISCSELECT ${hex(enclave.miscSelect)}`]),
    ...(masked(enclave.attributes, identity.attributesMask) === hex(identity.attributes)
      ? []
      : [`ATTRIBUTES ${hex(enclave.attributes)}`]),
  ];
  list.check('tdx.qe-identity', differences.length === 0, {
    expected: `TD_QE, MRSIGNER ${hex(identity.mrSigner).slice(0, 16)}…, ISVPRODID ${identity.isvProdId}`,
    found: differences.length === 0 ? 'the same' : differences.join(', '),
  });
  const newest = newestLevel(identity.levels);
  return {
    level: enclaveLevel(identity.levels, enclave.isvSvn),
    behind: newest !== null && enclave.isvSvn < newest.isvSvn ? `ISVSVN ${enclave.isvSvn} < ${newest.isvSvn}` : '',
  };
}

/** Intel's signing key of its quoting enclaves, and the product number of that for TDs. */
const INTEL_MRSIGNER = 'dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5';
const TD_QE_PRODUCT = 2;
const SGX_DEBUG = 0x02;

/**
 * Without an identity its signer at least must be Intel: a PCK signs reports of anybody's enclaves, so that one's own
 * would make quotes of TDs that never were.
 */
function checkEnclaveAlone({ list, quote }: TcbCheck): null {
  const { mrSigner, isvProdId, attributes } = quote.enclave;
  const debug = ((attributes[0] ?? 0) & SGX_DEBUG) !== 0;
  const good = hex(mrSigner) === INTEL_MRSIGNER && isvProdId === TD_QE_PRODUCT && !debug;
  list.check('tdx.qe-identity', good, {
    expected: `MRSIGNER ${INTEL_MRSIGNER.slice(0, 16)}…, ISVPRODID ${TD_QE_PRODUCT}, no debug`,
    found: good ? 'the same' : `MRSIGNER ${hex(mrSigner)}, ISVPRODID ${isvProdId}${debug ? ', under debug' : ''}`,
  });
  return null;
}

function checkLevels(
  check: TcbCheck,
  info: TcbInfo,
  identity: QeIdentity | undefined,
  enclave: EnclaveFinding | null,
): TcbFindings {
  const { list, quote, pck } = check;
  const { teeTcbSvn, mrSignerSeam, seamAttributes } = quote.td;
  const module = moduleOf(info, teeTcbSvn);
  const version = teeTcbSvn[1] ?? 0;
  const masked = hex(seamAttributes.map((byte, i) => byte & (module?.attributesMask[i] ?? 0)));
  const genuine = module !== null && hex(mrSignerSeam) === hex(module.mrSigner) && masked === hex(module.attributes);
  const moduleLevel = module === null || version === 0 ? null : enclaveLevel(module.levels, teeTcbSvn[0] ?? 0);
  list.check('tdx.module', genuine && (version === 0 || moduleLevel !== null), {
    expected:
      module === null
        ? `an identity for module version ${version}`
        : `MRSIGNERSEAM ${hex(module.mrSigner).slice(0, 16)}…, attributes ${hex(module.attributes)}`,
    found:
      module === null
        ? 'none in TCB info'
        : !genuine
          ? `MRSIGNERSEAM ${hex(mrSignerSeam)}, attributes ${hex(seamAttributes)}`
          : version > 0 && moduleLevel === null
            ? `SVN ${teeTcbSvn[0]} below every level of it`
            : `version ${version}, SVN ${teeTcbSvn[0]}`,
    where: { field: 'MRSIGNERSEAM, SEAMATTRIBUTES', bytes: [quote.td.at + 64, quote.td.at + 120] },
  });

  const platform = platformLevel(info, pck, teeTcbSvn);
  const newest = newestLevel(info.levels);
  const lowest = info.levels[info.levels.length - 1];
  list.check('tdx.tcb.level', platform !== null, {
    subject: 'platform',
    expected: `at least the lowest of ${info.levels.length} levels`,
    found:
      platform !== null
        ? `level of ${timeText(platform.date)}`
        : `no matching TCB level: ${lowest === undefined ? 'there are none' : shortOf(lowest, pck, teeTcbSvn).join(', ')}`,
    where: { field: 'TEE_TCB_SVN', bytes: [quote.td.at, quote.td.at + 16] },
  });
  if (identity !== undefined) {
    list.check('tdx.tcb.level', enclave !== null && enclave.level !== null, {
      subject: 'quoting enclave',
      expected: 'at least its lowest level',
      found:
        enclave?.level == null
          ? `ISVSVN ${quote.enclave.isvSvn}: no matching TCB level`
          : `level of ${timeText(enclave.level.date)}`,
    });
  }
  if (platform === null) return {};

  const platformBehind = newest === null ? [] : shortOf(newest, pck, teeTcbSvn);
  const newestModule = module === null ? null : newestLevel(module.levels);
  const parts: { subject: string; level: TcbLevel; newest: TcbLevel | null; behind: string }[] = [
    { subject: 'platform', level: platform, newest, behind: platformBehind.join(', ') },
    ...(moduleLevel === null || newestModule === null
      ? []
      : [
          {
            subject: 'TDX module',
            level: moduleLevel,
            newest: newestModule,
            behind: (teeTcbSvn[0] ?? 0) < newestModule.isvSvn ? `SVN ${teeTcbSvn[0]} < ${newestModule.isvSvn}` : '',
          },
        ]),
    ...(enclave?.level == null || identity === undefined
      ? []
      : [
          {
            subject: 'quoting enclave',
            level: enclave.level,
            newest: newestLevel(identity.levels),
            behind: enclave.behind,
          },
        ]),
  ];
  for (const { subject, level, newest: best, behind } of parts) {
    const days = best === null ? 0 : Math.round((best.date - level.date) / DAY);
    const late = days > 0 ? `, ${days} days behind that of ${timeText(best?.date ?? 0)}` : '';
    const what = `${level.status}, level of ${timeText(level.date)}${late}${behind === '' ? '' : `: ${behind}`}`;
    const advisories = level.advisories.length === 0 ? '' : `; ${level.advisories.join(', ')}`;
    if (level.status === 'Revoked') {
      list.check('tdx.tcb.revoked', false, { subject, expected: 'not revoked', found: what + advisories });
    } else {
      list.check('tdx.tcb.status', level.status === 'UpToDate', {
        subject,
        expected: 'UpToDate, no advisories open',
        found: what + advisories,
      });
    }
  }
  const status = parts.slice(1).reduce((joined, { level }) => joinStatus(joined, level.status), platform.status);
  return {
    status,
    date: platform.date,
    advisories: [...new Set(parts.flatMap(({ level }) => level.advisories))],
    until: Math.min(info.nextUpdate, identity?.nextUpdate ?? info.nextUpdate),
  };
}
