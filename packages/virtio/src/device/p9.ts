import { type DeviceType, le16, text } from '../config/field.ts';

/** 9p has an id in the standard and no section; this is what Linux and QEMU do (linux/virtio_9p.h). */
export const p9: DeviceType = {
  name: '9p',
  clause: 'Linux, virtio_9p.h',
  config: [
    le16('tag_len', 0, { features: ['9P_MOUNT_TAG'], min: 1, max: 255 }),
    text('tag', 2, 'tag_len', { features: ['9P_MOUNT_TAG'] }),
  ],
  queues: [{ names: ['requests'] }],
};
