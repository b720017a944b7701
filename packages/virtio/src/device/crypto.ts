import { type DeviceType, le32, le64 } from '../config/field.ts';

export const cryptoDevice: DeviceType = {
  name: 'crypto',
  clause: '5.9',
  config: [
    le32('status', 0),
    le32('max_dataqueues', 4, { min: 1, max: 0xfffe }),
    le32('crypto_services', 8),
    le32('cipher_algo_l', 12),
    le32('cipher_algo_h', 16),
    le32('hash_algo', 20),
    le32('mac_algo_l', 24),
    le32('mac_algo_h', 28),
    le32('aead_algo', 32),
    le32('max_cipher_key_len', 36),
    le32('max_auth_key_len', 40),
    le32('akcipher_algo', 44),
    le64('max_size', 48, { words: true }),
  ],
  queues: [{ names: ['dataq{n}'], count: 'max_dataqueues' }, { names: ['controlq'] }],
};
