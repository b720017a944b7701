/** Persistent memory: a file as a stretch of memory that the driver maps, and a queue to ask for its flush. VIRTIO 1.4 §5.19. */
import { pmem } from '@airlock/virtio/device/pmem.ts';
import type { DeviceModel } from '../model/model.ts';
import type { SectorFile } from '../model/sector-file.ts';

const SHMEM_REGION = 0;
/** §5.19.5.1: the region's id. */
const SHARED_ID = 0;
const FLUSH = 0;
const SUCCESS = 0;
const FAILED = -1;

export function pmemModel(file: SectorFile): DeviceModel {
  const config = new Uint8Array(16);
  const view = new DataView(config.buffer);
  let address: () => number = () => 0;
  const counts = { flushes: 0, refused: 0, read: 0, written: 0, failed: 0 };
  const put = (at: number, value: number) => {
    view.setUint32(at, value >>> 0, true);
    view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
  };
  return {
    type: pmem,
    bits: [SHMEM_REGION],
    queues: [
      {
        ...{ kind: 'requests', requestLimit: 4, replyLimit: 4 },
        answer(request, reply) {
          if (reply.length < 4) return 0;
          const type = request.length < 4 ? -1 : new DataView(request.buffer, request.byteOffset).getUint32(0, true);
          const done = type === FLUSH && file.flush();
          if (done) counts.flushes++;
          else counts.refused++;
          new DataView(reply.buffer, reply.byteOffset).setInt32(0, done ? SUCCESS : FAILED, true);
          return 4;
        },
      },
    ],
    /** For drivers that do not know the region: where it is for the processor, as its BAR says. */
    config() {
      put(0, address());
      put(8, file.bytes);
      return config;
    },
    close: () => file.close(),
    facts: () => ({ ...counts }),
    sharedMemory: [
      {
        id: SHARED_ID,
        located(ask) {
          address = ask;
        },
        bank: {
          size: file.bytes,
          read(offset, into) {
            counts.read += into.length;
            if (offset + into.length > file.bytes || !file.read(offset, into)) {
              counts.failed++;
              into.fill(0xff);
            }
          },
          write(offset, bytes) {
            counts.written += bytes.length;
            if (offset + bytes.length > file.bytes || !file.write(offset, bytes)) counts.failed++;
          },
        },
      },
    ],
  };
}
