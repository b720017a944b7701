/** `airlock device serve block`: a raw image or a block device as a virtio disk. */
import { fail } from '@airlock/core/result.ts';
import type { ServedType } from '../serve-type.ts';

export const served: ServedType = {
  summary: 'a raw image or a block device as a disk',
  options: { file: { type: 'string', value: 'FILE', help: 'the image or block device; needed' } },
  prepare: () => fail('device-option-invalid', 'not ready'),
};
