/** PEM (RFC 7468): the blocks of a text, strictly, with whatever text stands between them left out. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { fromBase64 } from '../bytes.ts';

export interface PemBlock {
  /** `CERTIFICATE`, `X509 CRL` */
  readonly label: string;
  readonly bytes: Uint8Array;
}

export const PEM_BLOCK_LIMIT = 64;

/** At least one block. Codes: `pem-invalid`. */
export function readPem(text: string): Result<PemBlock[]> {
  const blocks: PemBlock[] = [];
  let at = 0;
  for (;;) {
    const begin = text.indexOf('-----BEGIN ', at);
    if (begin === -1) break;
    const nameEnd = text.indexOf('-----', begin + 11);
    const label = nameEnd === -1 ? '' : text.slice(begin + 11, nameEnd);
    if (!/^[A-Z0-9 ]{1,40}$/.test(label)) return fail('pem-invalid', 'a BEGIN line without a label');
    const mark = `-----END ${label}-----`;
    const end = text.indexOf(mark, nameEnd + 5);
    if (end === -1) return fail('pem-invalid', `${label} is not closed`);
    const bytes = fromBase64(text.slice(nameEnd + 5, end).replace(/[\r\n\t ]+/g, ''));
    if (bytes === undefined || bytes.length === 0) return fail('pem-invalid', `${label} is not base64`);
    if (blocks.length >= PEM_BLOCK_LIMIT) return fail('pem-invalid', `more than ${PEM_BLOCK_LIMIT} blocks`);
    blocks.push({ label, bytes });
    at = end + mark.length;
  }
  return blocks.length === 0 ? fail('pem-invalid', 'no PEM block') : ok(blocks);
}
