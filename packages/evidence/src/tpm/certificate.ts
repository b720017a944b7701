/** Certificates of TPM keys, below roots that the verifier chose. TCG EK Credential Profile; Platform Certificate Profile. */
import type { Check } from '../check.ts';
import { createChecklist } from '../check.ts';
import type { Crypto } from '../crypto.ts';
import { type Certificate, purposesOf } from '../x509/certificate.ts';
import { checkChain, type TrustedRoot } from '../x509/chain.ts';
import type { RevocationList } from '../x509/crl.ts';

/** What TPM keys are certified for: endorsement keys (some clouds sign quotes with theirs) and attestation keys. */
const PURPOSES: readonly string[] = ['2.23.133.8.1', '2.23.133.8.3'];
/** Critical where the subject is empty, which it is in most certificates of TPMs. */
const ALTERNATIVE_NAMES = '2.5.29.17';

export interface TpmCertified {
  readonly crypto: Crypto;
  readonly certificates: readonly Certificate[];
  readonly revocationLists: readonly RevocationList[];
  readonly asOf: number;
  /** Of TPM makers, or of a cloud. */
  readonly makers: readonly TrustedRoot[];
}

/**
 * Why the key of this certificate is not to be believed, null where it is; and what was checked of it. Below one root hang
 * many keys: only one that was certified as a TPM's cannot be made to sign what looks like a quote.
 */
export function doubtOfTpmCertificate(
  certificate: Certificate,
  { crypto, certificates, revocationLists, asOf, makers }: TpmCertified,
): { readonly doubt: string | null; readonly checks: readonly Check[] } {
  if (makers.length === 0)
    return { doubt: 'no root of TPM makers is built in: give the maker’s with --roots', checks: [] };
  if (purposesOf(certificate)?.some((one) => PURPOSES.includes(one)) !== true)
    return { doubt: 'it is not certified as a key of a TPM (extended key usage 2.23.133.8.1 or .3)', checks: [] };
  const list = createChecklist();
  checkChain(list, {
    ...{ crypto, leaf: certificate, pool: certificates, roots: makers, asOf, understood: [ALTERNATIVE_NAMES] },
    revocation: { lists: revocationLists, required: false, of: 'all' },
  });
  const failed = [...new Set(list.checks.filter(({ status }) => status === 'failed').map(({ id }) => id))];
  return { doubt: failed.length === 0 ? null : `its chain does not hold (${failed.join(', ')})`, checks: list.checks };
}
