import { test } from 'node:test';
import { balloonModel } from '@airlock/device/balloon/device.ts';
import { canModel } from '@airlock/device/can/device.ts';
import { cryptoModel } from '@airlock/device/crypto/device.ts';
import { aesCbc } from '@airlock/device/crypto/serve.ts';
import { gpioModel } from '@airlock/device/gpio/device.ts';
import { gpuModel } from '@airlock/device/gpu/device.ts';
import { i2cModel } from '@airlock/device/i2c/device.ts';
import { keyboardModel } from '@airlock/device/input/device.ts';
import { iommuModel } from '@airlock/device/iommu/device.ts';
import { memoryModel } from '@airlock/device/memory/device.ts';
import type { DeviceModel } from '@airlock/device/model/model.ts';
import { memorySectors } from '@airlock/device/model/sector-file.ts';
import { pmemModel } from '@airlock/device/pmem/device.ts';
import { rpmbModel } from '@airlock/device/rpmb/device.ts';
import { hmacSha256 } from '@airlock/device/rpmb/serve.ts';
import { rtcModel } from '@airlock/device/rtc/device.ts';
import { scmiModel } from '@airlock/device/scmi/device.ts';
import { scsiModel } from '@airlock/device/scsi/device.ts';
import { soundModel } from '@airlock/device/sound/device.ts';
import { spiModel } from '@airlock/device/spi/device.ts';
import { assault } from './support/model-driver.ts';

const MIB = 1 << 20;
const disk = () => memorySectors(new Uint8Array(MIB));
const MODELS: Readonly<Record<string, () => DeviceModel>> = {
  balloon: () => balloonModel(),
  can: canModel,
  crypto: () => cryptoModel(aesCbc),
  gpio: () => gpioModel(['a', '', 'c']),
  gpu: () => gpuModel({ width: 64, height: 48 }),
  i2c: i2cModel,
  input: () => keyboardModel({ name: 'k', serial: '1' }),
  iommu: iommuModel,
  memory: () => memoryModel({ address: 512 * MIB, size: 16 * MIB, blockSize: 2 * MIB, requested: 8 * MIB }),
  pmem: () => pmemModel(disk()),
  rpmb: () => rpmbModel(hmacSha256),
  rtc: () => rtcModel({ utc: () => 5n, monotonic: () => 7n }),
  scmi: scmiModel,
  scsi: () => scsiModel({ file: disk(), serial: 's' }),
  sound: () => soundModel({ format() {}, samples() {} }, () => () => {}),
  spi: spiModel,
};

for (const [name, make] of Object.entries(MODELS)) {
  test(`${name}: whatever a driver sends, in whatever lengths, is answered or given back, and nothing beyond it is touched`, () => {
    assault(make);
  });
}
