/** The certificate table that the host gives with an extended report. AMD 56421 (GHCB), SNP Extended Guest Request. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { isZero, u32le } from '../bytes.ts';

const ENTRY = 24;
const ENTRY_LIMIT = 32;
const TABLE_LIMIT = 256 * 1024;

/**
 * What its entries hold, in their order. Their GUIDs are not looked at: the host says what an entry is, and only what is
 * in it counts. Codes: `snp-certificate-table-invalid`.
 */
export function readCertificateTable(bytes: Uint8Array): Result<Uint8Array[]> {
  if (bytes.length > TABLE_LIMIT) return fail('snp-certificate-table-invalid', `${bytes.length} bytes`);
  const found: Uint8Array[] = [];
  for (let at = 0; ; at += ENTRY) {
    if (at + ENTRY > bytes.length) return fail('snp-certificate-table-invalid', 'no entry of zeros ends the table');
    if (isZero(bytes.subarray(at, at + ENTRY))) return ok(found);
    if (found.length >= ENTRY_LIMIT) return fail('snp-certificate-table-invalid', `more than ${ENTRY_LIMIT} entries`);
    const [offset, length] = [u32le(bytes, at + 16), u32le(bytes, at + 20)];
    if (length === 0 || offset < ENTRY || offset + length > bytes.length) {
      return fail('snp-certificate-table-invalid', `entry ${found.length} leads out of the table`);
    }
    found.push(bytes.subarray(offset, offset + length));
  }
}
