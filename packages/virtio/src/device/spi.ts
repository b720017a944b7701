import { type DeviceType, le32, u8 } from '../config/field.ts';

export const spi: DeviceType = {
  name: 'spi',
  clause: '5.21',
  config: [
    u8('cs_max_number', 0),
    u8('cs_change_supported', 1, { max: 1 }),
    u8('tx_nbits_supported', 2, { max: 7 }),
    u8('rx_nbits_supported', 3, { max: 7 }),
    le32('bits_per_word_mask', 4),
    le32('mode_func_supported', 8, { max: 0x7f }),
    le32('max_freq_hz', 12),
    le32('max_word_delay_ns', 16),
    le32('max_cs_setup_ns', 20),
    le32('max_cs_hold_ns', 24),
    le32('max_cs_inactive_ns', 28),
  ],
  queues: [{ names: ['requestq'] }],
};
