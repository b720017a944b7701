/** TDX quotes of version 4 and 5. Intel TDX DCAP Quoting Library API, Appendix A.3. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { u16le, u32le, u64le } from '../bytes.ts';

export const QUOTE_LIMIT = 64 * 1024;
const HEADER = 48;
const TD_10 = 584;
const TD_15 = 648;
const SGX_REPORT = 384;
const CERTIFICATION_QE_REPORT = 6;

/** The TD report's body, TD 1.0 and 1.5. */
export interface TdReport {
  /** Where it starts in the quote. */
  readonly at: number;
  readonly teeTcbSvn: Uint8Array;
  readonly mrSeam: Uint8Array;
  readonly mrSignerSeam: Uint8Array;
  readonly seamAttributes: Uint8Array;
  readonly tdAttributes: bigint;
  readonly xfam: bigint;
  readonly mrTd: Uint8Array;
  readonly mrConfigId: Uint8Array;
  readonly mrOwner: Uint8Array;
  readonly mrOwnerConfig: Uint8Array;
  readonly rtmrs: readonly Uint8Array[];
  readonly reportData: Uint8Array;
  /** Absent in TD 1.0. */
  readonly teeTcbSvn2: Uint8Array | null;
  readonly mrServiceTd: Uint8Array | null;
}

/** The quoting enclave's SGX report. */
export interface EnclaveReport {
  readonly bytes: Uint8Array;
  readonly miscSelect: Uint8Array;
  readonly attributes: Uint8Array;
  readonly mrSigner: Uint8Array;
  readonly isvProdId: number;
  readonly isvSvn: number;
  readonly reportData: Uint8Array;
}

export interface TdxQuote {
  readonly version: number;
  readonly keyType: number;
  readonly teeType: number;
  readonly vendor: Uint8Array;
  /** TD 1.0 or 1.5. */
  readonly generation: '1.0' | '1.5';
  readonly td: TdReport;
  /** What the quote's signature covers. */
  readonly signed: Uint8Array;
  /** r || s. */
  readonly signature: Uint8Array;
  /** x || y on P-256. */
  readonly attestationKey: Uint8Array;
  readonly enclave: EnclaveReport;
  readonly enclaveSignature: Uint8Array;
  readonly authenticationData: Uint8Array;
  /** 5: PEM chain of the PCK, leaf first. */
  readonly certificationType: number;
  readonly certificationData: Uint8Array;
  /** Bytes that the size fields account for. */
  readonly size: number;
  /** Bytes that stand behind. */
  readonly trailing: number;
}

/** Every size field is held against what holds it, down to the last byte. Codes: `tdx-quote-invalid`. */
export function readQuote(given: Uint8Array): Result<TdxQuote> {
  const wrong = (what: string) => fail('tdx-quote-invalid', what);
  if (given.length > QUOTE_LIMIT) return wrong(`${given.length} bytes; no quote is that long`);
  const bytes = given.slice();
  if (bytes.length < HEADER) return wrong(`${bytes.length} bytes end within the header`);
  const version = u16le(bytes, 0);
  if (version !== 4 && version !== 5) return wrong(`version ${version}; 4 and 5 are known`);

  let at = HEADER;
  let bodySize = TD_10;
  if (version === 5) {
    if (bytes.length < at + 6) return wrong('the body’s descriptor is cut off');
    const type = u16le(bytes, at);
    const size = u32le(bytes, at + 2);
    bodySize = type === 2 ? TD_10 : type === 3 ? TD_15 : 0;
    if (bodySize === 0) return wrong(`body type ${type}; 2 (TD 1.0) and 3 (TD 1.5) are known`);
    if (size !== bodySize) return wrong(`the body says ${size} bytes; its type has ${bodySize}`);
    at += 6;
  }
  const bodyAt = at;
  if (bytes.length < at + bodySize + 4) return wrong('the TD report is cut off');
  at += bodySize;
  const signed = bytes.subarray(0, at);
  const length = u32le(bytes, at);
  at += 4;
  const end = at + length;
  if (end > bytes.length) return wrong(`the signature says ${length} bytes, ${bytes.length - at} are there`);
  // 64 signature, 64 key, 6 header of the certification data
  if (length < 134) return wrong(`a signature of ${length} bytes`);
  const signature = bytes.subarray(at, at + 64);
  const attestationKey = bytes.subarray(at + 64, at + 128);
  at += 128;
  const outerType = u16le(bytes, at);
  const outerLength = u32le(bytes, at + 2);
  at += 6;
  if (outerType !== CERTIFICATION_QE_REPORT) return wrong(`certification data of type ${outerType}; 6 is needed`);
  if (at + outerLength !== end) return wrong(`certification data of ${outerLength} bytes does not fill the signature`);
  if (outerLength < SGX_REPORT + 64 + 2) return wrong('the quoting enclave’s report is cut off');
  const enclaveBytes = bytes.subarray(at, at + SGX_REPORT);
  const enclaveSignature = bytes.subarray(at + SGX_REPORT, at + SGX_REPORT + 64);
  at += SGX_REPORT + 64;
  const authenticationLength = u16le(bytes, at);
  at += 2;
  if (at + authenticationLength + 6 > end) return wrong('the authentication data is cut off');
  const authenticationData = bytes.subarray(at, at + authenticationLength);
  at += authenticationLength;
  const certificationType = u16le(bytes, at);
  const certificationLength = u32le(bytes, at + 2);
  at += 6;
  if (at + certificationLength !== end) {
    return wrong(`a certificate chain of ${certificationLength} bytes does not fill the certification data`);
  }
  return ok({
    version,
    keyType: u16le(bytes, 2),
    teeType: u32le(bytes, 4),
    vendor: bytes.subarray(12, 28),
    generation: bodySize === TD_15 ? '1.5' : '1.0',
    td: readTd(bytes, bodyAt, bodySize),
    signed,
    signature,
    attestationKey,
    enclave: {
      bytes: enclaveBytes,
      miscSelect: enclaveBytes.subarray(16, 20),
      attributes: enclaveBytes.subarray(48, 64),
      mrSigner: enclaveBytes.subarray(128, 160),
      isvProdId: u16le(enclaveBytes, 256),
      isvSvn: u16le(enclaveBytes, 258),
      reportData: enclaveBytes.subarray(320, 384),
    },
    enclaveSignature,
    authenticationData,
    certificationType,
    certificationData: bytes.subarray(at, end),
    size: end,
    trailing: bytes.length - end,
  });
}

function readTd(bytes: Uint8Array, start: number, size: number): TdReport {
  const at = (offset: number, length: number) => bytes.subarray(start + offset, start + offset + length);
  return {
    at: start,
    teeTcbSvn: at(0, 16),
    mrSeam: at(16, 48),
    mrSignerSeam: at(64, 48),
    seamAttributes: at(112, 8),
    tdAttributes: u64le(bytes, start + 120),
    xfam: u64le(bytes, start + 128),
    mrTd: at(136, 48),
    mrConfigId: at(184, 48),
    mrOwner: at(232, 48),
    mrOwnerConfig: at(280, 48),
    rtmrs: [at(328, 48), at(376, 48), at(424, 48), at(472, 48)],
    reportData: at(520, 64),
    teeTcbSvn2: size === TD_15 ? at(584, 16) : null,
    mrServiceTd: size === TD_15 ? at(600, 48) : null,
  };
}
