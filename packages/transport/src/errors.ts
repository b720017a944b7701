import type { ErrorCatalogue } from '@airlock/core/result.ts';

export const TRANSPORT_ERRORS = {
  'uevent-malformed':
    'A message on the uevent socket does not have the form `ACTION@PATH\\0KEY=VALUE\\0…`; it was dropped.',
  'uevent-too-large': 'A message on the uevent socket is longer than the kernel ever sends; it was dropped.',
  'system-calls-missing': 'System calls are out of reach (koffi is not installed for this platform, or not Linux).',
  'system-call-failed': 'The kernel refused a system call; the message names the call and the errno.',
  'socket-path-invalid': 'The path of a Unix socket is empty, longer than 107 bytes, or holds a NUL.',
  'socket-path-taken': 'Where a Unix socket was to be made there is something else, or a socket that is in use.',
  'socket-refused': 'Nobody listens on the Unix socket.',
  'socket-wrong-type': 'The Unix socket is of another type (stream, seqpacket) than was asked for.',
  'socket-busy': 'Too many connections already wait on the Unix socket.',
  'socket-closed': 'The other end of the Unix socket is gone.',
  'descriptors-exhausted': 'This process has no file descriptor left.',
  'descriptors-cut':
    'A message carried more descriptors than agreed, or than this process has room for; all were closed.',
  'control-malformed': 'A message carried control data that is not descriptors with bytes; all were closed.',
  'message-cut': 'A message on a packet socket is longer than agreed; it was dropped.',
  'message-too-large': 'A message to be sent has more bytes or descriptors than one message can carry.',
  'memory-not-sealed':
    'A peer shares memory that it could shrink while it is in use, which would kill this process; it is not mapped.',
  'memory-size-invalid': 'A stretch of shared memory is not within its file, or its size is no size.',
  'notify-refused': 'The service manager did not take the message that NOTIFY_SOCKET asks for.',
} as const satisfies ErrorCatalogue;
