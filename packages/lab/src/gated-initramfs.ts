/** The lab's initramfs with the gate in front, made by the same code as `airlock gate initrd`. */
import { writeFileSync } from 'node:fs';
import { ok, type Problem, type Result } from '@airlock/core/result.ts';
import { makeInitrd } from '@airlock/gate/build/node-initrd.ts';
import { built, type Cache, type Kernel } from './cache.ts';

/**
 * Path of the initramfs. The problems are those of the policy (`policy-*`, `yaml-*`, …), and of the build
 * (`build-*`, `initrd-*`, `lab-build`).
 */
export async function gatedInitramfs(
  cache: Cache,
  kernel: Kernel,
  plain: string,
  policy: string,
  /** Where to put it, instead of the cache: what no other run will boot from. */
  into?: string,
): Promise<{ readonly path: string } | { readonly problems: readonly [Problem, ...Problem[]] }> {
  const made = await makeInitrd({ policy, initrd: plain, cache: cache.folder });
  if (made.initrd === undefined) {
    const [first, ...rest] = made.problems;
    return { problems: [first ?? { code: 'lab-build', message: `${policy}: no initramfs was made of it` }, ...rest] };
  }
  const { bytes, digest } = made.initrd;
  if (into !== undefined) {
    writeFileSync(into, bytes);
    return { path: into };
  }
  const path = await built(
    cache,
    `gated-${kernel.series}`,
    digest.slice(0, 16),
    async (into): Promise<Result<void>> => {
      writeFileSync(into, bytes);
      return ok(undefined);
    },
  );
  return path.ok ? { path: path.value } : { problems: [path.error] };
}
