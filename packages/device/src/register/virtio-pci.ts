/** virtio over PCI, modern: the four structures in a BAR, the capabilities that lead to them. VIRTIO 1.4 §4.1. */
import type { Problem, Result } from '@airlock/core/result.ts';
import { VIRTIO_TYPES, type VirtioTypeName } from '@airlock/core/virtio.ts';
import type { ServedDevice } from '@airlock/virtio/served-device.ts';
import { type Capability, pciExpress, powerManagement, vendorCapability } from '../pci/capability.ts';
import { COMMAND_BUS_MASTER, COMMAND_MEMORY, PciFunction, type PciFunctionOptions } from '../pci/function.ts';
import { Msix } from '../pci/msix.ts';
import { type Bank, BankMap, constant, type Register, RegisterTable, reserved } from '../pci/register.ts';
import { deviceConfigBank } from './config-bank.ts';
import { DeviceSide } from './device-side.ts';
import { QueueRegisters } from './queue-registers.ts';

const VIRTIO_VENDOR = 0x1af4;
const MODERN_DEVICE = 0x1040;
/** §4.1.2.1: of a device that has no transitional form. */
const REVISION = 1;

/** §4.1.4. */
const CFG_COMMON = 1;
const CFG_NOTIFY = 2;
const CFG_ISR = 3;
const CFG_DEVICE = 4;
const CFG_PCI = 5;
const CFG_SHARED_MEMORY = 8;

const NO_VECTOR = 0xffff;
const ISR_QUEUE = 1;
const ISR_CONFIG = 2;

/** Where the structures stand in the registers' BAR. */
const COMMON_AT = 0x0000;
const ISR_AT = 0x0800;
const DEVICE_AT = 0x1000;
const NOTIFY_AT = 0x2000;
/** Four bytes a queue: notification data fits. */
const NOTIFY_MULTIPLIER = 4;
const REGISTERS_BAR = 0;
const REGISTERS_SIZE = 0x4000;
const MSIX_BAR = 2;
const MSIX_SIZE = 0x10000;
/** The BARs that every function has, in 32-bit memory. */
export const VIRTIO_BARS = [
  { index: REGISTERS_BAR, size: REGISTERS_SIZE, kind: 'memory32' },
  { index: MSIX_BAR, size: MSIX_SIZE, kind: 'memory32' },
] as const;
const MSIX_PENDING_AT = 0x8000;
const DEVICE_CONFIG_ROOM = 0x1000;

/** Of PCI classes (PCI Code and ID Assignment §1): what QEMU shows for the same types. */
const CLASS_CODES: Readonly<Record<string, number>> = {
  net: 0x020000,
  block: 0x018000,
  console: 0x078000,
  scsi: 0x010000,
  gpu: 0x038000,
  input: 0x098000,
  sound: 0x040100,
  '9p': 0x018000,
  fs: 0x018000,
  vsock: 0x078000,
};
const OTHER_CLASS = 0x00ff00;

/** A stretch of memory that the driver maps (§2.10, §4.1.4.7), in a BAR of its own. */
export interface SharedWindow {
  readonly id: number;
  readonly bank: Bank;
  /** Called once with a way to ask where its BAR is now: what software wrote there, 0 before that. */
  located?(address: () => number): void;
}

export interface VirtioPciOptions {
  readonly type?: VirtioTypeName;
  /** Interrupt vectors; one more than there are queues when absent. 0: INTA# only. */
  readonly vectors?: number;
  /** Capabilities besides those of virtio, PCI Express and power management. */
  readonly capabilities?: readonly Capability[];
  /** Merged over the function's identity. */
  readonly identity?: Partial<
    Pick<PciFunctionOptions, 'vendor' | 'device' | 'subsystemVendor' | 'subsystem' | 'classCode' | 'revision'>
  >;
  readonly sharedMemory?: readonly SharedWindow[];
  /** Bits offered besides those of every transport: SR_IOV (§6.2). */
  readonly offers?: readonly number[];
  /** See `PciFunctionOptions.virtual`; its command register keeps memory space, by which a VMM maps its BARs. */
  readonly virtual?: () => boolean;
  /** For the person who runs the server. */
  readonly violated?: (why: Problem) => void;
  /** The power state, the bus master bit or the link changed: there may be work. */
  readonly wake?: () => void;
}

