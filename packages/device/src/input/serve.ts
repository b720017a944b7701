/** `airlock device serve input`: a keyboard without hands. */
import { fail, ok } from '@airlock/core/result.ts';
import { servedModel } from '../model/serve.ts';
import { readText } from '../option-value.ts';
import { keyboardModel } from './device.ts';

const NAME = /^[\x20-\x7e]{1,128}$/;

export const served = servedModel({
  summary: 'a keyboard whose keys are pressed by the control word key CODE',
  options: {
    name: { type: 'string', value: 'TEXT', help: 'what the guest calls it; Airlock keyboard' },
    serial: { type: 'string', value: 'TEXT', help: 'its serial number; 1' },
  },
  prepare(values) {
    const name = readText(values, 'name');
    if (!name.ok) return name;
    const serial = readText(values, 'serial');
    if (!serial.ok) return serial;
    const options = { name: name.value ?? 'Airlock keyboard', serial: serial.value ?? '1' };
    if (!NAME.test(options.name) || !NAME.test(options.serial)) {
      return fail('device-option-invalid', '--name, --serial: 1 to 128 characters of plain ASCII');
    }
    return ok({ describe: () => `keyboard ${options.name}`, make: () => ok(keyboardModel(options)) });
  },
});
