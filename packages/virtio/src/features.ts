/**
 * Feature bits and how they are agreed on, from either side. VIRTIO 1.3 §2.2, §3.1.1. Rules of the house: what was
 * offered once stays offered (a device that drops a feature after a reset is trying to get a weaker agreement), and a
 * required feature that is missing ends the negotiation.
 */

import { fail, ok, type Result } from '@airlock/core/result.ts';
import { DEVICE_FEATURES, TRANSPORT_FEATURES } from '@airlock/core/virtio.ts';

/** 128 bits as four words of 32, lowest first. Bits above are reserved by every standard so far. */
export type Features = readonly [number, number, number, number];

export const NO_FEATURES: Features = [0, 0, 0, 0];
export const FEATURE_BITS = 128;

export function hasFeature(features: Features, bit: number): boolean {
  return bit >= 0 && bit < FEATURE_BITS && (((features[bit >>> 5] ?? 0) >>> (bit & 31)) & 1) === 1;
}

/** Bits out of range are left out. */
export function featureSet(bits: Iterable<number>): Features {
  const words: [number, number, number, number] = [0, 0, 0, 0];
  for (const bit of bits) {
    if (Number.isInteger(bit) && bit >= 0 && bit < FEATURE_BITS) {
      words[bit >>> 5] = ((words[bit >>> 5] ?? 0) | (1 << (bit & 31))) >>> 0;
    }
  }
  return words;
}

export function featureBits(features: Features): number[] {
  return Array.from({ length: FEATURE_BITS }, (_, bit) => bit).filter((bit) => hasFeature(features, bit));
}

export function bothFeatures(a: Features, b: Features): Features {
  return [(a[0] & b[0]) >>> 0, (a[1] & b[1]) >>> 0, (a[2] & b[2]) >>> 0, (a[3] & b[3]) >>> 0];
}

export function joinFeatures(a: Features, b: Features): Features {
  return [(a[0] | b[0]) >>> 0, (a[1] | b[1]) >>> 0, (a[2] | b[2]) >>> 0, (a[3] | b[3]) >>> 0];
}

/** The bits of `a` that are not in `b`. */
export function withoutFeatures(a: Features, b: Features): Features {
  return [(a[0] & ~b[0]) >>> 0, (a[1] & ~b[1]) >>> 0, (a[2] & ~b[2]) >>> 0, (a[3] & ~b[3]) >>> 0];
}

export function sameFeatures(a: Features, b: Features): boolean {
  return a[0] === b[0] && a[1] === b[1] && a[2] === b[2] && a[3] === b[3];
}

/** What a feature of one type needs: one of each inner list. Bits, from the type's section in §5; `null` for §6. */
const REQUIRES: Readonly<Record<string, Readonly<Record<number, readonly (readonly number[])[]>>>> = {
  transport: { 34: [[32]], 41: [[32]] },
  net: {
    7: [[1]],
    8: [[1]],
    9: [[7, 8]],
    10: [[1]],
    54: [[1]],
    55: [[1]],
    65: [[7], [8], [54], [55]],
    66: [[65]],
    11: [[0]],
    12: [[0]],
    13: [[11, 12]],
    14: [[0]],
    56: [[0]],
    67: [[11], [12], [56]],
    68: [[67]],
    18: [[17]],
    19: [[17]],
    21: [[17]],
    22: [[17]],
    23: [[17]],
    53: [[17]],
    61: [[11, 12]],
    60: [[17]],
    52: [[17]],
    51: [[17], [60, 57]],
    64: [[17], [60]],
  },
  gpu: { 4: [[0]], 5: [[3]] },
  crypto: { 1: [[0]], 2: [[0]], 3: [[0]], 4: [[0]], 5: [[0]] },
  can: { 2: [[0]] },
};

/** What a driver of a type must accept, where it is offered: one of each inner list (§5.16.6.4, §5.20.3.1). */
const MANDATORY: Readonly<Record<string, readonly (readonly number[])[]>> = { i2c: [[0]], can: [[0, 1]] };

