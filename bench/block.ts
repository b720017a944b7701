/**
 * A disk behind vhost-user, beside qemu-storage-daemon: 4 KiB at random places of one image of 256 MiB, asked by libblkio's
 * blkio-bench. Latencies are those of `airlock device bench`, asked in the same turn. `CPU` is the server's processor time,
 * in microseconds a request: on a machine where others work too it says more than the rate.
 *
 * `AIRLOCK_BENCH_FOLDER` says where the image is made (a folder of a disk, not of memory); `AIRLOCK_BENCH_SECONDS` how long
 * a turn lasts.
 */
import { randomFillSync } from 'node:crypto';
import { closeSync, copyFileSync, fsyncSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Bench, Prepared, Side } from './side-by-side.ts';
import {
  blkioBench,
  type DiskServer,
  endServer,
  type Latencies,
  type Load,
  latencies,
  missingPeers,
  processorTime,
  serveDaemon,
  serveOurs,
} from './support/disk-servers.ts';

const MIB = 2 ** 20;
const IMAGE_MIB = 256;
const seconds = Math.max(1, Math.floor(Number(process.env['AIRLOCK_BENCH_SECONDS'] ?? 1)));

function makeImage(folder: string): string {
  const file = join(folder, 'disk.img');
  const fd = openSync(file, 'w');
  const piece = new Uint8Array(MIB);
  for (let i = 0; i < IMAGE_MIB; i++) writeSync(fd, randomFillSync(piece));
  fsyncSync(fd);
  closeSync(fd);
  return file;
}

function sideOf(name: string, server: DiskServer, load: Load): Side {
  let found: Latencies & { cpu: number } = { p50: 0, p99: 0, p999: 0, cpu: 0 };
  return {
    name,
    async run() {
      const before = processorTime(server.child.pid ?? 0);
      const rate = await blkioBench(server.socket, load);
      const spent = processorTime(server.child.pid ?? 0) - before;
      found = { ...(await latencies(server.socket, load)), cpu: (spent * 1e6) / (rate * load.seconds) };
      return 1000 / rate;
    },
    more: () => ({ 'p50 µs': found.p50, 'p99 µs': found.p99, 'p99.9 µs': found.p999, 'CPU µs': found.cpu }),
  };
}

async function prepare(direct: boolean, load: Load): Promise<Prepared | string> {
  const missing = missingPeers();
  if (missing !== null) return missing;
  const folder = mkdtempSync(join(process.env['AIRLOCK_BENCH_FOLDER'] ?? tmpdir(), 'airlock-bench-'));
  const servers: DiskServer[] = [];
  const close = async () => {
    for (const server of servers) await endServer(server);
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    const file = makeImage(folder);
    const serve = async (server: Promise<DiskServer>): Promise<DiskServer> => {
      servers.push(await server);
      return server;
    };
    const socket = join(folder, 'ours.sock');
    const ours = [sideOf('airlock', await serve(serveOurs(file, socket, direct ? ['--direct'] : [])), load)];
    if (!direct && load.pattern === 'randread') {
      // One image has one server of ours, so this one has a copy.
      const copy = join(folder, 'copy.img');
      copyFileSync(file, copy);
      readFileSync(copy);
      ours.push(sideOf('airlock --map', await serve(serveOurs(copy, join(folder, 'map.sock'), ['--map'])), load));
    }
    // What its own documentation names as the fast ways.
    const ways = direct ? (['io_uring', 'native'] as const) : (['io_uring', 'threads'] as const);
    const peers: Side[] = [];
    for (const aio of ways) {
      const server = await serve(serveDaemon(file, join(folder, `${aio}.sock`), direct, aio));
      peers.push(sideOf(`qemu-storage-daemon ${aio}`, server, load));
    }
    if (!direct) readFileSync(file);
    return { ours, peers, operations: 1, close };
  } catch (error) {
    await close();
    throw error;
  }
}

function disk(name: string, direct: boolean, pattern: Load['pattern'], depth: number, poll: boolean): Bench {
  const load: Load = { pattern, depth, poll, seconds };
  const where = direct ? 'direct' : 'page cache';
  const how = poll ? 'polling front-end' : 'sleeping front-end';
  return {
    name: `block-${name}`,
    title: `4 KiB ${pattern}, ${where}, queue depth ${depth}, ${how}`,
    unit: 'requests',
    show: 'rate',
    turns: 5,
    turnLength: 0,
    prepare: () => prepare(direct, load),
  };
}

export const benches: readonly Bench[] = [
  disk('cached-read-32', false, 'randread', 32, false),
  disk('cached-read-32-polled', false, 'randread', 32, true),
  disk('cached-write-32', false, 'randwrite', 32, false),
  disk('cached-write-32-polled', false, 'randwrite', 32, true),
  disk('direct-read-32', true, 'randread', 32, false),
  disk('direct-write-32', true, 'randwrite', 32, false),
  disk('cached-read-1-polled', false, 'randread', 1, true),
  disk('cached-write-1-polled', false, 'randwrite', 1, true),
  disk('direct-read-1-polled', true, 'randread', 1, true),
];
