/** The things that files hold, read. */

import type { CcaToken } from './cca/token.ts';
import type { NvidiaReport } from './nvidia/report.ts';
import type { Rim } from './nvidia/rim.ts';
import type { SeHeader, SeResponse } from './se/exchange.ts';
import type { SnpReport } from './snp/report.ts';
import type { QeIdentity, TcbInfo } from './tdx/collateral.ts';
import type { TdxQuote } from './tdx/quote.ts';
import type { EventLog } from './tpm/event-log.ts';
import type { HclReport } from './tpm/hcl.ts';
import type { PcrValues, TpmAttest, TpmQuote, TpmSignature } from './tpm/quote.ts';
import type { Certificate } from './x509/certificate.ts';
import type { RevocationList } from './x509/crl.ts';
import type { OcspResponse } from './x509/ocsp.ts';

export type Item =
  /** From Azure’s paravisor it comes with the runtime data that it covers. */
  | { readonly kind: 'snp-report'; readonly report: SnpReport; readonly hcl?: HclReport }
  | { readonly kind: 'tdx-quote'; readonly quote: TdxQuote }
  | { readonly kind: 'nvidia-report'; readonly report: NvidiaReport }
  | { readonly kind: 'cca-token'; readonly token: CcaToken }
  | { readonly kind: 'se-response'; readonly response: SeResponse }
  /** What a Secure Execution image measures. */
  | { readonly kind: 'se-header'; readonly header: SeHeader }
  | { readonly kind: 'certificate'; readonly certificate: Certificate }
  | { readonly kind: 'revocation-list'; readonly list: RevocationList }
  | { readonly kind: 'ocsp-response'; readonly response: OcspResponse }
  /** NVIDIA’s reference values. */
  | { readonly kind: 'rim'; readonly rim: Rim }
  | { readonly kind: 'collateral'; readonly document: TcbInfo | QeIdentity }
  | { readonly kind: 'hcl-report'; readonly hcl: HclReport }
  | { readonly kind: 'tpm-quote'; readonly quote: TpmQuote }
  /** Message and signature in files of their own, as tpm2_quote writes them. */
  | { readonly kind: 'tpm-attest'; readonly attest: TpmAttest }
  | { readonly kind: 'tpm-signature'; readonly signature: TpmSignature }
  /** One entry a bank. */
  | { readonly kind: 'tpm-pcrs'; readonly banks: readonly PcrValues[] }
  | { readonly kind: 'event-log'; readonly log: EventLog }
  /** SubjectPublicKeyInfo. */
  | { readonly kind: 'public-key'; readonly spki: Uint8Array };

export interface Found {
  readonly item: Item;
  /** File, and the way to it within: `evidence.json: tpm_quote.message`. */
  readonly source: string;
}
