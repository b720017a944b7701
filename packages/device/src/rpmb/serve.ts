/** `airlock device serve rpmb`: replay-protected memory that lives as long as the process. */
import { createHmac } from 'node:crypto';
import { ok } from '@airlock/core/result.ts';
import { servedModel } from '../model/serve.ts';
import { type HmacSha256, rpmbModel } from './device.ts';

/** Node's own. */
export const hmacSha256: HmacSha256 = (key, data) => createHmac('sha256', key).update(data).digest();

export const served = servedModel({
  summary: 'replay-protected memory, 128 KiB, as long as the process lives',
  options: {},
  prepare: () => ok({ describe: () => 'replay-protected memory', make: () => ok(rpmbModel(hmacSha256)) }),
});
