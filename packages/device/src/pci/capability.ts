/**
 * Capabilities of a PCI function as tables of registers (PCIe 6.0 §7.5 to §7.9). A table holds what follows the
 * capability's own header; where it stands and what comes next is the function's to say.
 */
import { constant, fixedBytes, type Register, reserved, type Stored, stored } from './register.ts';

export interface Capability {
  /** `standard` stands below 0x100 with a header of two bytes, `extended` above it with one of four. */
  readonly space: 'standard' | 'extended';
  readonly id: number;
  /** Of an extended capability. */
  readonly version?: number;
  /** A fixed place instead of the next free one. */
  readonly at?: number;
  readonly registers: readonly Register[];
}

export const CAP_POWER_MANAGEMENT = 0x01;
export const CAP_VENDOR = 0x09;
export const CAP_PCI_EXPRESS = 0x10;
export const CAP_MSIX = 0x11;
/** Extended. */
export const CAP_SRIOV = 0x0010;

/** §7.5.2: versions 3, D0 and D3hot, no PME. `changed` hears of the power state (0: D0, 3: D3hot). */
export function powerManagement(changed?: (state: number) => void): Capability {
  return {
    space: 'standard',
    id: CAP_POWER_MANAGEMENT,
    registers: [
      constant('pm_capabilities', 2, 0x0003),
      stored('pm_control_status', 2, {
        // No_Soft_Reset: what the function holds survives D3hot.
        initial: 0x0008,
        writable: 0x0003,
        changed: (now, before) => {
          if ((now & 3) !== (before & 3)) changed?.(now & 3);
        },
      }),
      ...reserved(2),
    ],
  };
}

/** A capability of a vendor's own; `body` follows the length byte (§7.9.4). */
export function vendorCapability(body: readonly Register[], at?: number): Capability {
  const length = 3 + body.reduce((sum, register) => sum + register.bytes, 0);
  return {
    space: 'standard',
    id: CAP_VENDOR,
    ...(at === undefined ? {} : { at }),
    registers: [constant('length', 1, length), ...body],
  };
}

export interface PciExpressOptions {
  /** 0: endpoint, 9: root complex integrated endpoint. */
  readonly type?: number;
  /** Function-level reset is offered, and was asked for (§6.6.2). */
  readonly functionLevelReset?: () => void;
}

const FLR_CAPABLE = 2 ** 28;
const INITIATE_FLR = 0x8000;

/** §7.5.3: an endpoint of one lane at 2.5 GT/s. */
export function pciExpress(options: PciExpressOptions = {}): Capability {
  const { type = 0, functionLevelReset } = options;
  const integrated = type === 9;
  return {
    space: 'standard',
    id: CAP_PCI_EXPRESS,
    registers: [
      constant('pcie_capabilities', 2, 0x0002 | (type << 4)),
      // Role-based error reporting.
      constant('device_capabilities', 4, 0x8000 + (functionLevelReset === undefined ? 0 : FLR_CAPABLE)),
      stored('device_control', 2, {
        initial: 0x2810,
        // Bit 15 reads as zero whatever was written (§7.5.3.4).
        writable: 0x7fff,
        changed() {},
      }),
      stored('device_status', 2, { clears: 0x000f }),
      constant('link_capabilities', 4, integrated ? 0 : 0x0041_0c11),
      stored('link_control', 2, { writable: integrated ? 0 : 0x0fff }),
      constant('link_status', 2, integrated ? 0 : 0x0011),
      ...reserved(16),
      constant('device_capabilities_2', 4, 0x0000_0010),
      stored('device_control_2', 2, { writable: 0x001f }),
      ...reserved(2),
      constant('link_capabilities_2', 4, integrated ? 0 : 0x0000_0002),
      stored('link_control_2', 2, { initial: integrated ? 0 : 1, writable: 0 }),
      ...reserved(2),
      ...reserved(8),
    ].map((register) =>
      register.name === 'device_control' && functionLevelReset !== undefined
        ? resetting(register, functionLevelReset)
        : register,
    ),
  };
}

function resetting(register: Register, reset: () => void): Register {
  return {
    ...register,
    read: () => register.read(),
    write(value, enabled) {
      register.write(value, enabled);
      if ((value & enabled & INITIATE_FLR) !== 0) reset();
    },
    reset: () => register.reset?.(),
  };
}

