/** `airlock device serve can`: a CAN controller, and a bus that answers it. */
import { ok } from '@airlock/core/result.ts';
import { servedModel } from '../model/serve.ts';
import { canModel } from './device.ts';

export const served = servedModel({
  summary: 'a CAN controller on a bus that repeats every frame; others speak by the control word hear ID DATA',
  options: {},
  prepare: () => ok({ describe: () => 'a CAN bus', make: () => ok(canModel()) }),
});
