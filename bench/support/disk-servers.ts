/** Servers of one disk image, ours and qemu-storage-daemon, and what is asked of them. */
import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

const house = join(import.meta.dirname, '..', '..');
const cached = join(house, 'tools', 'cached');
const airlock = join(house, 'packages', 'cli', 'src', 'main.ts');
const run = promisify(execFile);

export interface DiskServer {
  readonly socket: string;
  readonly child: ChildProcess;
}

/** A line that says what is missing, or null. */
export function missingPeers(): string | null {
  const cache = execFileSync(join(house, 'tools', 'debian-cache'), ['path'], { encoding: 'utf8' }).trim();
  const there = existsSync(join(cache, 'peers', 'usr', 'bin', 'blkio-bench'));
  return there ? null : 'tools/debian-cache peers brings blkio-bench and qemu-storage-daemon';
}

async function started(child: ChildProcess, socket: string, name: string): Promise<DiskServer> {
  for (let tries = 0; tries < 200; tries++) {
    if (existsSync(socket)) return { socket, child };
    if (child.exitCode !== null) break;
    await new Promise((done) => setTimeout(done, 50));
  }
  child.kill();
  throw new Error(`${name} does not serve the disk`);
}

/** As a user starts it, with `more` options; libblkio does not seal its memory. */
export function serveOurs(file: string, socket: string, more: readonly string[]): Promise<DiskServer> {
  const args = ['device', 'serve', 'block', '--socket', socket, '--file', file, '--queues', '1', '--unsealed-memory'];
  const child = spawn(process.execPath, [airlock, ...args, ...more], {
    stdio: ['ignore', 'ignore', 'ignore'],
  });
  return started(child, socket, 'airlock device serve');
}

/** With its own thread for I/O, as its documentation advises. `locking=off`: ours has the image open too, idle. */
export function serveDaemon(
  file: string,
  socket: string,
  direct: boolean,
  aio: 'io_uring' | 'threads' | 'native',
): Promise<DiskServer> {
  const cache = `cache.direct=${direct ? 'on' : 'off'}`;
  const child = spawn(
    cached,
    [
      'qemu-storage-daemon',
      ...['--object', 'iothread,id=t0'],
      ...['--blockdev', `driver=file,node-name=disk,filename=${file},aio=${aio},${cache},locking=off`],
      '--export',
      `vhost-user-blk,id=e,node-name=disk,addr.type=unix,addr.path=${socket},num-queues=1,iothread=t0,writable=on`,
    ],
    { stdio: ['ignore', 'ignore', 'ignore'] },
  );
  return started(child, socket, 'qemu-storage-daemon');
}

export async function endServer({ child }: DiskServer): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((done) => child.once('exit', done));
  child.kill('SIGTERM');
  await ended;
}

export interface Load {
  readonly pattern: 'randread' | 'randwrite';
  readonly depth: number;
  /** The front-end looks for completions all the time. */
  readonly poll: boolean;
  readonly seconds: number;
}

/** Requests a second of 4 KiB, as libblkio's blkio-bench finds them. */
export async function blkioBench(socket: string, load: Load): Promise<number> {
  const { stdout } = await run(cached, [
    'blkio-bench',
    `--iodepth=${load.depth}`,
    `--readwrite=${load.pattern}`,
    '--blocksize=4096',
    `--runtime=${load.seconds}`,
    ...(load.poll ? ['--poll'] : []),
    'virtio-blk-vhost-user',
    `path=${socket}`,
  ]);
  const rate = Number(/"kiops": ([0-9.]+)/.exec(stdout)?.[1]) * 1000;
  if (!(rate > 0)) throw new Error(`blkio-bench: ${stdout.slice(0, 200)}`);
  return rate;
}

export interface Latencies {
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
}

/** Microseconds, from `airlock device bench`: blkio-bench does not tell them. */
export async function latencies(socket: string, load: Load): Promise<Latencies> {
  const { stdout } = await run(process.execPath, [
    ...[airlock, 'device', 'bench', socket, '--json', '--split'],
    ...['--depth', String(load.depth), '--seconds', String(load.seconds)],
    ...['--pattern', load.pattern, load.poll ? '--poll' : '--event'],
    ...(load.pattern === 'randwrite' ? ['--allow-writes'] : []),
  ]);
  const report: { latency: Latencies; errors: number } = JSON.parse(stdout);
  if (report.errors > 0) throw new Error(`airlock device bench: ${report.errors} requests failed`);
  return report.latency;
}

/** Seconds of processor time of a process and its descendants. */
export function processorTime(root: number): number {
  const processes = new Map<number, { parent: number; ticks: number }>();
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'latin1');
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      processes.set(Number(name), { parent: Number(fields[1]), ticks: Number(fields[11]) + Number(fields[12]) });
    } catch {
      // Gone meanwhile.
    }
  }
  let ticks = 0;
  for (const [pid, { ticks: own }] of processes) {
    let at = pid;
    for (let steps = 0; at !== root && at > 1 && steps < 8; steps++) at = processes.get(at)?.parent ?? 0;
    if (at === root) ticks += own;
  }
  return ticks / 100;
}
