import { type DeviceType, le32 } from '../config/field.ts';

export const gpu: DeviceType = {
  name: 'gpu',
  clause: '5.7',
  config: [
    le32('events_read', 0),
    le32('events_clear', 4, { access: 'read-write' }),
    le32('num_scanouts', 8, { min: 1, max: 16 }),
    // The standard sets no limit. Linux allocates as many as it is told, so a limit is needed before it is.
    le32('num_capsets', 12, { max: 1024 }),
    le32('blob_alignment', 16, { features: ['GPU_F_BLOB_ALIGNMENT'], min: 1, powerOfTwo: true }),
  ],
  queues: [{ names: ['controlq', 'cursorq'] }],
};
