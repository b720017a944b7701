/** `airlock device serve rtc`: this machine's clocks. */
import { ok } from '@airlock/core/result.ts';
import { servedModel } from '../model/serve.ts';
import { rtcModel } from './device.ts';

export const served = servedModel({
  summary: 'a clock: UTC of this machine, and one that only goes forward',
  options: {},
  prepare: () =>
    ok({
      describe: () => 'a clock',
      make: () =>
        ok(
          rtcModel({
            utc: () => BigInt(Math.round((performance.timeOrigin + performance.now()) * 1000)) * 1000n,
            monotonic: () => process.hrtime.bigint(),
          }),
        ),
    }),
});
