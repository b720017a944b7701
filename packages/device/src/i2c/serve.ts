/** `airlock device serve i2c`: a bus with an EEPROM. */
import { ok } from '@airlock/core/result.ts';
import { servedModel } from '../model/serve.ts';
import { i2cModel } from './device.ts';

export const served = servedModel({
  summary: 'an I2C bus with an EEPROM of 256 bytes at 0x50',
  options: {},
  prepare: () => ok({ describe: () => 'an EEPROM at 0x50', make: () => ok(i2cModel()) }),
});