export interface VirtioPciFunction {
  readonly pci: PciFunction;
  readonly side: DeviceSide;
}

/** A device as a PCI function. Codes: those of `PciFunction.create`. */
export function virtioPciFunction(served: ServedDevice, options: VirtioPciOptions = {}): Result<VirtioPciFunction> {
  const { vectors = served.queueSizes.length + 1, identity = {}, sharedMemory = [] } = options;
  const typeName = options.type ?? served.type.name;
  const type = VIRTIO_TYPES[typeName as VirtioTypeName] ?? 0;
  const msix = vectors > 0 ? new Msix(Math.min(vectors, 2048), MSIX_BAR, 0, MSIX_PENDING_AT) : undefined;
  const vectorOf = { config: NO_VECTOR, queues: served.queueSizes.map(() => NO_VECTOR) };
  let isr = 0;

  const interrupt = (vector: number, cause: number) => {
    // §4.1.4.5: with MSI-X on, the ISR status is not used.
    if (msix !== undefined && pci?.usesMsix) {
      if (vector !== NO_VECTOR) pci.interrupt(vector);
      return;
    }
    isr |= cause;
    pci?.setLine(true);
  };
  const side = new DeviceSide(
    served,
    {
      queueInterrupt: (index) => interrupt(vectorOf.queues[index] ?? NO_VECTOR, ISR_QUEUE),
      configInterrupt: () => interrupt(vectorOf.config, ISR_CONFIG),
      ...(options.violated ? { violated: options.violated } : {}),
    },
    options.offers,
  );

  const registers = new BankMap(REGISTERS_SIZE);
  registers.place(COMMON_AT, new RegisterTable(commonRegisters(side, vectorOf, vectors)));
  registers.place(ISR_AT, isrBank());
  registers.place(DEVICE_AT, deviceConfigBank(side, DEVICE_CONFIG_ROOM));
  const notifyRoom = Math.max(served.queueSizes.length, 1) * NOTIFY_MULTIPLIER;
  registers.place(NOTIFY_AT, notifyBank(side, notifyRoom));

  function isrBank(): Bank {
    return {
      size: 1,
      read(_offset, into) {
        // Reading it acknowledges (§4.1.4.5.1).
        into[0] = isr;
        isr = 0;
        pci?.setLine(false);
      },
      write() {},
      reset() {
        isr = 0;
      },
    };
  }

  const capabilities: Capability[] = [
    pciExpress({ functionLevelReset: () => pci?.reset() }),
    powerManagement(),
    ...(msix ? [msix.capability] : []),
    structure(CFG_COMMON, COMMON_AT, 0x40),
    structure(CFG_ISR, ISR_AT, 1),
    structure(CFG_DEVICE, DEVICE_AT, DEVICE_CONFIG_ROOM),
    structure(CFG_NOTIFY, NOTIFY_AT, notifyRoom, [constant('notify_off_multiplier', 4, NOTIFY_MULTIPLIER)]),
    pciConfigWindow(registers),
    ...sharedMemory.map(({ id, bank }, i) => sharedMemoryStructure(id, SHARED_BARS[i] ?? 4, bank.size)),
    ...(options.capabilities ?? []),
  ];
  const msixBank = new BankMap(MSIX_SIZE);
  if (msix) {
    msixBank.place(0, msix.table);
    msixBank.place(MSIX_PENDING_AT, msix.pending);
  }
  const created = PciFunction.create(
    {
      vendor: identity.vendor ?? VIRTIO_VENDOR,
      device: identity.device ?? MODERN_DEVICE + type,
      subsystemVendor: identity.subsystemVendor ?? VIRTIO_VENDOR,
      subsystem: identity.subsystem ?? 0x1100,
      classCode: identity.classCode ?? CLASS_CODES[typeName] ?? OTHER_CLASS,
      revision: identity.revision ?? REVISION,
      capabilities,
      interruptPin: true,
      ...(options.virtual ? { virtual: options.virtual, virtualCommand: COMMAND_MEMORY | COMMAND_BUS_MASTER } : {}),
      bars: [
        { index: REGISTERS_BAR, size: REGISTERS_SIZE, kind: 'memory32', bank: registers },
        ...(msix ? [{ index: MSIX_BAR, size: MSIX_SIZE, kind: 'memory32', bank: msixBank } as const] : []),
        ...sharedMemory.map(
          ({ bank }, i) =>
            ({
              index: SHARED_BARS[i] ?? 4,
              size: powerOfTwo(bank.size),
              kind: 'memory64',
              prefetchable: true,
              bank,
            }) as const,
        ),
      ],
      ...(msix ? { msix } : {}),
    },
    {
      attached: (link) => side.attachMemory(link.memory),
      detached: () => side.attachMemory(null),
      reset: () => {
        side.reset();
        vectorOf.config = NO_VECTOR;
        vectorOf.queues.fill(NO_VECTOR);
      },
      quiesce: () => side.quiesce(),
      memoryChanged: () => side.settle(),
      commandChanged() {
        side.settle();
        options.wake?.();
      },
    },
  );
  const pci: PciFunction | undefined = created.ok ? created.value : undefined;
  if (!created.ok) return created;
  side.mayTransfer = () => created.value.busMaster;
  sharedMemory.forEach(({ located }, i) => {
    located?.(() => barAddress(created.value, SHARED_BARS[i] ?? 4));
  });
  return { ok: true, value: { pci: created.value, side } };
}

