/**
 * A program (`node empty-root.ts INSIDE OUTSIDE`) that replaces the root of the mount namespace it runs in by an empty,
 * read-only file system, for every process in it: pivot_root(2) moves those that stand in the old root. `spawnSandboxed`
 * runs it through nsenter(1). INSIDE and OUTSIDE are links of /proc/PID/ns/mnt: it goes on only where it stands in the
 * first and not in the second, because in the namespace of the machine it would take everything from everybody.
 */
import { openSync, readlinkSync } from 'node:fs';
import {
  MNT_DETACH,
  MS_BIND,
  MS_NODEV,
  MS_NOEXEC,
  MS_NOSUID,
  MS_RDONLY,
  MS_REC,
  MS_REMOUNT,
  MS_SLAVE,
} from './sys/confinement.ts';
import { loadSystemCalls, type SystemCalls } from './system-calls.ts';

/** Must be there, and nobody in the namespace needs it any more. */
const PLACE = '/proc';
const SAFE = MS_NOSUID | MS_NODEV | MS_NOEXEC;

/** Null when it is done, or the call that failed with its errno. */
function emptyRoot(calls: SystemCalls): string | null {
  const old = openSync('/', 'r');
  const steps: readonly (readonly [string, () => number])[] = [
    // What is mounted here must not show up elsewhere.
    ['mount(slave)', () => calls.mount('none', '/', null, MS_REC | MS_SLAVE, null)],
    ['mount(tmpfs)', () => calls.mount('none', PLACE, 'tmpfs', SAFE, 'size=4k,nr_inodes=2,mode=0555')],
    ['chdir', () => calls.chdir(Buffer.from(`${PLACE}\0`))],
    // The old root comes to lie above the new one, and is taken off from there.
    ['pivot_root', () => calls.pivotRoot('.', '.')],
    ['fchdir', () => calls.fchdir(old)],
    ['umount2', () => calls.umount2('.', MNT_DETACH)],
    ['chdir(/)', () => calls.chdir(Buffer.from('/\0'))],
    ['mount(read-only)', () => calls.mount('none', '/', null, MS_REMOUNT | MS_BIND | MS_RDONLY | SAFE, null)],
  ];
  for (const [name, step] of steps) {
    const status = step();
    if (status < 0) return `${name}: ${calls.errnoName(-status)}`;
  }
  return null;
}

/** Null when this is the namespace that is meant. */
function wrongPlace(inside: string | undefined, outside: string | undefined): string | null {
  const named = /^mnt:\[\d+\]$/;
  if (inside === undefined || outside === undefined || !named.test(inside) || !named.test(outside)) {
    return 'which mount namespace is meant, and which is not?';
  }
  const here = readlinkSync('/proc/self/ns/mnt');
  return here === inside && here !== outside ? null : `${here} is not the mount namespace that is meant`;
}

if (import.meta.main) {
  const [inside, outside] = process.argv.slice(2);
  const calls = await loadSystemCalls();
  const because = calls.ok ? (wrongPlace(inside, outside) ?? emptyRoot(calls.value)) : calls.error.message;
  if (because !== null) process.stderr.write(`${because}\n`);
  process.exit(because === null ? 0 : 1);
}