/** §7.8.4: everything masked as after a reset, errors cleared by writing one. `report` sets a bit for a device that errs. */
export function advancedErrorReporting(): { readonly capability: Capability; readonly uncorrectable: Stored } {
  const uncorrectable = stored('uncorrectable_status', 4, { clears: 0x07ff_f030 });
  return {
    uncorrectable,
    capability: {
      space: 'extended',
      id: 0x0001,
      version: 2,
      registers: [
        uncorrectable,
        stored('uncorrectable_mask', 4, { writable: 0x07ff_f030 }),
        stored('uncorrectable_severity', 4, { initial: 0x0046_2030, writable: 0x07ff_f030 }),
        stored('correctable_status', 4, { clears: 0x0000_f1c1 }),
        stored('correctable_mask', 4, { initial: 0x0000_6000, writable: 0x0000_f1c1 }),
        stored('capabilities_and_control', 4, { writable: 0x0000_0140 }),
        ...reserved(16),
        ...reserved(16),
      ],
    },
  };
}

/** §7.9.3: 64 bits, lowest word first. */
export function deviceSerialNumber(low: number, high: number): Capability {
  return {
    space: 'extended',
    id: 0x0003,
    version: 1,
    registers: [constant('serial_low', 4, low), constant('serial_high', 4, high)],
  };
}

/** §7.7.11: source validation and its kin, as an endpoint with several functions offers them. */
export function accessControlServices(capabilities: number = 0x005c): Capability {
  return {
    space: 'extended',
    id: 0x000d,
    version: 1,
    registers: [constant('acs_capability', 2, capabilities), stored('acs_control', 2, { writable: capabilities })],
  };
}

/** §7.8.7: the next function of the same device; 0 for the last. */
export function alternativeRoutingId(next: number): Capability {
  return {
    space: 'extended',
    id: 0x000e,
    version: 1,
    registers: [constant('ari_capability', 2, (next & 0xff) << 8), stored('ari_control', 2, { writable: 0x0073 })],
  };
}

/** §7.9.5: a vendor's extended capability. */
export function vendorExtendedCapability(id: number, revision: number, body: Uint8Array): Capability {
  const header = (id & 0xffff) | ((revision & 0xf) << 16) | ((body.length + 8) << 20);
  return {
    space: 'extended',
    id: 0x000b,
    version: 1,
    registers: [constant('vsec_header', 4, header), ...fixedBytes('vsec', body)],
  };
}

export interface IdeOptions {
  readonly linkStreams: boolean;
  /** Selective streams; each has an address association of one block. */
  readonly selectiveStreams: number;
  /** TEE-limited streams are offered. */
  readonly teeLimited?: boolean;
}

/** PCIe 6.0 §7.9.26: Integrity and Data Encryption. Streams come up when `secure` says so, as IDE_KM would. */
export function integrityAndDataEncryption(options: IdeOptions): {
  readonly capability: Capability;
  /** Sets a selective stream's state: 0 insecure, 2 secure. */
  readonly setStream: (index: number, state: 0 | 2) => void;
} {
  const { linkStreams, selectiveStreams, teeLimited = false } = options;
  const supported =
    (linkStreams ? 1 : 0) |
    (selectiveStreams > 0 ? 2 : 0) |
    // IDE_KM is spoken (bit 6).
    0x40 |
    (selectiveStreams > 0 ? ((selectiveStreams - 1) & 0xff) << 16 : 0) |
    (teeLimited ? 0x0100_0000 : 0);
  const states: Stored[] = [];
  const streams = Array.from({ length: selectiveStreams }, (_, i) => {
    const status = stored(`selective_${i}_status`, 4, { clears: 0x8000_0000 });
    states.push(status);
    return [
      // One address association register block.
      constant(`selective_${i}_capability`, 4, 1),
      stored(`selective_${i}_control`, 4, { writable: 0xff7f_ff0f }),
      status,
      stored(`selective_${i}_rid_1`, 4, { writable: 0x00ff_ff00 }),
      stored(`selective_${i}_rid_2`, 4, { writable: 0xffff_ff01 }),
      stored(`selective_${i}_address_1`, 4, { writable: 0xffff_ff01 }),
      stored(`selective_${i}_address_2`, 4, { writable: 0xffff_ffff }),
      stored(`selective_${i}_address_3`, 4, { writable: 0xffff_ffff }),
    ];
  }).flat();
  return {
    capability: {
      space: 'extended',
      id: 0x0030,
      version: 1,
      registers: [
        constant('ide_capability', 4, supported),
        stored('ide_control', 4, { writable: 0x4 }),
        ...(linkStreams
          ? [stored('link_control', 4, { writable: 0xff7f_ff01 }), stored('link_status', 4, { clears: 0x8000_0000 })]
          : []),
        ...streams,
      ],
    },
    setStream(index, state) {
      const status = states[index];
      if (status !== undefined) status.value = ((status.value & ~0xf) | state) >>> 0;
    },
  };
}
