/** The VIRTIO names that policies, inventories and rings share: device types and feature bits. VIRTIO 1.2 §5, §6. */

/**
 * Device types by their standard names: the 19 of VIRTIO 1.2, those that 1.4 adds (rtc, can, spi, media), and 9p,
 * whose id is reserved and which only Linux defines.
 */
export const VIRTIO_TYPES = {
  net: 1,
  block: 2,
  console: 3,
  entropy: 4,
  balloon: 5,
  scsi: 8,
  '9p': 9,
  gpu: 16,
  rtc: 17,
  input: 18,
  vsock: 19,
  crypto: 20,
  iommu: 23,
  memory: 24,
  sound: 25,
  fs: 26,
  pmem: 27,
  rpmb: 28,
  scmi: 32,
  i2c: 34,
  can: 36,
  gpio: 41,
  spi: 45,
  media: 48,
} as const;
export type VirtioTypeName = keyof typeof VIRTIO_TYPES;

const typeNames = new Map<number, VirtioTypeName>(
  Object.entries(VIRTIO_TYPES).map(([name, id]) => [id, name as VirtioTypeName]),
);

/** The standard name, or `virtio-ID` for an id that no standard names. */
export function virtioTypeName(id: number): string {
  return typeNames.get(id) ?? `virtio-${id}`;
}

/** Bits 24 to 43, which every device type shares. VIRTIO 1.4 §6. */
export const TRANSPORT_FEATURES: Readonly<Record<number, string>> = {
  24: 'NOTIFY_ON_EMPTY',
  27: 'ANY_LAYOUT',
  28: 'INDIRECT_DESC',
  29: 'EVENT_IDX',
  32: 'VERSION_1',
  33: 'ACCESS_PLATFORM',
  34: 'RING_PACKED',
  35: 'IN_ORDER',
  36: 'ORDER_PLATFORM',
  37: 'SR_IOV',
  38: 'NOTIFICATION_DATA',
  39: 'NOTIF_CONFIG_DATA',
  40: 'RING_RESET',
  41: 'ADMIN_VQ',
  43: 'SUSPEND',
};

/**
 * Bits that Linux accepts whenever the device offers them, without any knob in user space (vring_transport_features():
 * the same from 6.1 to 7.3, except IN_ORDER which only newer kernels know).
 */
export const LINUX_ALWAYS_ACCEPTS: readonly string[] = [
  'INDIRECT_DESC',
  'EVENT_IDX',
  'VERSION_1',
  'ACCESS_PLATFORM',
  'RING_PACKED',
  'ORDER_PLATFORM',
  'NOTIFICATION_DATA',
];

