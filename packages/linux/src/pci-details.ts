/** What a PCI function's configuration space says beyond the inventory: for people, by `airlock info`. Only reads. */
import { ok, type Result } from '@airlock/core/result.ts';
import type { Files } from './files.ts';
import {
  deviceSerialNumber,
  type PciCapability,
  readHeader,
  VIRTIO_CAPABILITY,
  virtioCapabilities,
  walkCapabilities,
  walkExtended,
} from './pci-config.ts';

export interface PciDetails {
  /** Bytes that the kernel showed: 64 to an ordinary user, 256, or 4096. */
  readonly size: number;
  /** From the command register: may it be reached in memory, may it write to memory by itself. */
  readonly memory: boolean;
  readonly busMaster: boolean;
  readonly capabilities: readonly PciCapability[];
  readonly extended: readonly PciCapability[];
  /** `common in BAR 4 at 0x0, 4096 bytes` */
  readonly virtio: readonly string[];
  /** Device serial number capability: `00-11-22-...`. */
  readonly deviceSerialNumber?: string;
  /** What is wrong with it, in words. */
  readonly broken: readonly string[];
}

const STRUCTURES: Readonly<Record<number, string>> = {
  [VIRTIO_CAPABILITY.common]: 'common configuration',
  [VIRTIO_CAPABILITY.notify]: 'notifications',
  [VIRTIO_CAPABILITY.isr]: 'interrupt status',
  [VIRTIO_CAPABILITY.device]: 'device configuration',
  [VIRTIO_CAPABILITY.pciCfg]: 'window (PCI configuration access)',
  [VIRTIO_CAPABILITY.sharedMemory]: 'shared memory',
  [VIRTIO_CAPABILITY.vendor]: 'vendor data',
};

/**
 * Details of the function whose /sys path is given. `vendor` as the kernel has it: the own space of a virtual function
 * does not say. Codes: those of `Files.read`.
 */
export async function readPciDetails(files: Files, path: string, vendor?: number): Promise<Result<PciDetails>> {
  const config = await files.read(`${path}/config`, 4096);
  return config.ok ? ok(describeConfig(config.value, vendor)) : config;
}

export function describeConfig(config: Uint8Array, known?: number): PciDetails {
  const header = readHeader(config);
  const vendor = known ?? header?.vendor;
  const walk = walkCapabilities(config);
  const extended = walkExtended(config);
  const serial = deviceSerialNumber(config, extended);
  return {
    size: config.length,
    memory: header !== undefined && (header.command & 2) !== 0,
    busMaster: header !== undefined && (header.command & 4) !== 0,
    capabilities: walk.capabilities,
    extended: extended.capabilities,
    virtio:
      vendor === 0x1af4
        ? virtioCapabilities(config, walk).map(
            ({ type, bar, offset, length }) =>
              `${STRUCTURES[type] ?? `structure ${type}`} in BAR ${bar} at 0x${offset.toString(16)}, ${length} bytes`,
          )
        : [],
    ...(serial === undefined ? {} : { deviceSerialNumber: serial }),
    broken: [
      ...(header === undefined ? ['it reads as all ones: the function does not answer'] : []),
      ...[walk.broken, extended.broken].filter((text) => text !== undefined),
    ],
  };
}
