/** Intel's SGX extension in PCK certificates. Intel SGX PCK Certificate and CRL Specification, §1.3.5. */
import { hex } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { Certificate } from '../x509/certificate.ts';
import { DerReader, TAG } from '../x509/der.ts';

const SGX = '1.2.840.113741.1.13.1';

export interface Pck {
  /** Lower-case hex: 12 digits, 4 digits. */
  readonly fmspc: string;
  readonly pceId: string;
  /** 16 of them. */
  readonly components: readonly number[];
  readonly pceSvn: number;
}

export function isPck(certificate: Certificate): boolean {
  return certificate.extensions.has(SGX);
}

/** Codes: `pck-extension-invalid`. */
export function readPck(certificate: Certificate): Result<Pck> {
  const value = certificate.extensions.get(SGX)?.value;
  if (value === undefined) return fail('pck-extension-invalid', 'no SGX extension');
  const outer = new DerReader(value);
  const list = outer.enter(TAG.sequence);
  outer.finish();
  const seen = new Set<string>();
  const components: number[] = [];
  let [fmspc, pceId, pceSvn] = ['', '', -1];
  while (list.more) {
    const one = list.enter(TAG.sequence);
    const oid = one.oid();
    if (seen.has(oid)) one.refuse('der-value-invalid', `${oid} stands twice`);
    seen.add(oid);
    if (oid === `${SGX}.3`) pceId = hex(one.take(TAG.octetString));
    else if (oid === `${SGX}.4`) fmspc = hex(one.take(TAG.octetString));
    else if (oid === `${SGX}.2`) {
      const tcb = one.enter(TAG.sequence);
      while (tcb.more) {
        const part = tcb.enter(TAG.sequence);
        const partOid = part.oid();
        const number = partOid.startsWith(`${SGX}.2.`) ? Number(partOid.slice(SGX.length + 3)) : 0;
        if (number >= 1 && number <= 16 && number === components.length + 1) components.push(part.unsigned());
        else if (number === 17 && pceSvn === -1) pceSvn = part.unsigned();
        else if (number === 18) part.take(TAG.octetString);
        else part.refuse('der-value-invalid', `${partOid} is out of place`);
        part.finish();
      }
    } else one.any();
    one.finish();
  }
  if (list.problem !== null) return fail('pck-extension-invalid', list.problem.message);
  if (fmspc.length !== 12 || pceId.length !== 4 || components.length !== 16 || pceSvn < 0)
    return fail('pck-extension-invalid', 'FMSPC, PCEID or TCB is missing or of a wrong length');
  return ok({ fmspc, pceId, components, pceSvn });
}
