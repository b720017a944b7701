/** The things that files hold, read. */

import type { SnpReport } from './snp/report.ts';
import type { QeIdentity, TcbInfo } from './tdx/collateral.ts';
import type { TdxQuote } from './tdx/quote.ts';
import type { Certificate } from './x509/certificate.ts';
import type { RevocationList } from './x509/crl.ts';

export type Item =
  | { readonly kind: 'snp-report'; readonly report: SnpReport }
  | { readonly kind: 'tdx-quote'; readonly quote: TdxQuote }
  | { readonly kind: 'certificate'; readonly certificate: Certificate }
  | { readonly kind: 'revocation-list'; readonly list: RevocationList }
  | { readonly kind: 'collateral'; readonly document: TcbInfo | QeIdentity };

export interface Found {
  readonly item: Item;
  /** File, and the way to it within: `evidence.json: tpm_quote.message`. */
  readonly source: string;
}
