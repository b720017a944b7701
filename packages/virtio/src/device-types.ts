/** Every device type of VIRTIO 1.4 §5 and Linux's 9p, by the names and ids of core/virtio.ts. */
import { VIRTIO_TYPES, type VirtioTypeName } from '@airlock/core/virtio.ts';
import type { DeviceType } from './config/field.ts';
import { balloon } from './device/balloon.ts';
import { block } from './device/block.ts';
import { can } from './device/can.ts';
import { consoleDevice } from './device/console.ts';
import { cryptoDevice } from './device/crypto.ts';
import { entropy } from './device/entropy.ts';
import { fs } from './device/fs.ts';
import { gpio } from './device/gpio.ts';
import { gpu } from './device/gpu.ts';
import { i2c } from './device/i2c.ts';
import { input } from './device/input.ts';
import { iommu } from './device/iommu.ts';
import { media } from './device/media.ts';
import { memory } from './device/memory.ts';
import { net } from './device/net.ts';
import { p9 } from './device/p9.ts';
import { pmem } from './device/pmem.ts';
import { rpmb } from './device/rpmb.ts';
import { rtc } from './device/rtc.ts';
import { scmi } from './device/scmi.ts';
import { scsi } from './device/scsi.ts';
import { sound } from './device/sound.ts';
import { spi } from './device/spi.ts';
import { vsock } from './device/vsock.ts';

export const DEVICE_TYPES: Readonly<Record<VirtioTypeName, DeviceType>> = {
  net,
  block,
  console: consoleDevice,
  entropy,
  balloon,
  scsi,
  '9p': p9,
  gpu,
  rtc,
  input,
  vsock,
  crypto: cryptoDevice,
  iommu,
  memory,
  sound,
  fs,
  pmem,
  rpmb,
  scmi,
  i2c,
  can,
  gpio,
  spi,
  media,
};

const byId = new Map<number, DeviceType>(
  Object.entries(VIRTIO_TYPES).map(([name, id]) => [id, DEVICE_TYPES[name as VirtioTypeName]]),
);

/** By number or by standard name; undefined for what no standard defines. */
export function deviceType(which: number | string): DeviceType | undefined {
  if (typeof which === 'number') return byId.get(which);
  return Object.hasOwn(DEVICE_TYPES, which) ? DEVICE_TYPES[which as VirtioTypeName] : undefined;
}
