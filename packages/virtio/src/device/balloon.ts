import { type DeviceType, le32 } from '../config/field.ts';

export const balloon: DeviceType = {
  name: 'balloon',
  clause: '5.5',
  config: [
    le32('num_pages', 0),
    le32('actual', 4, { access: 'read-write' }),
    le32('free_page_hint_cmd_id', 8, { features: ['BALLOON_F_FREE_PAGE_HINT'] }),
    le32('poison_val', 12, { features: ['BALLOON_F_PAGE_POISON'], access: 'read-write' }),
  ],
  queues: [
    { names: ['inflateq', 'deflateq'] },
    { names: ['statsq'], feature: 'BALLOON_F_STATS_VQ' },
    { names: ['free_page_vq'], feature: 'BALLOON_F_FREE_PAGE_HINT' },
    { names: ['reporting_vq'], feature: 'BALLOON_F_PAGE_REPORTING' },
  ],
};
