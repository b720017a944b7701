import type { ErrorCatalogue } from '@airlock/core/result.ts';

export const SPDM_ERRORS = {} as const satisfies ErrorCatalogue;
