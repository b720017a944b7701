/** The kernel's module lists (depmod's text files), and a small tree of just what is wanted. Pure. */
import { fail, ok, type Result } from '@airlock/core/result.ts';

/** `kernel/drivers/block/virtio_blk.ko.xz` is `virtio_blk`. */
export function moduleName(path: string): string {
  const file = path.slice(path.lastIndexOf('/') + 1);
  return file.replace(/\.ko(\.(xz|zst|gz))?$/, '').replaceAll('-', '_');
}

export interface ModuleList {
  /** Path below lib/modules/RELEASE by name. */
  readonly paths: ReadonlyMap<string, string>;
  /** Paths that a path needs, as modules.dep lists them. */
  readonly needs: ReadonlyMap<string, readonly string[]>;
  readonly builtin: ReadonlySet<string>;
}

/** From the texts of modules.dep and modules.builtin. Lines that are not as depmod writes them are passed over. */
export function readModuleList(dep: string, builtin: string): ModuleList {
  const paths = new Map<string, string>();
  const needs = new Map<string, readonly string[]>();
  for (const line of dep.split('\n')) {
    const colon = line.indexOf(':');
    if (colon <= 0) continue;
    const path = line.slice(0, colon);
    paths.set(moduleName(path), path);
    needs.set(
      path,
      line
        .slice(colon + 1)
        .split(' ')
        .filter((one) => one !== ''),
    );
  }
  return {
    paths,
    needs,
    builtin: new Set(
      builtin
        .split('\n')
        .filter((one) => one !== '')
        .map(moduleName),
    ),
  };
}

/**
 * Paths of the modules and of all that they need, sorted. A name that is built in needs nothing; one that ends in `?`
 * may be missing. Code: `module-missing`.
 */
export function modulePaths(list: ModuleList, names: readonly string[]): Result<string[]> {
  const wanted = new Set<string>();
  for (const asked of names) {
    const optional = asked.endsWith('?');
    const name = asked.replace(/\?$/, '').replaceAll('-', '_');
    const path = list.paths.get(name);
    if (path === undefined) {
      if (optional || list.builtin.has(name)) continue;
      return fail('module-missing', `this kernel has no module ${name}`);
    }
    wanted.add(path);
    for (const needed of list.needs.get(path) ?? []) wanted.add(needed);
  }
  return ok([...wanted].sort());
}

/** modules.dep for these paths only, with the names that uncompressed files have. */
export function smallDep(list: ModuleList, paths: readonly string[]): string {
  return paths
    .map((path) => `${plainName(path)}:${(list.needs.get(path) ?? []).map((one) => ` ${plainName(one)}`).join('')}\n`)
    .join('');
}

export function plainName(path: string): string {
  return path.replace(/\.ko\.(xz|zst|gz)$/, '.ko');
}

/** The lines of modules.alias, modules.softdep or the like that are about these modules. */
export function smallAlias(alias: string, paths: readonly string[]): string {
  const names = new Set(paths.map(moduleName));
  return alias
    .split('\n')
    .filter((line) => {
      const words = line.split(/\s+/);
      return words[0] === 'alias' && words.length === 3 && names.has((words[2] ?? '').replaceAll('-', '_'));
    })
    .map((line) => `${line}\n`)
    .join('');
}
