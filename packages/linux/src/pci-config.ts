/**
 * PCI configuration space as bytes: the header, capabilities and extended capabilities. Everything here is total for
 * any bytes of any length: what lies beyond the end is absent, chains are cut where they turn back or grow too long.
 *
 * The kernel gives 4096 bytes for PCI Express, 256 for older functions, and only 64 to a reader without CAP_SYS_ADMIN.
 */
import { readLe } from '@airlock/core/bytes.ts';

export const STANDARD_CONFIG = 256;

/** PCI capability ids (PCI Code and ID Assignment, §2), by the names of `pci_regs.h`. */
const CAPABILITY_NAMES: Readonly<Record<number, string>> = {
  1: 'power-management',
  3: 'vpd',
  5: 'msi',
  8: 'hypertransport',
  9: 'vendor-specific',
  10: 'debug',
  13: 'bridge-subsystem',
  16: 'pci-express',
  17: 'msi-x',
  18: 'sata',
  19: 'advanced-features',
  20: 'enhanced-allocation',
};

/** PCI Express extended capability ids (§3). */
const EXTENDED_NAMES: Readonly<Record<number, string>> = {
  1: 'aer',
  2: 'virtual-channel',
  3: 'device-serial-number',
  4: 'power-budgeting',
  11: 'vendor-specific-extended',
  13: 'acs',
  14: 'ari',
  15: 'ats',
  16: 'sr-iov',
  19: 'pri',
  21: 'resizable-bar',
  23: 'tph',
  24: 'ltr',
  25: 'secondary-pcie',
  27: 'pasid',
  29: 'dpc',
  30: 'l1-pm-substates',
  31: 'ptm',
  35: 'dvsec',
  37: 'data-link-feature',
  38: 'physical-layer-16gt',
  39: 'lane-margining',
  42: 'physical-layer-32gt',
  46: 'doe',
  48: 'ide',
};

const DSN = 0x03;
const SRIOV = 0x10;
const VENDOR_SPECIFIC = 0x09;

export interface PciHeader {
  readonly vendor: number;
  readonly device: number;
  readonly command: number;
  readonly status: number;
  readonly revision: number;
  /** 24 bits, as `Device.class`. */
  readonly class: number;
  /** 0 for a function, 1 for a PCI bridge, 2 for CardBus. */
  readonly layout: number;
}

export interface PciCapability {
  readonly id: number;
  readonly offset: number;
  /** `msi-x`, or `capability-NN`. */
  readonly name: string;
  /** Extended ones have a version. */
  readonly version?: number;
}

export interface CapabilityWalk {
  readonly capabilities: readonly PciCapability[];
  /** What was wrong with the chain, in words; the walk ended there. */
  readonly broken?: string;
}

/**
 * The first 64 bytes' common part; `undefined` for fewer, and for the all-ones of a function that is not there. A virtual
 * function's own vendor and device are all ones too (SR-IOV 1.1 §3.4.1.1), its class is not.
 */
export function readHeader(config: Uint8Array): PciHeader | undefined {
  if (config.length < 64) return undefined;
  const word = (offset: number) => readLe(config, offset, 2) ?? 0;
  if (word(0) === 0xffff && readLe(config, 8, 4) === 0xffff_ffff) return undefined;
  return {
    vendor: word(0),
    device: word(2),
    command: word(4),
    status: word(6),
    revision: config[8] ?? 0,
    class: Math.floor((readLe(config, 8, 4) ?? 0) / 256),
    layout: (config[14] ?? 0) & 0x7f,
  };
}

/** The chain from 0x34 (PCI 3.0 §6.7). At most 48 fit; one that comes twice or lies in the header ends the walk. */
export function walkCapabilities(config: Uint8Array): CapabilityWalk {
  const capabilities: PciCapability[] = [];
  const header = readHeader(config);
  if (header === undefined || (header.status & 0x10) === 0) return { capabilities };
  const seen = new Set<number>();
  let offset = (config[0x34] ?? 0) & 0xfc;
  while (offset !== 0) {
    if (offset < 0x40) return { capabilities, broken: `pointer to ${hexOffset(offset)}, inside the header` };
    if (seen.has(offset)) return { capabilities, broken: `the chain comes back to ${hexOffset(offset)}` };
    const id = config[offset];
    const next = config[offset + 1];
    if (id === undefined || next === undefined) {
      // 64 bytes are what the kernel shows to those who may not see the rest: nothing is wrong with the device.
      return config.length === 64
        ? { capabilities }
        : { capabilities, broken: `pointer to ${hexOffset(offset)}, past the end` };
    }
    if (id === 0xff) return { capabilities, broken: `nothing answers at ${hexOffset(offset)}` };
    seen.add(offset);
    if (id !== 0)
      capabilities.push({ id, offset, name: CAPABILITY_NAMES[id] ?? `capability-${id.toString(16).padStart(2, '0')}` });
    offset = next & 0xfc;
  }
  return { capabilities };
}

