/**
 * What the kernel shows of one I/O device, as a plain value. Everything in it except `id`, `nodes` and `faults` comes
 * from the host or the device: a claim, not a fact.
 *
 * Facts that are not known have two forms, and policies treat them differently: `undefined` (the key is absent) means
 * *not seen yet or not readable*; `null` means *seen to be absent* (this device has no such thing).
 */

export const BUSES = ['pci', 'virtio', 'vdpa', 'usb', 'platform'] as const;
/** A virtio device is on `virtio` whatever its transport; `pci` means any other PCI function. */
export type Bus = (typeof BUSES)[number];

export const TRANSPORTS = ['pci', 'mmio', 'vdpa', 'ccw'] as const;
export type Transport = (typeof TRANSPORTS)[number];

/** One kernel device below a `Device`, outermost first: a virtio disk is a PCI function and a device on the virtio bus. */
export interface SysfsNode {
  /** The kernel's bus name below /sys/bus. */
  readonly bus: string;
  /** `0000:00:03.0`, `virtio1` */
  readonly name: string;
  /** The driver bound to it, from the `driver` link. */
  readonly driver: string | null;
}

/** Something that could not be read as it should be. The device stays in the inventory and shows it. */
export interface DeviceFault {
  /** The attribute, relative to the device: `config`, `virtio1/status` */
  readonly attribute: string;
  readonly code: string;
  readonly message: string;
}

export interface PciIds {
  readonly vendor: number;
  readonly device: number;
}

export interface Device {
  /** `BUS:NAME` of the outermost node: `pci:0000:00:03.0`, `platform:LNRO0005:00`, `usb:1-2`, `vdpa:vdpa0`. */
  readonly id: string;
  readonly bus: Bus;
  /** For virtio devices, else null. */
  readonly transport: Transport | null;
  /** Where it sits: the outermost node's name. */
  readonly location: string;
  /** /sys path of the outermost node. */
  readonly path: string;
  readonly nodes: readonly SysfsNode[];

  /** VIRTIO type by standard name; for PCI the name of the class; for USB and platform a word (`serial`, `i8042`, `fw-cfg`, `tpm`, `hub`). */
  readonly type: string | null;
  readonly virtioId?: number;
  readonly vendor?: number;
  readonly device?: number;
  readonly subsystem?: PciIds | null;
  /** 24 bits, base class, subclass, programming interface: 0x010802. */
  readonly class?: number | null;
  readonly revision?: number | null;
  /** Serial number as the device states it, seen only after its driver bound (block, NVMe) or from its descriptor (USB). */
  readonly serial?: string | null;
  readonly modalias?: string;

  /** Was it there when the gate looked first? Absent when no gate ran. */
  readonly origin?: 'boot' | 'hotplug';
  /** The bridge, controller or hub above it, where that is a device of this inventory. */
  readonly parent?: string;
  readonly sriov?: {
    readonly role: 'physical' | 'virtual';
    /** Id of the physical function, for a virtual one; only where that one's links lead back to it. */
    readonly physical?: string;
    /** Which of the physical function's virtual ones it is, from 0. */
    readonly index?: number;
    /** For a physical function: how many are on, how many there can be. */
    readonly enabled?: number;
    readonly total?: number;
    /** Does the kernel bind drivers to its virtual functions by itself (`sriov_drivers_autoprobe`)? */
    readonly autoprobe?: boolean;
  } | null;
  readonly features?: {
    /** What the device offers, by name; known only after a probe of its configuration (`--probe`, gate). */
    readonly offered?: readonly string[];
    /** What driver and device agreed on; known only while a driver is bound. */
    readonly negotiated?: readonly string[];
  };
  /** VIRTIO device status (§2.1) while a driver is bound: 0xf is live, 0x40 NEEDS_RESET, 0x80 FAILED. */
  readonly status?: number;
  readonly iommu?: { readonly group: number; readonly type: string | null } | null;
  /** DOE features as `VVVV:TT` (vendor, type), from `doe_features`. */
  readonly doe?: readonly string[];
  /** What the kernel's TSM interface says, where it exists for this function. */
  readonly tsm?: {
    readonly connected?: string | null;
    readonly bound?: string | null;
    readonly locked?: string | null;
    readonly accepted?: boolean;
    /** The connected TSM, null for none; or `1` and `0` of a kernel that authenticates by itself (CMA-SPDM). */
    readonly authenticated?: string | null;
    /** Id of the function that speaks for the device (Device Security Manager). */
    readonly dsm?: string;
  };
  readonly link?: { readonly speed: string | null; readonly width: number | null };
  /** What programs know it by: `block/vda`, `net/eth0`, `tty/hvc0`. */
  readonly interfaces: readonly string[];
  readonly faults: readonly DeviceFault[];
}

/** What the kernel can and cannot do, as far as decisions and plans depend on it. */
export interface KernelFacts {
  /** `7.2.12+deb13-amd64` */
  readonly release: string;
  readonly arch: string;
  /** `null` when this is not a confidential VM. */
  readonly confidential: 'sev' | 'sev-es' | 'sev-snp' | 'tdx' | 'cca' | 'secure-execution' | null;
  /** Buses whose `drivers_autoprobe` exists, and its value. */
  readonly autoprobe: Readonly<Record<string, boolean>>;
  readonly modulesDisabled: boolean;
  readonly lockdown: 'none' | 'integrity' | 'confidentiality' | null;
  readonly swiotlb: 'off' | 'auto' | 'force';
  readonly cmdline: string;
}

/** A TEE security manager of the kernel's. */
export interface TsmDevice {
  /** `tsm0` */
  readonly name: string;
  /** `link`: it sets up link encryption (a host); `devsec`: it locks devices for this VM; absent where it is not told. */
  readonly mode?: 'link' | 'devsec' | 'none';
}

export interface Inventory {
  readonly version: 1;
  readonly kernel: KernelFacts;
  /** There where the kernel has any. */
  readonly tsms?: readonly TsmDevice[];
  readonly devices: readonly Device[];
}

/** Drivers that carry a device on to an inner node and serve nobody themselves. */
const CARRIER_DRIVERS: readonly string[] = ['virtio-pci', 'virtio-mmio', 'virtio_ccw', 'virtio_vdpa', 'usb'];

/** Can programs reach the device? Its innermost node has a driver, and not one that only makes an inner node. */
export function isBound(device: Device): boolean {
  const inner = device.nodes[device.nodes.length - 1];
  return inner !== undefined && inner.driver !== null && !CARRIER_DRIVERS.includes(inner.driver);
}
