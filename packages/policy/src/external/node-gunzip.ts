import { gunzip } from 'node:zlib';
import { fail, ok } from '@airlock/core/result.ts';
import type { Gunzip } from './bundle.ts';

/** zlib's, stopped at the limit. Codes: `bundle-unreadable`, `bundle-too-large`. */
export const gunzipBounded: Gunzip = (bytes, limit) =>
  new Promise((resolve) => {
    gunzip(bytes, { maxOutputLength: limit }, (error, unpacked) => {
      if (error === null) return resolve(ok(new Uint8Array(unpacked)));
      resolve(
        (error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE'
          ? fail('bundle-too-large', `the bundle unpacks to more than ${limit} bytes`)
          : fail('bundle-unreadable', 'the bundle is not a whole gzip file'),
      );
    });
  });