/** The lists of a type's mandatory bits, those that are offered of each, of which `features` has none. */
function unmetMandatory(type: string, offered: Features, features: Features): readonly (readonly number[])[] {
  return (MANDATORY[type] ?? [])
    .filter((bits) => !bits.some((bit) => hasFeature(features, bit)))
    .map((bits) => bits.filter((bit) => hasFeature(offered, bit)))
    .filter((bits) => bits.length > 0);
}

/** The first bit of `features` whose requirement is not met, as a problem; null when all are. Code: `feature-dependency`. */
export function unmetRequirement(type: string, features: Features): { bit: number; needs: readonly number[] } | null {
  for (const table of [REQUIRES['transport'], REQUIRES[type]]) {
    for (const [bit, groups] of Object.entries(table ?? {})) {
      if (!hasFeature(features, Number(bit))) continue;
      const unmet = groups.find((group) => !group.some((needed) => hasFeature(features, needed)));
      if (unmet !== undefined) return { bit: Number(bit), needs: unmet };
    }
  }
  return null;
}

/**
 * Driver side: what to accept of what is offered. `before` is what the same device offered when it was looked at first.
 * Wanted features whose own requirements were not offered are left out, not taken half; those that a driver of the type
 * must accept are taken in any case.
 * Codes: `feature-downgraded`, `feature-required`, `feature-dependency`.
 */
export function chooseFeatures(
  type: string,
  offered: Features,
  wanted: Features,
  required: Features,
  before: Features | null = null,
): Result<Features> {
  const lost = before === null ? [] : featureBits(withoutFeatures(before, offered));
  if (lost.length > 0) return fail('feature-downgraded', `offered before, not now: ${name(type, lost)}`);
  const missing = featureBits(withoutFeatures(required, offered));
  if (missing.length > 0) return fail('feature-required', `not offered: ${name(type, missing)}`);
  let chosen = bothFeatures(offered, joinFeatures(wanted, required));
  chosen = joinFeatures(chosen, featureSet(unmetMandatory(type, offered, chosen).flat()));
  // Each round takes out one bit, so there are at most as many rounds as bits.
  for (;;) {
    const unmet = unmetRequirement(type, chosen);
    if (unmet === null) return ok(chosen);
    if (hasFeature(required, unmet.bit)) {
      return fail('feature-dependency', `${name(type, [unmet.bit])} needs ${name(type, unmet.needs)}`);
    }
    chosen = withoutFeatures(chosen, featureSet([unmet.bit]));
  }
}

/**
 * Device side: may the driver have these? (§2.2.2: a device must not go on with what it did not offer.)
 * Codes: `feature-not-offered`, `feature-required`, `feature-dependency`.
 */
export function acceptFeatures(
  type: string,
  offered: Features,
  accepted: Features,
  required: Features = NO_FEATURES,
): Result<Features> {
  const extra = featureBits(withoutFeatures(accepted, offered));
  if (extra.length > 0) return fail('feature-not-offered', `accepted but not offered: ${name(type, extra)}`);
  const missing = featureBits(withoutFeatures(required, accepted));
  if (missing.length > 0) return fail('feature-required', `not accepted: ${name(type, missing)}`);
  const [must] = unmetMandatory(type, offered, accepted);
  if (must !== undefined) return fail('feature-required', `not accepted: ${name(type, must)}`);
  const unmet = unmetRequirement(type, accepted);
  if (unmet === null) return ok(accepted);
  return fail('feature-dependency', `${name(type, [unmet.bit])} needs ${name(type, unmet.needs)}`);
}

function name(type: string, bits: readonly number[]): string {
  return bits.map((bit) => TRANSPORT_FEATURES[bit] ?? DEVICE_FEATURES[type]?.[bit] ?? `bit-${bit}`).join(', ');
}
