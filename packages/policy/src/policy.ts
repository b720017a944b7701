/** A policy as a plain value: what the files say once they are decoded, merged, and every name in them is known. */

import type { Protection } from '@airlock/core/decision.ts';
import type { Bus, Transport } from '@airlock/core/device.ts';
import type { IdentityTier, TrustLevel } from '@airlock/core/level.ts';
import type { Position } from '@airlock/core/result.ts';
import type { PlatformAttestation } from './attestation.ts';

/** `learn` and `audit` decide and report, and leave every device as it is; `learn` ends by itself. */
export const MODES = ['learn', 'audit', 'enforce'] as const;
export type Mode = (typeof MODES)[number];

/** What must hold of the machine before any device is used; docs/policy.md says how each is checked. */
export const PLATFORM_REQUIREMENTS = [
  'memory-encryption',
  'memory-integrity',
  'swiotlb',
  'swiotlb-force',
  'iommu-strict',
  'lockdown',
  'lockdown-confidentiality',
  'module-signatures',
] as const;
export type PlatformRequirement = (typeof PLATFORM_REQUIREMENTS)[number];

/** Kinds of devices that are disconnected whatever the rules say. */
export const PLATFORM_FORBIDS = [
  'virtio-mmio',
  'virtio-legacy',
  'virtio-vdpa',
  'vdpa',
  'hotplug',
  'usb',
  'sriov-virtual',
] as const;
export type PlatformForbid = (typeof PLATFORM_FORBIDS)[number];

/** What can go wrong with a device in use. */
export const VIOLATIONS = [
  'ring-violation',
  'feature-violation',
  'driver-violation',
  'identity-change',
  'device-timeout',
  'needs-reset',
  'iommu-fault',
  'integrity-failure',
  'attestation-failure',
] as const;
export type Violation = (typeof VIOLATIONS)[number];

export const ACTIONS = ['log', 'reset', 'unbind', 'quarantine', 'remove', 'revoke-keys', 'halt'] as const;
export type Action = (typeof ACTIONS)[number];

/** What the agent of this version notices. The other violations are words that a later version will know how to tell. */
export const NOTICED: readonly Violation[] = [
  'feature-violation',
  'driver-violation',
  'identity-change',
  'device-timeout',
  'needs-reset',
  'attestation-failure',
];

/** What it can do about them: it keeps no keys, so there are none to revoke. */
export const CARRIED_OUT: readonly Action[] = ['log', 'reset', 'unbind', 'quarantine', 'remove', 'halt'];

export const FUNCTIONS = ['physical', 'virtual'] as const;
export type FunctionRole = (typeof FUNCTIONS)[number];

/** A name with the place where the policy states it. */
export interface Stated<T extends string = string> {
  readonly name: T;
  readonly at: Position;
}

/** A device type: a VIRTIO id, a PCI class, or a word that the inventory uses. `name` is what the policy says. */
export interface TypePattern {
  readonly name: string;
  readonly virtio?: number;
  readonly class?: ClassPattern;
}

/** The first 8, 16 or 24 bits of a PCI class code. */
export interface ClassPattern {
  readonly name: string;
  readonly value: number;
  readonly bits: 8 | 16 | 24;
}

/** Inclusive; `text` is what the policy says. */
export interface NumberRange {
  readonly text: string;
  readonly min: number;
  readonly max: number;
}

/** Every list means "any of"; every key that is there must hold. */
export interface Match {
  readonly bus?: readonly Bus[];
  readonly transport?: readonly Transport[];
  readonly type?: readonly TypePattern[];
  readonly vendor?: readonly number[];
  readonly device?: readonly number[];
  readonly subsystem?: { readonly vendor?: readonly number[]; readonly device?: readonly number[] };
  readonly class?: readonly ClassPattern[];
  readonly revision?: readonly NumberRange[];
  readonly serial?: readonly string[];
  /** Exact, or with `*` for any run of characters. */
  readonly location?: readonly string[];
  readonly hotplugged?: boolean;
  readonly function?: readonly FunctionRole[];
  /** Places of physical functions whose virtual ones are meant; exact, or with `*` for any run of characters. */
  readonly physicalFunction?: readonly string[];
  readonly features?: { readonly offered?: readonly string[]; readonly negotiated?: readonly string[] };
  readonly identity?: readonly { readonly tier: IdentityTier; readonly orAbove: boolean }[];
}

/** What a device must prove for the rule's level. Lists mean "any of". */
export interface Requirement {
  /** At least this tier. */
  readonly identity?: IdentityTier;
  readonly roots?: readonly string[];
  readonly measurements?: readonly string[];
  /** At least this version: `1.2`. */
  readonly spdm?: SpdmVersion;
}

/** Versions of DSP0274 that a rule can ask for, in their order. */
export const SPDM_VERSIONS = ['1.1', '1.2', '1.3', '1.4'] as const;
export type SpdmVersion = (typeof SPDM_VERSIONS)[number];

export interface Rule {
  readonly id: string;
  readonly at: Position;
  readonly match: Match;
  readonly level: TrustLevel;
  readonly require?: Requirement;
  /** What holds when `require` does not. */
  readonly otherwise?: { readonly level: TrustLevel; readonly protect?: Protection };
  /** Hold for every level above `disconnected`; where they do not, the device is disconnected. */
  readonly features?: { readonly require: readonly string[]; readonly forbid: readonly string[] };
  readonly drivers?: readonly string[];
  readonly protect?: Protection;
  /** How far an operator may raise a device that this rule decided. */
  readonly grant?: TrustLevel;
  readonly note?: string;
}

export interface OpaBundle {
  readonly kind: 'opa';
  readonly path: string;
  readonly entrypoint: string;
  readonly verify?: { readonly key: string; readonly algorithm?: string; readonly scope?: string };
  /** Milliseconds for one decision. */
  readonly timeout: number;
  readonly at: Position;
}

export interface Policy {
  readonly version: 1;
  /** In merge order. */
  readonly files: readonly string[];
  readonly mode: Mode;
  /** Seconds; only and always with the mode `learn`. */
  readonly learnFor?: number;
  readonly default: TrustLevel;
  readonly defaultGrant: TrustLevel;
  readonly platform: {
    readonly require: readonly Stated<PlatformRequirement>[];
    readonly forbid: readonly Stated<PlatformForbid>[];
    /** For whoever verifies the machine’s evidence. */
    readonly attestation?: PlatformAttestation;
  };
  /** Rule ids, or device ids (those have a colon). */
  readonly bootCritical: readonly Stated[];
  readonly rules: readonly Rule[];
  readonly on: Readonly<Partial<Record<Violation, readonly Action[]>>>;
  /** Where each is stated. */
  readonly onAt: Readonly<Partial<Record<Violation, Position>>>;
  readonly modules: { readonly disableLoading: 'after-gate' | 'never' };
  readonly external?: OpaBundle;
}
