/** `airlock device serve spi`: a controller whose chips give back what they are sent. */
import { ok } from '@airlock/core/result.ts';
import { servedModel } from '../model/serve.ts';
import { spiModel } from './device.ts';

export const served = servedModel({
  summary: 'an SPI controller with two chips that give back what they are sent',
  options: {},
  prepare: () => ok({ describe: () => 'an SPI loop', make: () => ok(spiModel()) }),
});
