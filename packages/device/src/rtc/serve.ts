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
            // Not performance.now, which never hears that this machine's clock was set. In steps of a millisecond.
            utc: () => BigInt(Date.now()) * 1_000_000n,
            monotonic: () => process.hrtime.bigint(),
          }),
        ),
    }),
});
