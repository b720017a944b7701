import { bytes, type DeviceType, le16, le32, u8 } from '../config/field.ts';

const MULTIQUEUE = ['NET_F_MQ', 'NET_F_RSS'];
const HASHING = ['NET_F_RSS', 'NET_F_HASH_REPORT'];

export const net: DeviceType = {
  name: 'net',
  clause: '5.1',
  config: [
    // There whatever was negotiated; it means something with NET_F_MAC only.
    bytes('mac', 0, 6),
    le16('status', 6, { features: ['NET_F_STATUS'] }),
    le16('max_virtqueue_pairs', 8, { features: MULTIQUEUE, min: 1, max: 0x8000 }),
    le16('mtu', 10, { features: ['NET_F_MTU'], min: 68 }),
    le32('speed', 12, { features: ['NET_F_SPEED_DUPLEX'] }),
    u8('duplex', 16, { features: ['NET_F_SPEED_DUPLEX'] }),
    u8('rss_max_key_size', 17, { features: HASHING, min: 40 }),
    le16('rss_max_indirection_table_length', 18, { features: ['NET_F_RSS'], min: 128 }),
    le32('supported_hash_types', 20, { features: HASHING }),
    le32('supported_tunnel_types', 24, { features: ['NET_F_HASH_TUNNEL'] }),
  ],
  queues: [
    { names: ['receiveq{n}', 'transmitq{n}'], count: 'max_virtqueue_pairs', countFeatures: MULTIQUEUE },
    { names: ['controlq'], feature: 'NET_F_CTRL_VQ' },
  ],
};
