import type { ErrorCatalogue } from '@airlock/core/result.ts';

export const TRANSPORT_ERRORS = {
  'uevent-malformed':
    'A message on the uevent socket does not have the form `ACTION@PATH\\0KEY=VALUE\\0…`; it was dropped.',
  'uevent-too-large': 'A message on the uevent socket is longer than the kernel ever sends; it was dropped.',
  'system-calls-missing': 'System calls are out of reach (koffi is not installed for this platform, or not Linux).',
  'system-call-failed': 'The kernel refused a system call; the message names the call and the errno.',
  'notify-refused': 'The service manager did not take the message that NOTIFY_SOCKET asks for.',
} as const satisfies ErrorCatalogue;
