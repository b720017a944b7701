import type { ErrorCatalogue } from '@airlock/core/result.ts';

export const DEVICE_MODEL_ERRORS = {
  'device-option-invalid': 'An option of `airlock device serve` has a value that the type of device cannot use.',
  'disk-not-usable': 'What is to be served as a disk is no regular file or block device that can be opened.',
  'disk-size-invalid': 'The size of a disk is not a multiple of 512 bytes, or it is empty.',
} as const satisfies ErrorCatalogue;
