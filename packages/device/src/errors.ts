import type { ErrorCatalogue } from '@airlock/core/result.ts';

export const DEVICE_MODEL_ERRORS = {} as const satisfies ErrorCatalogue;