/** The chain from 0x100 (PCI Express 6.0 §7.6.3): 16 bits id, 4 version, 12 next. */
export function walkExtended(config: Uint8Array): CapabilityWalk {
  const capabilities: PciCapability[] = [];
  const seen = new Set<number>();
  let offset = STANDARD_CONFIG;
  while (offset !== 0) {
    const header = readLe(config, offset, 4);
    if (header === undefined || header === 0 || header === 0xffff_ffff) {
      return offset === STANDARD_CONFIG
        ? { capabilities }
        : { capabilities, broken: `nothing answers at ${hexOffset(offset)}` };
    }
    if (seen.has(offset)) return { capabilities, broken: `the chain comes back to ${hexOffset(offset)}` };
    seen.add(offset);
    const id = header & 0xffff;
    const version = (header >>> 16) & 0xf;
    capabilities.push({
      id,
      offset,
      version,
      name: EXTENDED_NAMES[id] ?? `extended-${id.toString(16).padStart(4, '0')}`,
    });
    offset = (header >>> 20) & 0xffc;
    if (offset !== 0 && offset < STANDARD_CONFIG) {
      return { capabilities, broken: `pointer to ${hexOffset(offset)}, below the extended space` };
    }
  }
  return { capabilities };
}

/** VIRTIO 1.3 §4.1.4: the structures that a vendor-specific capability of a virtio function can point to. */
export const VIRTIO_CAPABILITY = {
  common: 1,
  notify: 2,
  isr: 3,
  device: 4,
  pciCfg: 5,
  sharedMemory: 8,
  vendor: 9,
} as const;

export interface VirtioCapability {
  /** Where the capability lies. */
  readonly at: number;
  readonly type: number;
  /** Length of the capability itself. */
  readonly size: number;
  readonly bar: number;
  readonly offset: number;
  readonly length: number;
}

/** The virtio capabilities of a walk, in the order of the chain; those that do not fit into the bytes are left out. */
export function virtioCapabilities(config: Uint8Array, walk: CapabilityWalk): readonly VirtioCapability[] {
  return walk.capabilities.flatMap(({ id, offset: at }) => {
    const size = config[at + 2];
    const type = config[at + 3];
    const bar = config[at + 4];
    const offset = readLe(config, at + 8, 4);
    const length = readLe(config, at + 12, 4);
    if (id !== VENDOR_SPECIFIC || size === undefined || type === undefined || bar === undefined) return [];
    if (offset === undefined || length === undefined || size < 16 || at + size > STANDARD_CONFIG) return [];
    return [{ at, type, size, bar, offset, length }];
  });
}

/** Device serial number (PCI Express 6.0 §7.9.3): eight bytes, most significant first, as `lspci` writes it. */
export function deviceSerialNumber(config: Uint8Array, extended: CapabilityWalk): string | undefined {
  const at = extended.capabilities.find(({ id }) => id === DSN)?.offset;
  if (at === undefined || at + 12 > config.length) return undefined;
  return Array.from(config.subarray(at + 4, at + 12), (byte) => byte.toString(16).padStart(2, '0'))
    .reverse()
    .join('-');
}

/** SR-IOV (§9.3.3): how many virtual functions there can be and are. */
export function sriovCounts(
  config: Uint8Array,
  extended: CapabilityWalk,
): { total: number; enabled: number } | undefined {
  const at = extended.capabilities.find(({ id }) => id === SRIOV)?.offset;
  const total = at === undefined ? undefined : readLe(config, at + 0x0e, 2);
  const enabled = at === undefined ? undefined : readLe(config, at + 0x10, 2);
  return total === undefined || enabled === undefined ? undefined : { total, enabled };
}

function hexOffset(offset: number): string {
  return `0x${offset.toString(16)}`;
}
