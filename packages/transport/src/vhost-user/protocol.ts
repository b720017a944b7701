/**
 * The vhost-user protocol as data: every message of both directions, protocol features, flags. QEMU's
 * docs/interop/vhost-user.rst (11.1) is the standard; "vhost-user" below stands for it.
 */

/** Bytes of a header: request, flags, payload size, each 32 bits. */
export const HEADER_SIZE = 12;

/** Bits of the header's flags. */
export const VERSION = 1;
export const VERSION_MASK = 3;
export const REPLY = 4;
export const NEED_REPLY = 8;

/** VHOST_USER_F_PROTOCOL_FEATURES: a feature bit that is the transport's and never the driver's. */
export const PROTOCOL_FEATURES_BIT = 30;
/** VHOST_F_LOG_ALL. */
export const LOG_ALL_BIT = 26;

/** VHOST_USER_PROTOCOL_F_*. */
export const PROTOCOL_FEATURES = {
  MQ: 0,
  LOG_SHMFD: 1,
  RARP: 2,
  REPLY_ACK: 3,
  MTU: 4,
  BACKEND_REQ: 5,
  CROSS_ENDIAN: 6,
  CRYPTO_SESSION: 7,
  PAGEFAULT: 8,
  CONFIG: 9,
  BACKEND_SEND_FD: 10,
  HOST_NOTIFIER: 11,
  INFLIGHT_SHMFD: 12,
  RESET_DEVICE: 13,
  INBAND_NOTIFICATIONS: 14,
  CONFIGURE_MEM_SLOTS: 15,
  STATUS: 16,
  XEN_MMAP: 17,
  SHARED_OBJECT: 18,
  DEVICE_STATE: 19,
  GET_VRING_BASE_INFLIGHT: 20,
  GPA_ADDRESSES: 21,
  SHMEM_MAP: 22,
} as const;
export type ProtocolFeature = keyof typeof PROTOCOL_FEATURES;

/** A set of protocol features as a number; all that are defined fit 32 bits. */
export function protocolFeatureSet(names: readonly ProtocolFeature[]): number {
  return names.reduce((set, name) => (set | (1 << PROTOCOL_FEATURES[name])) >>> 0, 0);
}

export function hasProtocolFeature(set: number, name: ProtocolFeature): boolean {
  return ((set >>> PROTOCOL_FEATURES[name]) & 1) === 1;
}

/** Names of the bits of a set, `bit-N` for those that nothing defines. */
export function protocolFeatureNames(set: number): string[] {
  const names = new Map<number, string>(Object.entries(PROTOCOL_FEATURES).map(([name, bit]) => [bit, name]));
  return Array.from({ length: 32 }, (_, bit) => bit)
    .filter((bit) => ((set >>> bit) & 1) === 1)
    .map((bit) => names.get(bit) ?? `bit-${bit}`);
}

/** The shapes that payloads have; payload.ts reads and writes them. */
export type Form =
  | 'none'
  | 'u64'
  /** A queue's number in bits 0 to 7, and bit 8 where no descriptor comes along. */
  | 'vring-fd'
  | 'vring'
  | 'vring-address'
  | 'regions'
  | 'region'
  | 'log'
  | 'iotlb'
  | 'config'
  | 'inflight'
  /** Of messages that nobody here sends or takes: any bytes. */
  | 'opaque';

/** How many file descriptors come with a message. */
export type Descriptors = 'none' | 'one' | 'at-most-one' | 'as-regions' | 'as-flag' | 'any';

export interface MessageKind {
  readonly name: string;
  readonly number: number;
  readonly payload: Form;
  readonly fds: Descriptors;
  /** The shape of the reply that the message has anyway; null when there is one only for NEED_REPLY. */
  readonly reply: Form | null;
  /** The message is for those who agreed on this. */
  readonly needs: ProtocolFeature | null;
}

type Row = readonly [
  number: number,
  payload: Form,
  fds?: Descriptors,
  reply?: Form | null,
  needs?: ProtocolFeature | null,
];

