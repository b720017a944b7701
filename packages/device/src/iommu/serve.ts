/** `airlock device serve iommu`: endpoints, domains and mappings, kept and checked. */
import { ok } from '@airlock/core/result.ts';
import { servedModel } from '../model/serve.ts';
import { iommuModel } from './device.ts';

export const served = servedModel({
  summary: 'an IOMMU’s front: keeps domains and mappings, translates for nobody',
  options: {},
  prepare: () => ok({ describe: () => 'an IOMMU that translates for nobody', make: () => ok(iommuModel()) }),
});
