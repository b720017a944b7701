import type { ErrorCatalogue } from '@airlock/core/result.ts';

export const SPDM_ERRORS = {
  'signing-key-invalid': 'A file is no private key in PEM or PKCS #8.',
} as const satisfies ErrorCatalogue;
