/** What is known of who a device is, beyond what it says of itself. RFC 9334: the result of an appraisal. */
import type { IdentityTier } from './level.ts';

export interface Claim {
  readonly device: string;
  readonly tier: IdentityTier;
  /** Why it is not higher, in words. */
  readonly because: string;
  /** Names of the trust anchors that the evidence chained to, as policies name them. */
  readonly roots?: readonly string[];
  /** Names of the reference-value sets that all of the device's measurements matched. */
  readonly measurements?: readonly string[];
  /** The version of SPDM that it was said in: `1.3`. */
  readonly spdm?: string;
}

/** By device id. A device without a claim has the tier `claimed` when it states ids, else `location`. */
export type Claims = Readonly<Record<string, Claim>>;
