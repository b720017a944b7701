/** Where the files of a kernel are: of one in the cache, of this machine's, or below a folder. */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fail, ok, type Result } from '@airlock/core/result.ts';

export interface KernelFiles {
  /** `6.12.107+deb13-amd64` */
  readonly release: string;
  /** lib/modules/RELEASE with depmod's lists. */
  readonly modules: string;
}

/**
 * `kernel` is a series of the cache (`6.12`), a release whose modules this machine has (`6.1.0-50-amd64`), a folder
 * that holds lib/modules/RELEASE, or such a RELEASE folder itself. Code: `kernel-missing`.
 */
export function findKernel(kernel: string, cache: string): Result<KernelFiles> {
  const cached = join(cache, 'kernels', kernel);
  if (/^[\w.]+$/.test(kernel) && existsSync(join(cached, 'release'))) {
    const release = readFileSync(join(cached, 'release'), 'utf8').trim();
    return accept(join(cached, 'lib/modules', release));
  }
  if (kernel.includes('/')) {
    if (existsSync(join(kernel, 'modules.dep'))) return accept(kernel);
    const below = join(kernel, 'lib/modules');
    if (existsSync(below)) {
      const releases = readdirSync(below).filter((name) => existsSync(join(below, name, 'modules.dep')));
      if (releases.length === 1 && releases[0] !== undefined) return accept(join(below, releases[0]));
      return fail(
        'kernel-missing',
        `${below} holds ${releases.length === 0 ? 'no kernel with' : 'more than one'} modules.dep`,
      );
    }
    // A kernel image: its modules go by the name that Debian and others give it.
    if (existsSync(kernel) && statSync(kernel).isFile()) {
      const release = basename(kernel).replace(/^vmlinuz-/, '');
      for (const modules of [`/lib/modules/${release}`, join(dirname(kernel), 'lib/modules', release)]) {
        if (existsSync(join(modules, 'modules.dep'))) return accept(modules);
      }
      const beside = join(dirname(kernel), 'release');
      if (existsSync(beside)) {
        return accept(join(dirname(kernel), 'lib/modules', readFileSync(beside, 'utf8').trim()));
      }
    }
    return fail('kernel-missing', `${kernel}: no modules found for it`, {
      hint: 'give the folder that holds modules.dep',
    });
  }
  const own = join('/lib/modules', kernel);
  if (/^[\w.+~-]+$/.test(kernel) && existsSync(join(own, 'modules.dep'))) return accept(own);
  return fail('kernel-missing', `no kernel ${kernel} in the cache or below /lib/modules`, {
    hint: '6.1, 6.12 and 7.2 come with "make setup-guests"',
  });
}

function accept(modules: string): Result<KernelFiles> {
  return existsSync(join(modules, 'modules.dep'))
    ? ok({ release: basename(modules), modules })
    : fail('kernel-missing', `${modules} has no modules.dep`, { hint: 'run depmod for it' });
}
