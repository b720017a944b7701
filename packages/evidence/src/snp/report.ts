/** ATTESTATION_REPORT of SEV-SNP, versions 2 to 5. AMD 56860 (SEV-SNP firmware ABI) 1.58. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { isZero, u32le, u64le } from '../bytes.ts';

export const REPORT_SIZE = 0x4a0;
/** What the signature covers. */
export const SIGNED_SIZE = 0x2a0;
const R_AT = 0x2a0;
const S_AT = 0x2e8;
const SIGNATURE_END = 0x330;
const COMPONENT = 72;
const P384 = 48;

export type SnpSigner = 'vcek' | 'vlek' | 'none' | 'reserved';

export interface SnpReport {
  /** All 1184 bytes, a copy. */
  readonly bytes: Uint8Array;
  readonly version: number;
  readonly guestSvn: number;
  readonly policy: bigint;
  readonly familyId: Uint8Array;
  readonly imageId: Uint8Array;
  readonly vmpl: number;
  readonly signatureAlgorithm: number;
  /** Eight bytes each, whose layout depends on the product. */
  readonly currentTcb: Uint8Array;
  readonly reportedTcb: Uint8Array;
  readonly committedTcb: Uint8Array;
  readonly launchTcb: Uint8Array;
  readonly platformInfo: bigint;
  readonly authorKey: boolean;
  readonly maskChipKey: boolean;
  readonly signer: SnpSigner;
  readonly reportData: Uint8Array;
  readonly measurement: Uint8Array;
  readonly hostData: Uint8Array;
  readonly idKeyDigest: Uint8Array;
  readonly authorKeyDigest: Uint8Array;
  readonly reportId: Uint8Array;
  readonly reportIdMa: Uint8Array;
  /** Absent before version 3. */
  readonly cpu: { readonly family: number; readonly model: number; readonly stepping: number } | null;
  readonly chipId: Uint8Array;
  /** `1.55.40`: major, minor, build. */
  readonly currentFirmware: string;
  readonly committedFirmware: string;
  /** Absent before version 5. */
  readonly mitigations: { readonly launch: bigint; readonly current: bigint } | null;
  /** Byte ranges that this version reserves and that are not zero. */
  readonly reservedSet: readonly (readonly [number, number])[];
  /** r || s, big-endian, 96 bytes. */
  readonly signature: Uint8Array;
}

/**
 * Exactly 1184 bytes. A version outside of 2 to 5 is read as the nearest and left to the checks. What the signature does
 * not cover must be zero, so that one report has one form. Codes: `snp-report-invalid`.
 */
export function readSnpReport(given: Uint8Array): Result<SnpReport> {
  if (given.length !== REPORT_SIZE)
    return fail('snp-report-invalid', `${given.length} bytes; a report has ${REPORT_SIZE}`);
  const bytes = given.slice();
  const at = (start: number, length: number) => bytes.subarray(start, start + length);
  const version = u32le(bytes, 0);
  const flags = u32le(bytes, 0x48);
  if (!isZero(bytes.subarray(SIGNATURE_END))) {
    return fail('snp-report-invalid', `bytes 0x330 to 0x4a0 follow the signature and must be zero`);
  }
  const signature = new Uint8Array(2 * P384);
  for (const [half, start] of [R_AT, S_AT].entries()) {
    if (!isZero(at(start + P384, COMPONENT - P384)))
      return fail('snp-report-invalid', 'a part of the signature is longer than P-384');
    for (let i = 0; i < P384; i++) signature[half * P384 + i] = bytes[start + P384 - 1 - i] ?? 0;
  }
  const reserved: [number, number][] = [
    [0x4c, 0x50],
    [version >= 3 ? 0x18b : 0x188, 0x1a0],
    [0x1eb, 0x1ec],
    [0x1ef, 0x1f0],
    [version >= 5 ? 0x208 : 0x1f8, SIGNED_SIZE],
  ];
  return ok({
    bytes,
    version,
    guestSvn: u32le(bytes, 0x04),
    policy: u64le(bytes, 0x08),
    familyId: at(0x10, 16),
    imageId: at(0x20, 16),
    vmpl: u32le(bytes, 0x30),
    signatureAlgorithm: u32le(bytes, 0x34),
    currentTcb: at(0x38, 8),
    platformInfo: u64le(bytes, 0x40),
    authorKey: (flags & 1) !== 0,
    maskChipKey: (flags & 2) !== 0,
    signer: signerOf((flags >>> 2) & 7),
    reportData: at(0x50, 64),
    measurement: at(0x90, 48),
    hostData: at(0xc0, 32),
    idKeyDigest: at(0xe0, 48),
    authorKeyDigest: at(0x110, 48),
    reportId: at(0x140, 32),
    reportIdMa: at(0x160, 32),
    reportedTcb: at(0x180, 8),
    cpu: version >= 3 ? { family: bytes[0x188] ?? 0, model: bytes[0x189] ?? 0, stepping: bytes[0x18a] ?? 0 } : null,
    chipId: at(0x1a0, 64),
    committedTcb: at(0x1e0, 8),
    currentFirmware: `${bytes[0x1ea]}.${bytes[0x1e9]}.${bytes[0x1e8]}`,
    committedFirmware: `${bytes[0x1ee]}.${bytes[0x1ed]}.${bytes[0x1ec]}`,
    launchTcb: at(0x1f0, 8),
    mitigations: version >= 5 ? { launch: u64le(bytes, 0x1f8), current: u64le(bytes, 0x200) } : null,
    reservedSet: [
      ...(flags >>> 5 === 0 ? [] : [[0x48, 0x4c] as const]),
      ...reserved.filter(([start, end]) => !isZero(bytes.subarray(start, end))),
    ],
    signature,
  });
}

function signerOf(value: number): SnpSigner {
  return value === 0 ? 'vcek' : value === 1 ? 'vlek' : value === 7 ? 'none' : 'reserved';
}
