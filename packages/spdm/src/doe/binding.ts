/** SPDM over PCIe DOE: CMA-SPDM and secured CMA-SPDM data objects, PCIe 6.1 §6.31.3 and §6.31.4. */
import { fail, ok } from '@airlock/core/result.ts';
import type { Binding } from '../secured/binding.ts';
import { DOE_HEADER, DOE_OBJECT_LIMIT, DOE_TYPE, decodeDoeObject, encodeDoeObject, PCI_SIG } from './object.ts';

/** Codes: `doe-object-invalid`, `doe-object-too-large`, `doe-answer-invalid` (another data object type). */
export const doeBinding: Binding = {
  name: 'doe',
  sequenceBytes: 0,
  randomLimit: 0,
  padding: 3,
  messageLimit: DOE_OBJECT_LIMIT - DOE_HEADER,
  wrap: (kind, message) => encodeDoeObject(PCI_SIG, kind === 'plain' ? DOE_TYPE.spdm : DOE_TYPE.securedSpdm, message),
  unwrap(bytes) {
    const object = decodeDoeObject(bytes);
    if (!object.ok) return object;
    const { vendor, type, payload } = object.value;
    if (vendor === PCI_SIG && type === DOE_TYPE.spdm) return ok({ kind: 'plain', message: payload });
    if (vendor === PCI_SIG && type === DOE_TYPE.securedSpdm) return ok({ kind: 'secured', message: payload });
    return fail('doe-answer-invalid', `a data object of type ${vendor.toString(16).padStart(4, '0')}:${type}`);
  },
  wrapApplication: (message) => message,
  unwrapApplication: (data) => ok(data),
};
