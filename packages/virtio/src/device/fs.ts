import { type DeviceType, le32, text } from '../config/field.ts';

export const fs: DeviceType = {
  name: 'fs',
  clause: '5.11',
  config: [
    text('tag', 0, 36),
    le32('num_request_queues', 36, { min: 1, max: 0xfffd }),
    le32('notify_buf_size', 40, { features: ['FS_F_NOTIFICATION'] }),
  ],
  queues: [
    { names: ['hiprio'] },
    { names: ['notification'], feature: 'FS_F_NOTIFICATION' },
    { names: ['requestq{n}'], count: 'num_request_queues' },
  ],
};