/** From the front-end to the back-end. */
const FRONT_END_ROWS = {
  GET_FEATURES: [1, 'none', 'none', 'u64'],
  SET_FEATURES: [2, 'u64'],
  SET_OWNER: [3, 'none'],
  RESET_OWNER: [4, 'none'],
  SET_MEM_TABLE: [5, 'regions', 'as-regions'],
  SET_LOG_BASE: [6, 'log', 'one', 'none', 'LOG_SHMFD'],
  SET_LOG_FD: [7, 'none', 'one'],
  SET_VRING_NUM: [8, 'vring'],
  SET_VRING_ADDR: [9, 'vring-address'],
  SET_VRING_BASE: [10, 'vring'],
  GET_VRING_BASE: [11, 'vring', 'none', 'vring'],
  SET_VRING_KICK: [12, 'vring-fd', 'as-flag'],
  SET_VRING_CALL: [13, 'vring-fd', 'as-flag'],
  SET_VRING_ERR: [14, 'vring-fd', 'as-flag'],
  GET_PROTOCOL_FEATURES: [15, 'none', 'none', 'u64'],
  SET_PROTOCOL_FEATURES: [16, 'u64'],
  GET_QUEUE_NUM: [17, 'none', 'none', 'u64', 'MQ'],
  SET_VRING_ENABLE: [18, 'vring'],
  SEND_RARP: [19, 'u64', 'none', null, 'RARP'],
  NET_SET_MTU: [20, 'u64', 'none', null, 'MTU'],
  SET_BACKEND_REQ_FD: [21, 'none', 'one', null, 'BACKEND_REQ'],
  IOTLB_MSG: [22, 'iotlb'],
  SET_VRING_ENDIAN: [23, 'vring', 'none', null, 'CROSS_ENDIAN'],
  GET_CONFIG: [24, 'config', 'none', 'config', 'CONFIG'],
  SET_CONFIG: [25, 'config', 'none', null, 'CONFIG'],
  CREATE_CRYPTO_SESSION: [26, 'opaque', 'none', 'opaque', 'CRYPTO_SESSION'],
  CLOSE_CRYPTO_SESSION: [27, 'u64', 'none', null, 'CRYPTO_SESSION'],
  POSTCOPY_ADVISE: [28, 'none', 'none', 'none', 'PAGEFAULT'],
  POSTCOPY_LISTEN: [29, 'none', 'none', null, 'PAGEFAULT'],
  POSTCOPY_END: [30, 'none', 'none', 'u64', 'PAGEFAULT'],
  GET_INFLIGHT_FD: [31, 'inflight', 'none', 'inflight', 'INFLIGHT_SHMFD'],
  SET_INFLIGHT_FD: [32, 'inflight', 'one', null, 'INFLIGHT_SHMFD'],
  GPU_SET_SOCKET: [33, 'none', 'one'],
  RESET_DEVICE: [34, 'none', 'none', null, 'RESET_DEVICE'],
  VRING_KICK: [35, 'vring', 'none', null, 'INBAND_NOTIFICATIONS'],
  GET_MAX_MEM_SLOTS: [36, 'none', 'none', 'u64', 'CONFIGURE_MEM_SLOTS'],
  ADD_MEM_REG: [37, 'region', 'one', null, 'CONFIGURE_MEM_SLOTS'],
  // Older front-ends send the descriptor along; it is closed.
  REM_MEM_REG: [38, 'region', 'at-most-one', null, 'CONFIGURE_MEM_SLOTS'],
  SET_STATUS: [39, 'u64', 'none', null, 'STATUS'],
  GET_STATUS: [40, 'none', 'none', 'u64', 'STATUS'],
  GET_SHARED_OBJECT: [41, 'opaque', 'none', 'none', 'SHARED_OBJECT'],
  SET_DEVICE_STATE_FD: [42, 'opaque', 'one', 'u64', 'DEVICE_STATE'],
  CHECK_DEVICE_STATE: [43, 'none', 'none', 'u64', 'DEVICE_STATE'],
  GET_SHMEM_CONFIG: [44, 'none', 'none', 'opaque', 'SHMEM_MAP'],
} as const satisfies Record<string, Row>;

/** From the back-end to the front-end, on the channel of SET_BACKEND_REQ_FD. */
const BACK_END_ROWS = {
  BACKEND_IOTLB_MSG: [1, 'iotlb'],
  BACKEND_CONFIG_CHANGE_MSG: [2, 'none', 'none', null, 'CONFIG'],
  BACKEND_VRING_HOST_NOTIFIER_MSG: [3, 'opaque', 'at-most-one', null, 'HOST_NOTIFIER'],
  BACKEND_VRING_CALL: [4, 'vring', 'none', null, 'INBAND_NOTIFICATIONS'],
  BACKEND_VRING_ERR: [5, 'vring', 'none', null, 'INBAND_NOTIFICATIONS'],
  BACKEND_SHARED_OBJECT_ADD: [6, 'opaque', 'none', null, 'SHARED_OBJECT'],
  BACKEND_SHARED_OBJECT_REMOVE: [7, 'opaque', 'none', null, 'SHARED_OBJECT'],
  BACKEND_SHARED_OBJECT_LOOKUP: [8, 'opaque', 'none', 'u64', 'SHARED_OBJECT'],
  BACKEND_SHMEM_MAP: [9, 'opaque', 'at-most-one', null, 'SHMEM_MAP'],
  BACKEND_SHMEM_UNMAP: [10, 'opaque', 'none', null, 'SHMEM_MAP'],
} as const satisfies Record<string, Row>;

export type FrontEndMessage = keyof typeof FRONT_END_ROWS;
export type BackEndMessage = keyof typeof BACK_END_ROWS;

function kinds<Name extends string>(rows: Readonly<Record<Name, Row>>): Readonly<Record<Name, MessageKind>> {
  const table = Object.entries<Row>(rows).map(([name, [number, payload, fds, reply, needs]]) => [
    name,
    { name, number, payload, fds: fds ?? 'none', reply: reply ?? null, needs: needs ?? null },
  ]);
  return Object.fromEntries(table) as Readonly<Record<Name, MessageKind>>;
}

export const FRONT_END_MESSAGES = kinds<FrontEndMessage>(FRONT_END_ROWS);
export const BACK_END_MESSAGES = kinds<BackEndMessage>(BACK_END_ROWS);

const frontEndByNumber = byNumber<FrontEndMessage>(FRONT_END_MESSAGES);
const backEndByNumber = byNumber<BackEndMessage>(BACK_END_MESSAGES);

function byNumber<Name extends string>(table: Readonly<Record<Name, MessageKind>>): ReadonlyMap<number, Name> {
  return new Map(Object.entries<MessageKind>(table).map(([name, { number }]) => [number, name as Name]));
}

/** The front-end's message of that number; undefined where the standard has none. */
export function frontEndMessage(number: number): FrontEndMessage | undefined {
  return frontEndByNumber.get(number);
}

export function backEndMessage(number: number): BackEndMessage | undefined {
  return backEndByNumber.get(number);
}
