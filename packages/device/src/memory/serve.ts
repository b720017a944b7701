/** `airlock device serve memory`: memory of the guest that it may have, or not. */
import { fail, ok } from '@airlock/core/result.ts';
import { servedModel } from '../model/serve.ts';
import { readCount } from '../option-value.ts';
import { memoryModel } from './device.ts';

const MIB = 2 ** 20;
const BLOCK_MIB = 2;

export const served = servedModel({
  summary: 'memory that is plugged and unplugged; the VMM has it, at an address that you give',
  options: {
    address: { type: 'string', value: 'MIB', help: 'where it is in the guest; needed, a multiple of 128' },
    size: { type: 'string', value: 'MIB', help: 'how much there is; 256' },
    requested: { type: 'string', value: 'MIB', help: 'what the guest is to plug at first; 0. Later: request MIB' },
  },
  prepare(values) {
    const address = readCount(values, 'address', 0, 1, 2 ** 32);
    if (!address.ok) return address;
    if (address.value === 0 || address.value % 128 !== 0) {
      return fail('device-option-invalid', '--address MIB is needed: a multiple of 128');
    }
    const size = readCount(values, 'size', 256, BLOCK_MIB, 2 ** 20);
    if (!size.ok) return size;
    const requested = readCount(values, 'requested', 0, 0, size.value);
    if (!requested.ok) return requested;
    if (size.value % BLOCK_MIB !== 0 || requested.value % BLOCK_MIB !== 0) {
      return fail('device-option-invalid', `--size, --requested: multiples of ${BLOCK_MIB} MiB`);
    }
    const options = {
      ...{ address: address.value * MIB, size: size.value * MIB },
      ...{ blockSize: BLOCK_MIB * MIB, requested: requested.value * MIB },
    };
    return ok({ describe: () => `${size.value} MiB at ${address.value} MiB`, make: () => ok(memoryModel(options)) });
  },
});
