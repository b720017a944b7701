/** virtio over MMIO, version 2: one stretch of registers and one interrupt. VIRTIO 1.4 §4.2. */
import type { Problem } from '@airlock/core/result.ts';
import { VIRTIO_TYPES, type VirtioTypeName } from '@airlock/core/virtio.ts';
import type { ServedDevice } from '@airlock/virtio/served-device.ts';
import { type Bank, BankMap, constant, type Register, RegisterTable, reserved } from '../pci/register.ts';
import { deviceConfigBank } from './config-bank.ts';
import { DeviceSide } from './device-side.ts';
import { QueueRegisters } from './queue-registers.ts';

/** `virt` */
const MAGIC = 0x7472_6976;
const VENDOR = 0x1af4;
const CONFIG_AT = 0x100;
/** All registers with the configuration space behind them. */
export const MMIO_SIZE = 0x1000;

const USED_BUFFER = 1;
const CONFIG_CHANGE = 2;

export interface VirtioMmio {
  readonly registers: Bank;
  readonly side: DeviceSide;
}

export interface VirtioMmioOptions {
  /** The interrupt line: asserted until everything is acknowledged. */
  readonly line: (asserted: boolean) => void;
  readonly violated?: (why: Problem) => void;
}

/** A device behind registers; the caller gives it memory through `side.attachMemory`. */
export function virtioMmio(served: ServedDevice, options: VirtioMmioOptions): VirtioMmio {
  let pending = 0;
  const raise = (cause: number) => {
    pending |= cause;
    options.line(true);
  };
  const side = new DeviceSide(served, {
    queueInterrupt: () => raise(USED_BUFFER),
    configInterrupt: () => raise(CONFIG_CHANGE),
    ...(options.violated ? { violated: options.violated } : {}),
  });
  const queues = new QueueRegisters(side);
  const written = (name: string, write: (value: number) => void): Register => ({
    name,
    bytes: 4,
    read: () => 0,
    write,
  });

  const table: Register[] = [
    constant('MagicValue', 4, MAGIC),
    constant('Version', 4, 2),
    constant('DeviceID', 4, VIRTIO_TYPES[served.type.name as VirtioTypeName] ?? 0),
    constant('VendorID', 4, VENDOR),
    queues.offeredFeatures('DeviceFeatures'),
    queues.selector('DeviceFeaturesSel', 4, 'device'),
    ...reserved(8),
    queues.driverFeatures('DriverFeatures'),
    queues.selector('DriverFeaturesSel', 4, 'driver'),
    ...reserved(8),
    queues.selector('QueueSel', 4, 'queue'),
    { name: 'QueueSizeMax', bytes: 4, read: () => queues.queue?.most ?? 0, write() {} },
    queues.size('QueueSize', 4),
    ...reserved(8),
    queues.enable('QueueReady', 4),
    ...reserved(8),
    // Notification data puts more into the upper half; the queue is in the lower (§4.2.3.3).
    written('QueueNotify', (value) => side.notified(value & 0xffff)),
    ...reserved(12),
    { name: 'InterruptStatus', bytes: 4, read: () => pending, write() {} },
    written('InterruptACK', (value) => {
      pending &= ~value;
      if (pending === 0) options.line(false);
    }),
    ...reserved(8),
    queues.status('Status', 4),
    ...reserved(12),
    queues.half('QueueDescLow', 'descriptors', false),
    queues.half('QueueDescHigh', 'descriptors', true),
    ...reserved(8),
    queues.half('QueueDriverLow', 'driver', false),
    queues.half('QueueDriverHigh', 'driver', true),
    ...reserved(8),
    queues.half('QueueDeviceLow', 'device', false),
    queues.half('QueueDeviceHigh', 'device', true),
    ...reserved(4),
    written('SHMSel', () => {}),
    // A length of all ones: there is no such region (§4.2.2.1).
    constant('SHMLenLow', 4, 0xffff_ffff),
    constant('SHMLenHigh', 4, 0xffff_ffff),
    constant('SHMBaseLow', 4, 0xffff_ffff),
    constant('SHMBaseHigh', 4, 0xffff_ffff),
    queues.reset('QueueReset', 4),
    ...reserved(0x38),
    queues.generation('ConfigGeneration', 4),
  ];
  const registers = new BankMap(MMIO_SIZE);
  registers.place(0, new RegisterTable(table));
  registers.place(CONFIG_AT, deviceConfigBank(side, MMIO_SIZE - CONFIG_AT));
  return { registers, side };
}
