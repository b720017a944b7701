/** What to do about decisions, as data; and what came of it. Applied by the gate, never by whoever decides. */
import type { Decision } from './decision.ts';

export type Step =
  /** Stop a bus from binding drivers by itself: /sys/bus/BUS/drivers_autoprobe. */
  | { readonly kind: 'autoprobe-off'; readonly bus: string }
  /** Stop the kernel from binding drivers to an SR-IOV physical function's virtual ones: its sriov_drivers_autoprobe. */
  | { readonly kind: 'virtual-autoprobe-off'; readonly device: string; readonly node: string }
  /** Load modules by name or modalias, with what they depend on. */
  | { readonly kind: 'load'; readonly device: string | null; readonly module: string }
  | {
      readonly kind: 'bind';
      readonly device: string;
      readonly bus: string;
      readonly node: string;
      readonly driver: string;
    }
  | {
      readonly kind: 'unbind';
      readonly device: string;
      readonly bus: string;
      readonly node: string;
      readonly driver: string;
    }
  /** Keep any driver from binding to it: driver_override=none, where the bus has it. */
  | {
      readonly kind: 'pin';
      readonly device: string;
      readonly bus: string;
      readonly node: string;
      readonly driver: string;
    }
  /** USB `authorized`. */
  | { readonly kind: 'authorize'; readonly device: string; readonly node: string; readonly value: boolean }
  /** Take a PCI function off the bus. */
  | { readonly kind: 'remove'; readonly device: string; readonly node: string }
  /** Reset a PCI function by itself, with no driver on it: /sys/bus/pci/devices/NODE/reset. */
  | { readonly kind: 'reset'; readonly device: string; readonly node: string }
  /** A kernel switch: /proc/sys/kernel/modules_disabled. */
  | { readonly kind: 'sysctl'; readonly name: string; readonly value: string };

export interface Plan {
  readonly version: 1;
  readonly steps: readonly Step[];
}

/** `enforced` only when it was read back; `not-enforceable` names the kernel fact that prevents it. */
export type OutcomeStatus = 'enforced' | 'not-enforceable' | 'failed';

export interface Outcome {
  /** What was to hold, in words: `no driver bound`, `bound to virtio_blk`, `RING_PACKED not negotiated`, `DMA bounced`. */
  readonly property: string;
  readonly status: OutcomeStatus;
  /** Where it was read back, and what stood there. */
  readonly evidence?: { readonly path: string; readonly value: string };
  /** For `not-enforceable` and `failed`: why. */
  readonly because?: string;
}

/** A decision with what became of it on this machine. */
export interface Enforcement {
  readonly decision: Decision;
  readonly outcomes: readonly Outcome[];
  /** The worst of the outcomes. */
  readonly status: OutcomeStatus;
}
