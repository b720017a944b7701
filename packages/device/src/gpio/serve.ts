/** `airlock device serve gpio`: lines by name. */
import { fail, ok } from '@airlock/core/result.ts';
import { servedModel } from '../model/serve.ts';
import { readText } from '../option-value.ts';
import { gpioModel } from './device.ts';

const NAMES = /^[\x21-\x2b\x2d-\x7e]{0,32}(,[\x21-\x2b\x2d-\x7e]{0,32}){0,63}$/;

export const served = servedModel({
  summary: 'lines that are inputs or outputs; inputs are moved by the control word set LINE 0|1',
  options: { lines: { type: 'string', value: 'NAMES', help: 'names with commas between them, at most 64; a,b,c,d' } },
  prepare(values) {
    const text = readText(values, 'lines');
    if (!text.ok) return text;
    const names = text.value ?? 'a,b,c,d';
    if (!NAMES.test(names))
      return fail('device-option-invalid', '--lines: up to 64 names of plain ASCII, such as a,b,c');
    return ok({ describe: () => `lines ${names}`, make: () => ok(gpioModel(names.split(','))) });
  },
});
