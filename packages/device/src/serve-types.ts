/** The types of device that can be served. A type is loaded when it is asked for. */
import type { ServedType } from './serve-type.ts';

/** In the order of the help text. */
export const SERVED_TYPES: Readonly<Record<string, () => Promise<{ readonly served: ServedType }>>> = {
  block: () => import('./block/serve.ts'),
  net: () => import('./net/serve.ts'),
  entropy: () => import('./entropy/serve.ts'),
  vsock: () => import('./vsock/serve.ts'),
  '9p': () => import('./9p/serve.ts'),
  console: () => import('./console/serve.ts'),
  balloon: () => import('./balloon/serve.ts'),
  scsi: () => import('./scsi/serve.ts'),
  gpu: () => import('./gpu/serve.ts'),
  input: () => import('./input/serve.ts'),
  fs: () => import('./fs/serve.ts'),
  crypto: () => import('./crypto/serve.ts'),
  sound: () => import('./sound/serve.ts'),
  pmem: () => import('./pmem/serve.ts'),
  memory: () => import('./memory/serve.ts'),
  iommu: () => import('./iommu/serve.ts'),
  rpmb: () => import('./rpmb/serve.ts'),
  scmi: () => import('./scmi/serve.ts'),
  i2c: () => import('./i2c/serve.ts'),
  gpio: () => import('./gpio/serve.ts'),
  rtc: () => import('./rtc/serve.ts'),
  can: () => import('./can/serve.ts'),
  spi: () => import('./spi/serve.ts'),
};