/** Bits of one device type, by the names of its section in VIRTIO 1.4 §5. */
export const DEVICE_FEATURES: Readonly<Record<string, Readonly<Record<number, string>>>> = {
  net: {
    0: 'NET_F_CSUM',
    1: 'NET_F_GUEST_CSUM',
    2: 'NET_F_CTRL_GUEST_OFFLOADS',
    3: 'NET_F_MTU',
    5: 'NET_F_MAC',
    6: 'NET_F_GSO',
    7: 'NET_F_GUEST_TSO4',
    8: 'NET_F_GUEST_TSO6',
    9: 'NET_F_GUEST_ECN',
    10: 'NET_F_GUEST_UFO',
    11: 'NET_F_HOST_TSO4',
    12: 'NET_F_HOST_TSO6',
    13: 'NET_F_HOST_ECN',
    14: 'NET_F_HOST_UFO',
    15: 'NET_F_MRG_RXBUF',
    16: 'NET_F_STATUS',
    17: 'NET_F_CTRL_VQ',
    18: 'NET_F_CTRL_RX',
    19: 'NET_F_CTRL_VLAN',
    20: 'NET_F_CTRL_RX_EXTRA',
    21: 'NET_F_GUEST_ANNOUNCE',
    22: 'NET_F_MQ',
    23: 'NET_F_CTRL_MAC_ADDR',
    50: 'NET_F_DEVICE_STATS',
    51: 'NET_F_HASH_TUNNEL',
    52: 'NET_F_VQ_NOTF_COAL',
    53: 'NET_F_NOTF_COAL',
    54: 'NET_F_GUEST_USO4',
    55: 'NET_F_GUEST_USO6',
    56: 'NET_F_HOST_USO',
    57: 'NET_F_HASH_REPORT',
    59: 'NET_F_GUEST_HDRLEN',
    60: 'NET_F_RSS',
    61: 'NET_F_RSC_EXT',
    62: 'NET_F_STANDBY',
    63: 'NET_F_SPEED_DUPLEX',
    64: 'NET_F_RSS_CONTEXT',
    65: 'NET_F_GUEST_UDP_TUNNEL_GSO',
    66: 'NET_F_GUEST_UDP_TUNNEL_GSO_CSUM',
    67: 'NET_F_HOST_UDP_TUNNEL_GSO',
    68: 'NET_F_HOST_UDP_TUNNEL_GSO_CSUM',
    69: 'NET_F_OUT_NET_HEADER',
    70: 'NET_F_IPSEC',
  },
  block: {
    0: 'BLK_F_BARRIER',
    1: 'BLK_F_SIZE_MAX',
    2: 'BLK_F_SEG_MAX',
    4: 'BLK_F_GEOMETRY',
    5: 'BLK_F_RO',
    6: 'BLK_F_BLK_SIZE',
    7: 'BLK_F_SCSI',
    9: 'BLK_F_FLUSH',
    10: 'BLK_F_TOPOLOGY',
    11: 'BLK_F_CONFIG_WCE',
    12: 'BLK_F_MQ',
    13: 'BLK_F_DISCARD',
    14: 'BLK_F_WRITE_ZEROES',
    15: 'BLK_F_LIFETIME',
    16: 'BLK_F_SECURE_ERASE',
    17: 'BLK_F_ZONED',
  },
  console: { 0: 'CONSOLE_F_SIZE', 1: 'CONSOLE_F_MULTIPORT', 2: 'CONSOLE_F_EMERG_WRITE' },
  balloon: {
    0: 'BALLOON_F_MUST_TELL_HOST',
    1: 'BALLOON_F_STATS_VQ',
    2: 'BALLOON_F_DEFLATE_ON_OOM',
    3: 'BALLOON_F_FREE_PAGE_HINT',
    4: 'BALLOON_F_PAGE_POISON',
    5: 'BALLOON_F_PAGE_REPORTING',
  },
  scsi: { 0: 'SCSI_F_INOUT', 1: 'SCSI_F_HOTPLUG', 2: 'SCSI_F_CHANGE', 3: 'SCSI_F_T10_PI' },
  '9p': { 0: '9P_MOUNT_TAG' },
  gpu: {
    0: 'GPU_F_VIRGL',
    1: 'GPU_F_EDID',
    2: 'GPU_F_RESOURCE_UUID',
    3: 'GPU_F_RESOURCE_BLOB',
    4: 'GPU_F_CONTEXT_INIT',
    5: 'GPU_F_BLOB_ALIGNMENT',
  },
  vsock: { 0: 'VSOCK_F_STREAM', 1: 'VSOCK_F_SEQPACKET', 2: 'VSOCK_F_NO_IMPLIED_STREAM' },
  crypto: {
    0: 'CRYPTO_F_REVISION_1',
    1: 'CRYPTO_F_CIPHER_STATELESS_MODE',
    2: 'CRYPTO_F_HASH_STATELESS_MODE',
    3: 'CRYPTO_F_MAC_STATELESS_MODE',
    4: 'CRYPTO_F_AEAD_STATELESS_MODE',
    5: 'CRYPTO_F_AKCIPHER_STATELESS_MODE',
  },
  iommu: {
    0: 'IOMMU_F_INPUT_RANGE',
    1: 'IOMMU_F_DOMAIN_RANGE',
    2: 'IOMMU_F_MAP_UNMAP',
    3: 'IOMMU_F_BYPASS',
    4: 'IOMMU_F_PROBE',
    5: 'IOMMU_F_MMIO',
    6: 'IOMMU_F_BYPASS_CONFIG',
  },
  memory: { 0: 'MEM_F_ACPI_PXM', 1: 'MEM_F_UNPLUGGED_INACCESSIBLE', 2: 'MEM_F_PERSISTENT_SUSPEND' },
  sound: { 0: 'SND_F_CTLS' },
  fs: { 0: 'FS_F_NOTIFICATION' },
  pmem: { 0: 'PMEM_F_SHMEM_REGION' },
  scmi: { 0: 'SCMI_F_P2A_CHANNELS', 1: 'SCMI_F_SHARED_MEMORY' },
  i2c: { 0: 'I2C_F_ZERO_LENGTH_REQUEST' },
  gpio: { 0: 'GPIO_F_IRQ' },
  rtc: { 0: 'RTC_F_ALARM' },
  can: { 0: 'CAN_F_CAN_CLASSIC', 1: 'CAN_F_CAN_FD', 2: 'CAN_F_RTR_FRAMES', 3: 'CAN_F_LATE_TX_ACK' },
};

/** The standard name of a bit for a device type (`null` for an unknown type), or `bit-N`. */
export function featureName(type: string | null, bit: number): string {
  return TRANSPORT_FEATURES[bit] ?? (type === null ? undefined : DEVICE_FEATURES[type]?.[bit]) ?? `bit-${bit}`;
}

const bitsByName = new Map<string, number>(
  [TRANSPORT_FEATURES, ...Object.values(DEVICE_FEATURES)].flatMap((table) =>
    Object.entries(table).map(([bit, name]): [string, number] => [name, Number(bit)]),
  ),
);

/** The bit of a feature name as policies write it (`RING_PACKED`, `VIRTIO_F_RING_PACKED`, `NET_F_MQ`, `bit-57`). */
export function featureBit(name: string): number | undefined {
  const plain = canonicalFeature(name);
  if (plain.startsWith('bit-')) {
    const bit = Number(plain.slice(4));
    return Number.isInteger(bit) && bit >= 0 && bit < 128 ? bit : undefined;
  }
  return bitsByName.get(plain);
}

/** `VIRTIO_F_RING_PACKED` and `VIRTIO_NET_F_MQ` are written `RING_PACKED` and `NET_F_MQ` here. */
export function canonicalFeature(name: string): string {
  return name.replace(/^VIRTIO_F_/, '').replace(/^VIRTIO_/, '');
}

/** Every name that `featureName` can give, for "did you mean". */
export function featureNames(): string[] {
  return [...bitsByName.keys()];
}
