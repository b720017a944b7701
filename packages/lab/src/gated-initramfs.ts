/** The lab's initramfs with the gate in front, made by the same code as `airlock gate initrd`. */
import type { Result } from '@airlock/core/result.ts';
import { fail } from '@airlock/core/result.ts';
import type { Cache, Kernel } from './cache.ts';

export async function gatedInitramfs(
  cache: Cache,
  kernel: Kernel,
  plain: string,
  policy: string,
): Promise<Result<string>> {
  void cache;
  void kernel;
  void plain;
  return fail('lab-build', `no gate for ${policy} yet`);
}
