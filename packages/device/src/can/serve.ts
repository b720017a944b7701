/** `airlock device serve can`: a CAN controller that hears itself. */
import { ok } from '@airlock/core/result.ts';
import { servedModel } from '../model/serve.ts';
import { canModel } from './device.ts';

export const served = servedModel({
  summary: 'a CAN controller that hears what it sends; others speak by the control word hear ID DATA',
  options: {},
  prepare: () => ok({ describe: () => 'a CAN bus', make: () => ok(canModel()) }),
});
