import { type DeviceType, le16, le32 } from '../config/field.ts';

export const scsi: DeviceType = {
  name: 'scsi',
  clause: '5.6',
  config: [
    le32('num_queues', 0, { min: 1, max: 0xffff }),
    le32('seg_max', 4),
    le32('max_sectors', 8),
    le32('cmd_per_lun', 12),
    le32('event_info_size', 16),
    le32('sense_size', 20, { access: 'read-write' }),
    le32('cdb_size', 24, { access: 'read-write' }),
    le16('max_channel', 28),
    le16('max_target', 30),
    le32('max_lun', 32),
  ],
  queues: [{ names: ['controlq', 'eventq'] }, { names: ['requestq{n}'], count: 'num_queues' }],
};