/** One 64-bit BAR is left, and one stretch of shared memory is what any type of device has. */
const SHARED_BARS = [4];

/** What a 32-bit BAR says. */
export function barAddress32(pci: PciFunction, bar: number): number {
  const bytes = new Uint8Array(4);
  pci.readRegion(CONFIG_REGION, BARS_AT + 4 * bar, bytes);
  return (new DataView(bytes.buffer).getUint32(0, true) & ~0xf) >>> 0;
}

/** What a 64-bit BAR says. */
function barAddress(pci: PciFunction, bar: number): number {
  const bytes = new Uint8Array(8);
  pci.readRegion(CONFIG_REGION, BARS_AT + 4 * bar, bytes);
  const view = new DataView(bytes.buffer);
  return view.getUint32(4, true) * 2 ** 32 + ((view.getUint32(0, true) & ~0xf) >>> 0);
}

const CONFIG_REGION = 7;
const BARS_AT = 0x10;

function powerOfTwo(size: number): number {
  return 2 ** Math.ceil(Math.log2(Math.max(size, 4096)));
}

/** §4.1.4: struct virtio_pci_cap. */
function structure(type: number, at: number, length: number, more: readonly Register[] = []): Capability {
  return vendorCapability([...structureFields(type, REGISTERS_BAR, at, length), ...more]);
}

function structureFields(type: number, bar: number, at: number, length: number, id = 0): Register[] {
  return [
    constant('cfg_type', 1, type),
    constant('bar', 1, bar),
    constant('id', 1, id),
    ...reserved(2),
    constant('offset', 4, at),
    constant('length', 4, length),
  ];
}

/** §4.1.4.7: struct virtio_pci_cap64. */
function sharedMemoryStructure(id: number, bar: number, length: number): Capability {
  return vendorCapability([
    ...structureFields(CFG_SHARED_MEMORY, bar, 0, length >>> 0, id),
    constant('offset_hi', 4, 0),
    constant('length_hi', 4, Math.floor(length / 2 ** 32)),
  ]);
}

