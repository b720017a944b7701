/** `airlock device serve scmi`: a platform with one clock. */
import { ok } from '@airlock/core/result.ts';
import { servedModel } from '../model/serve.ts';
import { scmiModel } from './device.ts';

export const served = servedModel({
  summary: 'a platform that is asked by SCMI: the base protocol and one clock',
  options: {},
  prepare: () => ok({ describe: () => 'SCMI with one clock', make: () => ok(scmiModel()) }),
});
