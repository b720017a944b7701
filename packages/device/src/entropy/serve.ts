/** `airlock device serve entropy`: this machine's random numbers. */
import { randomFillSync } from 'node:crypto';
import { ok } from '@airlock/core/result.ts';
import type { ServedType } from '../serve-type.ts';
import { EntropyDevice } from './device.ts';

export const served: ServedType = {
  summary: 'random bytes of this machine',
  options: {},
  prepare: () =>
    ok({
      describe: () => 'random bytes',
      // OpenSSL's generator, which getrandom(2) seeds: it needs no file, so it goes on within the sandbox.
      open: () => ok(new EntropyDevice((target) => void randomFillSync(target))),
    }),
};