/** §4.1.4.9: a window in configuration space onto the BAR, for software that cannot map it. */
function pciConfigWindow(registers: Bank): Capability {
  const target = { bar: 0, offset: 0, length: 0 };
  const field = (name: string, bytes: 1 | 4, key: 'bar' | 'offset' | 'length'): Register => ({
    name,
    bytes,
    read: () => target[key],
    write(value, enabled) {
      target[key] = ((target[key] & ~enabled) | (value & enabled)) >>> 0;
    },
    reset() {
      target[key] = 0;
    },
  });
  const reaches = () =>
    target.bar === REGISTERS_BAR &&
    [1, 2, 4].includes(target.length) &&
    target.offset % target.length === 0 &&
    target.offset + target.length <= registers.size;
  return vendorCapability([
    constant('cfg_type', 1, CFG_PCI),
    field('bar', 1, 'bar'),
    constant('id', 1, 0),
    ...reserved(2),
    field('offset', 4, 'offset'),
    field('length', 4, 'length'),
    {
      name: 'pci_cfg_data',
      bytes: 4,
      read() {
        if (!reaches()) return 0;
        const bytes = new Uint8Array(4);
        registers.read(target.offset, bytes.subarray(0, target.length));
        return new DataView(bytes.buffer).getUint32(0, true);
      },
      write(value) {
        if (!reaches()) return;
        const bytes = new Uint8Array(4);
        new DataView(bytes.buffer).setUint32(0, value, true);
        registers.write(target.offset, bytes.subarray(0, target.length));
      },
    },
  ]);
}

/** §4.1.4.3: struct virtio_pci_common_cfg. */
function commonRegisters(
  side: DeviceSide,
  vectorOf: { config: number; readonly queues: number[] },
  vectors: number,
): Register[] {
  const queues = new QueueRegisters(side);
  const { selected } = queues;
  // One that the function does not have is not taken, and the driver reads that back (§4.1.5.1.2.1).
  const vector = (value: number) => (value < vectors ? value : NO_VECTOR);
  return [
    queues.selector('device_feature_select', 4, 'device'),
    queues.offeredFeatures('device_feature'),
    queues.selector('driver_feature_select', 4, 'driver'),
    queues.driverFeatures('driver_feature'),
    {
      name: 'config_msix_vector',
      bytes: 2,
      read: () => vectorOf.config,
      write(value) {
        vectorOf.config = vector(value);
      },
    },
    constant('num_queues', 2, side.queues.length),
    queues.status('device_status', 1),
    queues.generation('config_generation', 1),
    queues.selector('queue_select', 2, 'queue'),
    queues.size('queue_size', 2),
    {
      name: 'queue_msix_vector',
      bytes: 2,
      read: () => vectorOf.queues[selected.queue] ?? NO_VECTOR,
      write(value) {
        const before = vectorOf.queues[selected.queue];
        if (before === undefined) return;
        vectorOf.queues[selected.queue] = vector(value);
        if (before !== NO_VECTOR || vector(value) !== NO_VECTOR) {
          side.interruptTaken(selected.queue, vector(value) === NO_VECTOR);
        }
      },
    },
    queues.enable('queue_enable', 2),
    { name: 'queue_notify_off', bytes: 2, read: () => (queues.queue === undefined ? 0 : selected.queue), write() {} },
    queues.half('queue_desc_low', 'descriptors', false),
    queues.half('queue_desc_high', 'descriptors', true),
    queues.half('queue_driver_low', 'driver', false),
    queues.half('queue_driver_high', 'driver', true),
    queues.half('queue_device_low', 'device', false),
    queues.half('queue_device_high', 'device', true),
    { name: 'queue_notif_config_data', bytes: 2, read: () => selected.queue, write() {} },
    queues.reset('queue_reset', 2),
    constant('admin_queue_index', 2, 0),
    constant('admin_queue_num', 2, 0),
  ];
}

/** A write anywhere in a queue's four bytes notifies it; what it says is only a hint. */
function notifyBank(side: DeviceSide, size: number): Bank {
  return {
    size,
    read(_offset, into) {
      into.fill(0);
    },
    write(offset) {
      side.notified(Math.floor(offset / NOTIFY_MULTIPLIER));
    },
  };
}
