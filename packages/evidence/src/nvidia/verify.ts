/** An NVIDIA report: signed by a device key that leads to NVIDIA's root, over the firmware that the certificate names. */
import { hex } from '@airlock/core/bytes.ts';
import { sameBytes } from '../bytes.ts';
import { type Appraisal, type Claim, createChecklist, verdictOf } from '../check.ts';
import type { Crypto } from '../crypto.ts';
import { checkNonce } from '../expectations.ts';
import { type Certificate, keyOf } from '../x509/certificate.ts';
import { checkChain, keyDigest, nameOf, type TrustedRoot } from '../x509/chain.ts';
import type { RevocationList } from '../x509/crl.ts';
import { DerReader, TAG } from '../x509/der.ts';
import type { OcspResponse } from '../x509/ocsp.ts';
import { checkReference } from './check-rim.ts';
import { isSwitch, type NvidiaReport, OPAQUE_FIELDS, opaqueValue } from './report.ts';
import type { Rim } from './rim.ts';

/** SHA-384 of the SubjectPublicKeyInfo of NVIDIA's device identity root. */
export const NVIDIA_ROOTS: readonly TrustedRoot[] = [
  {
    name: 'NVIDIA Device Identity CA',
    spki: 'e108f61de3fce5261151f8a0eb562a920639ef1b0fcebba785ee52f54420e4248be3400366d45c2880bdf13044325393',
  },
];

export interface NvidiaInput {
  readonly crypto: Crypto;
  readonly report: NvidiaReport;
  readonly certificates: readonly Certificate[];
  readonly revocationLists?: readonly RevocationList[];
  readonly responses?: readonly OcspResponse[];
  /** NVIDIA’s manifests, of any devices. */
  readonly rims?: readonly Rim[];
  readonly asOf: number;
  /** 32 bytes. */
  readonly nonce?: Uint8Array;
  /** Signers of other devices of the same machine, in hex of their key’s digest: one device cannot be two. */
  readonly taken?: ReadonlySet<string>;
  readonly allowed?: ReadonlySet<string>;
  readonly roots?: readonly TrustedRoot[];
  /** Of the manifests; NVIDIA’s, unless a test brings its own. */
  readonly rimRoots?: readonly TrustedRoot[];
}

const P384 = { kind: 'ecdsa', hash: 'sha384', form: 'raw' } as const;
const FWID_FIELD = 20;
const SIGNER_LIMIT = 64;
/** TCG DICE: what firmware the key was derived for. */
const DICE = '2.23.133.5.4.1';
/** As Blackwell’s certificates name it, DiceTcbInfo alone. */
const DICE_TCB_INFO = '2.23.133.5.4.1.1';
const FWIDS = 0xa6;

export interface NvidiaAppraisal extends Appraisal {
  /** SHA-384 of the signer's key; null when no certificate's key verifies. */
  readonly device: string | null;
}

