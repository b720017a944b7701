/** io_uring(7) as the kernel lays it out (include/uapi/linux/io_uring.h): offsets in bytes, numbers of operations. */

export const OPERATION = {
  NOP: 0,
  READV: 1,
  WRITEV: 2,
  FSYNC: 3,
  READ_FIXED: 4,
  WRITE_FIXED: 5,
  FALLOCATE: 17,
  READ: 22,
  WRITE: 23,
} as const;
export type Operation = keyof typeof OPERATION;

/** struct io_uring_params. */
export const PARAMS_SIZE = 120;
export const PARAMS = {
  sqEntries: 0,
  cqEntries: 4,
  flags: 8,
  features: 20,
  sqHead: 40,
  sqTail: 44,
  sqMask: 48,
  sqFlags: 56,
  sqArray: 64,
  cqHead: 80,
  cqTail: 84,
  cqMask: 88,
  cqes: 100,
  cqFlags: 104,
} as const;

export const SQE_SIZE = 64;
export const CQE_SIZE = 16;

export const SETUP_CQSIZE = 1 << 3;
export const SETUP_CLAMP = 1 << 4;
/** The ring starts disabled, for restrictions to be set. */
export const SETUP_R_DISABLED = 1 << 6;
export const SETUP_SUBMIT_ALL = 1 << 7;
export const SETUP_COOP_TASKRUN = 1 << 8;
export const SETUP_TASKRUN_FLAG = 1 << 9;
export const SETUP_SINGLE_ISSUER = 1 << 12;
export const SETUP_DEFER_TASKRUN = 1 << 13;

export const FEAT_SINGLE_MMAP = 1;
/** Completions that do not fit wait in the kernel. */
export const FEAT_NODROP = 2;

export const ENTER_GETEVENTS = 1;
/** In the submission ring's flags: completions wait in the kernel because the ring was full; because nobody fetched. */
export const SQ_CQ_OVERFLOW = 2;
export const SQ_TASKRUN = 4;

/** In the completion ring's flags, by us: completions signal no eventfd. */
export const CQ_EVENTFD_DISABLED = 1;

export const OFFSET_RINGS = 0;
export const OFFSET_SQES = 0x10000000;

export const REGISTER_BUFFERS = 0;
export const UNREGISTER_BUFFERS = 1;
export const REGISTER_FILES = 2;
export const UNREGISTER_FILES = 3;
export const REGISTER_EVENTFD = 4;
export const REGISTER_PROBE = 8;
export const REGISTER_RESTRICTIONS = 11;
export const REGISTER_ENABLE_RINGS = 12;

export const SQE_FIXED_FILE = 1;
export const SQE_IO_DRAIN = 2;
export const SQE_IO_LINK = 4;
export const FSYNC_DATASYNC = 1;

/** struct io_uring_probe: a head, and for each operation a number, a pad, flags. */
export const PROBE_HEAD = 16;
export const PROBE_ENTRY = 8;
export const PROBE_SUPPORTED = 1;

/** struct io_uring_restriction: kind (16 bits), what (8 bits), and nothing. */
export const RESTRICTION_SIZE = 16;
export const RESTRICTION_REGISTER_OP = 0;
export const RESTRICTION_SQE_OP = 1;
export const RESTRICTION_SQE_FLAGS_ALLOWED = 2;
