/** `airlock device serve balloon`: asks the guest for memory, and keeps account of what it gives. */
import { ok } from '@airlock/core/result.ts';
import { servedModel } from '../model/serve.ts';
import { readCount } from '../option-value.ts';
import { balloonModel } from './device.ts';

const PAGES_A_MIB = 256;

export const served = servedModel({
  summary: 'a memory balloon that keeps account of the pages it is given',
  options: {
    target: { type: 'string', value: 'MIB', help: 'how much it wants at first; 0. Later: the control word target MIB' },
  },
  prepare(values) {
    const target = readCount(values, 'target', 0, 0, 2 ** 24 - 1);
    if (!target.ok) return target;
    return ok({
      describe: () => `a balloon of ${target.value} MiB`,
      make: () => ok(balloonModel(target.value * PAGES_A_MIB)),
    });
  },
});