export function verifyNvidia(input: NvidiaInput): NvidiaAppraisal {
  const { crypto, report } = input;
  const list = createChecklist(input.allowed);
  const leaves = input.certificates.filter(({ authority }) => !authority);
  const named = (one: Certificate) => diceOf(one) !== undefined;
  const candidates = [...leaves.filter(named), ...leaves.filter((one) => !named(one))].slice(0, SIGNER_LIMIT);
  const verifies = (one: Certificate) => keyOf(crypto, one)?.verify(P384, report.signed, report.signature) === true;
  const signer = candidates.find(verifies);
  list.check('nvidia.signature', signer !== undefined, {
    expected: `ECDSA P-384 over bytes 0 to ${report.signed.length - 1} with a device key`,
    found: signer !== undefined ? 'good' : candidates.length === 0 ? 'no device certificate among the files' : 'wrong',
    where: { field: 'SPDM signature', bytes: [report.signed.length, report.bytes.length] },
  });
  if (report.trailing > 0) {
    list.note('nvidia.size', {
      expected: `${report.bytes.length} bytes, as the size fields say`,
      found: `${report.trailing} more, which nothing covers; they were not looked at`,
    });
  }
  const leaf = signer ?? candidates[0];
  const device = signer === undefined ? null : keyDigest(crypto, signer);
  if (leaf !== undefined) {
    checkChain(list, {
      crypto,
      leaf,
      pool: input.certificates,
      roots: input.roots ?? NVIDIA_ROOTS,
      asOf: input.asOf,
      revocation: {
        lists: input.revocationLists ?? [],
        responses: input.responses ?? [],
        required: false,
        of: 'all',
      },
    });
    const stated = report.opaque.get(FWID_FIELD);
    const certified = firmwareId(leaf);
    const same = certified !== null && stated !== undefined && sameBytes(certified, stated);
    if (stated === undefined) {
      list.unchecked('nvidia.fwid', {
        expected: 'a firmware id in the report',
        found: 'absent in this report',
        hint: 'older firmware states none: the manifests alone say what runs',
      });
    } else {
      list.check('nvidia.fwid', same, {
        expected: certified === null ? 'an FWID in the certificate' : hex(certified),
        found: same ? 'the same' : hex(stated),
        where: { field: 'opaque data, FWID' },
      });
    }
  }
  if (device !== null && input.taken?.has(device) === true) {
    list.check('nvidia.distinct', false, {
      expected: 'each device once',
      found: 'another report of this evidence is signed by the same device',
    });
  }
  checkNonce(list, input.nonce, report.nonce, { field: 'GET_MEASUREMENTS nonce', bytes: [4, 36] });
  checkReference({
    ...{ list, crypto, report, asOf: input.asOf, rims: input.rims ?? [], certificates: input.certificates },
    device: leaf?.subject.commonName ?? null,
    revocationLists: input.revocationLists ?? [],
    responses: input.responses ?? [],
    ...(input.rimRoots === undefined ? {} : { roots: input.rimRoots }),
  });
  let claims: Record<string, Claim> | null = null;
  return {
    kind: isSwitch(report, leaf?.subject.commonName ?? null) ? 'nvidia-switch' : 'nvidia-gpu',
    title: `NVIDIA report of ${leaf === undefined ? 'an unknown device' : nameOf(leaf)}`,
    verdict: verdictOf(list.checks),
    checks: list.checks,
    // Written out when somebody reads them, as with SEV-SNP.
    get claims() {
      claims ??= claimsOf(report);
      return claims;
    },
    device,
  };
}

/**
 * The firmware digest in a device certificate; null for a form that is neither of the two in use: a composite device id,
 * SEQUENCE { INTEGER, SubjectPublicKeyInfo, FWID }, or DiceTcbInfo with its list of FWIDs in [6], of which the first counts.
 */
export function firmwareId(certificate: Certificate): Uint8Array | null {
  let id = firmwareIds.get(certificate);
  if (id === undefined) {
    id = readFirmwareId(certificate);
    firmwareIds.set(certificate, id);
  }
  return id;
}

function diceOf({ extensions }: Certificate): Uint8Array | undefined {
  return (extensions.get(DICE) ?? extensions.get(DICE_TCB_INFO))?.value;
}

const firmwareIds = new WeakMap<Certificate, Uint8Array | null>();

function readFirmwareId(certificate: Certificate): Uint8Array | null {
  const outer = new DerReader(diceOf(certificate) ?? new Uint8Array());
  const reader = outer.enter(TAG.sequence);
  outer.finish();
  if (reader.peek() === TAG.integer) {
    reader.integerBytes();
    reader.whole(TAG.sequence);
    const value = readFwid(reader.enter(TAG.sequence));
    reader.finish();
    return outer.problem === null ? value : null;
  }
  let value: Uint8Array | null = null;
  while (reader.more) {
    if (reader.peek() === FWIDS) {
      const list = reader.enter(FWIDS);
      while (list.more) {
        const one = readFwid(list.enter(TAG.sequence));
        value ??= one;
      }
    } else reader.any();
  }
  return outer.problem === null ? value : null;
}

function readFwid(fwid: DerReader): Uint8Array {
  fwid.oid();
  const value = fwid.take(TAG.octetString);
  fwid.finish();
  return value;
}

function claimsOf(report: NvidiaReport): Record<string, Claim> {
  const fields: Record<string, Claim> = {};
  for (const [number, { name, form }] of Object.entries(OPAQUE_FIELDS)) {
    const value = report.opaque.get(Number(number));
    fields[name] = value === undefined ? 'absent' : opaqueValue(form, value);
  }
  const unknown = [...report.opaque.keys()].filter((number) => OPAQUE_FIELDS[number] === undefined);
  const measurements: Record<string, Claim> = {};
  for (const [index, { value }] of report.measurements) measurements[String(index)] = hex(value);
  return { ...fields, 'unknown-fields': unknown, nonce: hex(report.nonce), measurements };
}
