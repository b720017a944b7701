/** The device interface report, PCIe 6.1 §11.3.11: what of a function is in its TEE interface. */
import { ok, type Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { FieldReader, le16, le32 } from '../little-endian.ts';
import { encodeMmioRange, type MmioRange, readRange } from './messages.ts';

/** Offsets and lengths of its portions have 16 bits. */
export const REPORT_LIMIT = 0xffff;

/** INTERFACE_INFO. */
export const INTERFACE_INFO = {
  noUpdateAfterLock: 1 << 0,
  dmaWithoutPasid: 1 << 1,
  dmaWithPasid: 1 << 2,
  ats: 1 << 3,
  prs: 1 << 4,
} as const;
const INTERFACE_BITS = 0x1f;

/** RANGE_ATTRIBUTES. */
export const RANGE_ATTRIBUTE = { msixTable: 1 << 0, msixPba: 1 << 1, nonTee: 1 << 2, updatable: 1 << 3 } as const;

export interface InterfaceReport {
  readonly info: number;
  /** Message Control of MSI-X; 0 where the function has none or its table is not locked. */
  readonly msixControl: number;
  readonly lnrControl: number;
  readonly tphControl: number;
  readonly ranges: readonly MmioRange[];
  readonly deviceSpecific: Uint8Array;
}

/** The report and nothing after it. Codes: `tdisp-report-invalid`. */
export function decodeInterfaceReport(bytes: Uint8Array): Result<InterfaceReport> {
  const reader = new FieldReader(bytes, 'tdisp-report-invalid', 'TDISP interface report');
  if (bytes.length > REPORT_LIMIT) reader.refuse(`${bytes.length} bytes`);
  const info = reader.u16('INTERFACE_INFO');
  if (info & ~INTERFACE_BITS) reader.refuse('reserved bits of INTERFACE_INFO are set');
  reader.reserved(2);
  const msixControl = reader.u16('MSI_X_MESSAGE_CONTROL');
  const lnrControl = reader.u16('LNR_CONTROL');
  const tphControl = reader.u32('TPH_CONTROL');
  const count = reader.u32('MMIO_RANGE_COUNT');
  if (count * 16 > reader.left) reader.refuse(`${count} ranges in ${reader.left} bytes`);
  const ranges: MmioRange[] = [];
  for (let i = 0; i < count && reader.problem === null; i++) ranges.push(readRange(reader));
  const deviceSpecific = reader.take(reader.u32('DEVICE_SPECIFIC_INFO_LEN'), 'DEVICE_SPECIFIC_INFO');
  reader.finish();
  if (reader.problem !== null) return { ok: false, error: reader.problem };
  return ok({ info, msixControl, lnrControl, tphControl, ranges, deviceSpecific });
}

export function encodeInterfaceReport(report: InterfaceReport): Uint8Array {
  const { info, msixControl, lnrControl, tphControl, ranges, deviceSpecific } = report;
  return concat(
    le16(info),
    le16(0),
    le16(msixControl),
    le16(lnrControl),
    le32(tphControl),
    le32(ranges.length),
    ...ranges.map(encodeMmioRange),
    le32(deviceSpecific.length),
    deviceSpecific,
  );
}
