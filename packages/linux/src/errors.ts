import type { ErrorCatalogue } from '@airlock/core/result.ts';

export const LINUX_ERRORS = {
  'file-missing': 'The file or directory is not there (ENOENT, ENOTDIR, or ENODEV on read: the device has gone).',
  'file-denied': 'The kernel refused access (EACCES, EPERM).',
  'file-refused': 'The kernel refused the value written; the message holds the errno (ENODEV, EBUSY, EINVAL, …).',
  'file-too-large': 'The file is longer than this attribute can be; nothing of it was used.',
  'file-timeout': 'The read or write did not end in time: the device or the kernel holds it.',
  'file-not-regular': 'A pipe, socket or device node stands where a file belongs; it was not opened for reading.',
  'file-io': 'Any other error of reading or writing; the message holds the errno.',
  'write-forbidden':
    'This program may not write there: only the gate (process 1) or an agent with --enforce may change /sys and /proc.',
  'attribute-malformed': 'The attribute does not hold what the kernel documents for it.',
} as const satisfies ErrorCatalogue;
