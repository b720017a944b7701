/** A shared folder as virtiofs: FUSE requests in a queue. VIRTIO 1.4 §5.11. */
import { encodeConfig } from '@airlock/virtio/config/space.ts';
import { fs } from '@airlock/virtio/device/fs.ts';
import { NO_FEATURES } from '@airlock/virtio/features.ts';
import type { DeviceModel, RequestQueue } from '../model/model.ts';
import { IN_HEADER, OUT_HEADER, TRANSFER_BYTES } from './fuse.ts';
import type { FuseSession } from './session.ts';

const CONFIG_BYTES = 40;
const REQUEST_BYTES = IN_HEADER + 40 + TRANSFER_BYTES;
const REPLY_BYTES = OUT_HEADER + TRANSFER_BYTES;

/** `tag`: 1 to 36 characters of plain ASCII. `close` is called with the device's own. */
export function fsModel(tag: string, session: FuseSession, close: () => void): DeviceModel {
  const encoded = encodeConfig(fs, NO_FEATURES, { tag, num_request_queues: 1 });
  const config = encoded.ok ? encoded.value : new Uint8Array(CONFIG_BYTES);
  const queue: RequestQueue = {
    ...{ kind: 'requests', size: 128, requestLimit: REQUEST_BYTES, replyLimit: REPLY_BYTES },
    answer: (request, reply, { size }) => session.answer(request, size, reply),
  };
  return {
    type: fs,
    // The first is for what must not wait behind others; nothing here waits.
    queues: [queue, queue],
    config: () => config,
    end: () => session.reset(),
    close,
    facts: () => ({
      ...{ requests: session.requests, refused: session.refused },
      ...{ nodes: session.nodes.size, handles: session.nodes.open },
    }),
  };
}
