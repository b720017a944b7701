/** Trust levels and identity tiers, and the one rule that ties them together (docs/policy.md, "Levels and tiers"). */

/** Lowest first; the index is the number that the Linux maintainers' proposal gives the level. */
export const TRUST_LEVELS = ['disconnected', 'limited', 'dma', 'link', 'tcb'] as const;
export type TrustLevel = (typeof TRUST_LEVELS)[number];

/** How sure we are of who the device is; lowest first. */
export const IDENTITY_TIERS = ['location', 'claimed', 'measured', 'attested', 'bound'] as const;
export type IdentityTier = (typeof IDENTITY_TIERS)[number];

/**
 * The highest level that a tier can carry. Ids that the host can forge never lift the confinement; an attested device
 * can be relayed (a genuine device elsewhere answers while another one does the DMA), so only `bound` opens private
 * memory.
 */
export const LEVEL_CEILING: Readonly<Record<IdentityTier, TrustLevel>> = {
  location: 'limited',
  claimed: 'limited',
  measured: 'dma',
  attested: 'link',
  bound: 'tcb',
};

export function levelRank(level: TrustLevel): number {
  return TRUST_LEVELS.indexOf(level);
}

export function tierRank(tier: IdentityTier): number {
  return IDENTITY_TIERS.indexOf(tier);
}

export function lowerLevel(a: TrustLevel, b: TrustLevel): TrustLevel {
  return levelRank(a) <= levelRank(b) ? a : b;
}

/** `true` for levels at which a driver may operate the device. */
export function isConnected(level: TrustLevel): boolean {
  return level !== 'disconnected';
}
