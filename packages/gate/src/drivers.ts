/**
 * Which Linux driver operates which device: enough to load and bind what every confidential VM has by name, so that the
 * result can be read back. What the tables do not know goes by its modalias, and by whatever driver then matches.
 */
import type { Device, SysfsNode } from '@airlock/core/device.ts';

export interface Driver {
  /** As modprobe and /sys/module name it; null when no module of that name is known. */
  readonly module: string | null;
  /** As /sys/bus/BUS/drivers names it; `*`: whichever matches. */
  readonly name: string;
}

/** By the standard name of the virtio type (drivers/virtio and friends, Linux 6.1 to 7.3). */
const VIRTIO_DRIVERS: Readonly<Record<string, Driver>> = {
  net: { module: 'virtio_net', name: 'virtio_net' },
  block: { module: 'virtio_blk', name: 'virtio_blk' },
  console: { module: 'virtio_console', name: 'virtio_console' },
  entropy: { module: 'virtio_rng', name: 'virtio_rng' },
  balloon: { module: 'virtio_balloon', name: 'virtio_balloon' },
  scsi: { module: 'virtio_scsi', name: 'virtio_scsi' },
  '9p': { module: '9pnet_virtio', name: '9pnet_virtio' },
  gpu: { module: 'virtio_gpu', name: 'virtio_gpu' },
  input: { module: 'virtio_input', name: 'virtio_input' },
  crypto: { module: 'virtio_crypto', name: 'virtio_crypto' },
  iommu: { module: 'virtio_iommu', name: 'virtio_iommu' },
  memory: { module: 'virtio_mem', name: 'virtio_mem' },
  sound: { module: 'virtio_snd', name: 'virtio_snd' },
  fs: { module: 'virtiofs', name: 'virtio_fs' },
  pmem: { module: 'virtio_pmem', name: 'virtio_pmem' },
  vsock: { module: 'vmw_vsock_virtio_transport', name: '*' },
};

const TRANSPORT_DRIVERS: Readonly<Record<string, Driver & { readonly bus: string }>> = {
  pci: { bus: 'pci', module: 'virtio_pci', name: 'virtio-pci' },
  mmio: { bus: 'platform', module: 'virtio_mmio', name: 'virtio-mmio' },
  vdpa: { bus: 'vdpa', module: 'virtio_vdpa', name: 'virtio_vdpa' },
};

/** By PCI class code, longest first. */
const CLASS_DRIVERS: readonly (readonly [value: number, bits: 16 | 24, driver: Driver])[] = [
  [0x010802, 24, { module: 'nvme', name: 'nvme' }],
  [0x010601, 24, { module: 'ahci', name: 'ahci' }],
  [0x0c0330, 24, { module: 'xhci_pci', name: 'xhci_hcd' }],
  [0x0604, 16, { module: null, name: 'pcieport' }],
];

/** What drives the outermost node of a virtio device, or undefined for a transport that binds by itself (ccw). */
export function transportDriver(device: Device): (Driver & { readonly bus: string }) | undefined {
  return device.bus === 'virtio' && device.transport !== null ? TRANSPORT_DRIVERS[device.transport] : undefined;
}

/** Is it reached through a node on the virtio bus? Of a vdpa device that shows once virtio_vdpa has it. */
export function endsInVirtio(device: Device): boolean {
  return device.bus === 'virtio' || device.nodes[device.nodes.length - 1]?.bus === 'virtio';
}

/** What drives the device itself; `*` by name where only the kernel knows. */
export function deviceDriver(device: Device): Driver {
  if (endsInVirtio(device)) return VIRTIO_DRIVERS[device.type ?? ''] ?? { module: null, name: '*' };
  if (device.bus === 'pci' && typeof device.class === 'number') {
    for (const [value, bits, driver] of CLASS_DRIVERS) {
      if (Math.floor(device.class / 2 ** (24 - bits)) === value) return driver;
    }
  }
  return { module: null, name: '*' };
}

/**
 * The alias by which modprobe finds the device's driver. For virtio it is made from the ids, because the kernel shows
 * it only once the transport is bound.
 */
export function moduleAlias(device: Device): string | undefined {
  if (!endsInVirtio(device)) return safeAlias(device.modalias);
  if (device.virtioId === undefined) return undefined;
  const vendor = device.subsystem?.vendor ?? device.vendor ?? 0x1af4;
  return `virtio:d${hex8(device.virtioId)}v${hex8(vendor)}`;
}

/** The device's own text becomes an argument of modprobe: only what the kernel's file2alias can have made of it. */
function safeAlias(alias: string | undefined): string | undefined {
  return alias !== undefined && /^[a-z]+:[A-Za-z0-9*:_,.-]{1,200}$/.test(alias) ? alias : undefined;
}

function hex8(value: number): string {
  return value.toString(16).toUpperCase().padStart(8, '0');
}

/** The node that programs reach the device through; of a virtio device whose transport is unbound there is none. */
export function innerNode(device: Device): SysfsNode | undefined {
  const inner = device.nodes[device.nodes.length - 1];
  return device.bus === 'virtio' && inner?.bus !== 'virtio' ? undefined : inner;
}

/** Will only the node below its transport show of which VIRTIO type it is (MMIO, a function whose ids do not say)? */
export function hidesType(device: Device): boolean {
  return device.bus === 'virtio' && device.virtioId === undefined && innerNode(device) === undefined;
}

/** Bridges work without a driver: pcieport adds services (hot-plug, error reports) where the port has them. */
export function needsNoDriver(device: Device): boolean {
  return device.bus === 'pci' && typeof device.class === 'number' && Math.floor(device.class / 65536) === 6;
}

/** Names of drivers are compared as modprobe compares modules: `virtio-gpu` is `virtio_gpu`. */
export function sameDriver(a: string, b: string): boolean {
  return a.replaceAll('-', '_') === b.replaceAll('-', '_');
}
