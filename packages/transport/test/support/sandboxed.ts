/**
 * A program that closes itself in and then tries to get out; it prints what happened as one line of JSON. Nothing that it
 * tries may have an effect where a layer does not hold: it may run as root on somebody's machine.
 */

import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readdirSync, readFileSync, writeSync } from 'node:fs';
import { connect } from 'node:net';
import { enterSandbox } from '@airlock/transport/sandbox.ts';
import { loadSystemCalls } from '@airlock/transport/system-calls.ts';

const [unixSockets, rings, folder] = (process.argv[2] ?? '').split(',');
const loaded = await loadSystemCalls();
if (!loaded.ok) throw new Error(loaded.error.message);
const calls = loaded.value;
const file = openSync(import.meta.filename, 'r');
const kept = folder === 'folder' ? openSync(import.meta.dirname, 'r') : -1;
const entered = enterSandbox(calls, { unixSockets: unixSockets === 'unix', rings: rings === 'rings' });

if (!entered.ok) {
  writeSync(1, `${JSON.stringify({ entered, tries: {} })}\n`);
  process.exit(7);
}
const emptied = entered.value.layers.some(({ layer, status }) => layer === 'root' && status === 'enforced');

const attempt = (what: () => unknown): string => {
  try {
    what();
    return 'done';
  } catch (error) {
    return error instanceof Error && 'code' in error ? String(error.code) : 'failed';
  }
};
const named = (status: number): string => (status < 0 ? calls.errnoName(-status) : 'done');
const tcp = await new Promise<string>((resolve) => {
  connect(9, '127.0.0.1')
    .on('error', (error) => resolve('code' in error ? String(error.code) : 'failed'))
    .on('connect', () => resolve('done'));
});
const result = {
  entered,
  cwd: process.cwd(),
  tries: {
    'read the inherited file': attempt(() => readFileSync(file)),
    '/etc/passwd': attempt(() => readFileSync('/etc/passwd')),
    'relative path': attempt(() => readFileSync('etc/passwd')),
    'dot dot': attempt(() => readFileSync('../../../etc/passwd')),
    '/proc/self/root': attempt(() => readFileSync('/proc/self/root/etc/passwd')),
    'list /': attempt(() => readdirSync('/')),
    'write /': emptied ? attempt(() => closeSync(openSync('/new', 'w'))) : 'not tried',
    program: attempt(() => execFileSync('/bin/true')),
    'tcp connection': tcp,
    'unix socket': named(calls.socket(1, 1, 0)),
    'packet socket': named(calls.socket(17, 3, 0)),
    netlink: named(calls.socket(16, 3, 15)),
    io_uring: named(calls.ioUringSetup(0, 0)),
    mount: named(calls.mount('none', '/nowhere/at/all', 'tmpfs', 0, null)),
    // Of a process with threads it is EINVAL.
    unshare: named(calls.unshare(0x10000000)),
    'kill process 1': attempt(() => process.kill(1, 0)),
    'type into the terminal': named(calls.ioctl(0, 0x5412, 0)),
    'another thread': await new Promise<string>((resolve) => {
      // A thread of the pool, which was there before the filter.
      import('node:fs/promises').then(({ readFile }) =>
        readFile('/etc/passwd').then(
          () => resolve('done'),
          (error) => resolve(String(error.code)),
        ),
      );
    }),
  },
};
writeSync(1, `${JSON.stringify(result)}\n`);
closeSync(file);
if (kept >= 0) closeSync(kept);
process.exit(7);
