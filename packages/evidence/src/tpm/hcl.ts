/**
 * The report of Azure's paravisor: a hardware report, and the runtime data whose digest is that report's REPORT_DATA and
 * which holds the virtual TPM's attestation key. Header 32 bytes, hardware report 1184, runtime data from 1216.
 */
import { asciiText } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { fromBase64, isZero, u32le } from '../bytes.ts';
import { isObject, readJson } from '../json.ts';
import { rsaSpki } from './rsa-spki.ts';

const REPORT_AT = 32;
const REPORT_SIZE = 1184;
const RUNTIME_AT = REPORT_AT + REPORT_SIZE;
const CLAIMS_AT = RUNTIME_AT + 20;
const CLAIMS_LIMIT = 64 * 1024;
const SNP = 2;
const TDX = 4;
const SHA256 = 1;

export interface HclReport {
  readonly platform: 'snp' | 'tdx';
  /** The SNP report, or the TD report, which only its own machine can check: a quote must come with it. */
  readonly hardwareReport: Uint8Array;
  /** The JSON as it stands; SHA-256 of it is in REPORT_DATA. */
  readonly runtimeData: Uint8Array;
  /** SubjectPublicKeyInfo of HCLAkPub. */
  readonly attestationKey: Uint8Array;
  /** `secure-boot`, `tpm-enabled` …, as the paravisor states them. */
  readonly configuration: Readonly<Record<string, string | boolean>>;
}

export function isHclReport(bytes: Uint8Array): boolean {
  return bytes.length > CLAIMS_AT && asciiText(bytes.subarray(0, 4)) === 'HCLA';
}

/** Codes: `hcl-report-invalid`. */
export function readHclReport(given: Uint8Array): Result<HclReport> {
  const wrong = (what: string) => fail('hcl-report-invalid', what);
  const bytes = given.slice();
  if (!isHclReport(bytes)) return wrong('no marker HCLA');
  const kind = u32le(bytes, RUNTIME_AT + 8);
  const length = u32le(bytes, RUNTIME_AT + 16);
  if (kind !== SNP && kind !== TDX) return wrong(`hardware report of kind ${kind}; 2 (SNP) and 4 (TDX) are known`);
  if (u32le(bytes, RUNTIME_AT + 12) !== SHA256) return wrong('runtime data is not bound with SHA-256');
  if (u32le(bytes, RUNTIME_AT) !== length + 20) return wrong('the sizes of the runtime data contradict each other');
  if (length > CLAIMS_LIMIT || CLAIMS_AT + length > bytes.length) return wrong('the runtime data is cut off');
  if (!isZero(bytes.subarray(CLAIMS_AT + length))) return wrong('something follows the runtime data');
  const runtimeData = bytes.subarray(CLAIMS_AT, CLAIMS_AT + length);
  const json = readJson(asciiText(runtimeData));
  if (!json.ok) return wrong(`runtime data: ${json.error.message}`);
  const { value } = json.value;
  const keys = isObject(value) && Array.isArray(value['keys']) ? (value['keys'] as readonly unknown[]) : [];
  const named = keys.filter(isObject).filter((key) => key['kid'] === 'HCLAkPub' && key['kty'] === 'RSA');
  const [key] = named;
  const n = fromBase64(typeof key?.['n'] === 'string' ? key['n'] : '');
  const e = fromBase64(typeof key?.['e'] === 'string' ? key['e'] : '');
  if (
    named.length !== 1 ||
    n === undefined ||
    e === undefined ||
    n.length < 256 ||
    n.length > 512 ||
    e.length < 1 ||
    e.length > 4
  )
    return wrong('runtime data without one RSA key HCLAkPub of at least 2048 bits');
  const stated = isObject(value) && isObject(value['vm-configuration']) ? value['vm-configuration'] : {};
  const configuration: Record<string, string | boolean> = {};
  for (const [name, one] of Object.entries(stated).slice(0, 32))
    if (typeof one === 'boolean' || (typeof one === 'string' && one.length <= 128)) configuration[name] = one;
  return ok({
    platform: kind === SNP ? 'snp' : 'tdx',
    hardwareReport: bytes.subarray(REPORT_AT, RUNTIME_AT),
    runtimeData,
    attestationKey: rsaSpki(n, e),
    configuration,
  });
}
