/** PCI class codes by name. PCI Code and ID Assignment Specification; names as policies and inventories write them. */

/**
 * Name to class code prefix: two hex digits are a base class, four a base class and subclass, six all 24 bits. No name
 * is also a VIRTIO type, so that `type: memory` and `type: input` mean one thing.
 */
export const PCI_CLASSES = {
  unclassified: '00',
  storage: '01',
  'scsi-storage': '0100',
  ide: '0101',
  raid: '0104',
  sata: '0106',
  sas: '0107',
  nvme: '0108',
  network: '02',
  ethernet: '0200',
  infiniband: '0207',
  display: '03',
  vga: '0300',
  '3d': '0302',
  multimedia: '04',
  audio: '0403',
  'memory-controller': '05',
  cxl: '0502',
  bridge: '06',
  'host-bridge': '0600',
  'isa-bridge': '0601',
  'pci-bridge': '0604',
  communication: '07',
  'serial-controller': '0700',
  system: '08',
  'sd-host': '0805',
  'iommu-controller': '0806',
  'input-controller': '09',
  dock: '0a',
  processor: '0b',
  'serial-bus': '0c',
  firewire: '0c00',
  'usb-controller': '0c03',
  smbus: '0c05',
  wireless: '0d',
  'intelligent-io': '0e',
  satellite: '0f',
  encryption: '10',
  'signal-processing': '11',
  accelerator: '12',
  instrumentation: '13',
  coprocessor: '40',
  unassigned: 'ff',
} as const;
export type PciClassName = keyof typeof PCI_CLASSES;

const byPrefix = new Map<string, PciClassName>(
  Object.entries(PCI_CLASSES).map(([name, prefix]) => [prefix, name as PciClassName]),
);

/**
 * The `type` of a PCI function: the name of its base class (`network`, `display`, `bridge`), or `nvme`. A base class
 * that no standard names is `class-NN`.
 */
export function pciTypeName(classCode: number): string {
  const digits = classCode.toString(16).padStart(6, '0');
  if (digits.startsWith(PCI_CLASSES.nvme)) return 'nvme';
  return byPrefix.get(digits.slice(0, 2)) ?? `class-${digits.slice(0, 2)}`;
}

/** The most specific name: `ethernet`, `pci-bridge`, `usb-controller`. */
export function pciClassName(classCode: number): string {
  const digits = classCode.toString(16).padStart(6, '0');
  return byPrefix.get(digits.slice(0, 4)) ?? pciTypeName(classCode);
}
