/**
 * One front-end, DPDK's virtio-user, that drives two network cards in turn: ours (`airlock device serve net --peer user`)
 * and DPDK's own vhost in C. The C side takes a core whole and never sleeps; ours sleeps when there is nothing to do. While
 * one is measured the other is stopped, because there may be no more than two cores.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Prepared, Side } from '../side-by-side.ts';
import { findTestpmd, HOUSE, Testpmd } from './testpmd.ts';

/** How frames go: only out, or out and back until somebody stops it. */
export type Traffic = 'send' | 'echo';

export interface Scenario {
  readonly traffic: Traffic;
  /** Bytes of a frame. */
  readonly size: number;
  readonly packed: boolean;
}

/** How long one turn lasts, in milliseconds. */
const TURN = 1000;
const SETTLE = 200;
/** Operations that a turn's time is given for. */
const OPERATIONS = 1_000_000;
/** Bursts of 32 frames that go round. */
const BURSTS = 4;
/** Ports of the front-end. */
const OURS = 0;
const THEIRS = 1;

export async function prepareNet(scenario: Scenario): Promise<Prepared | string> {
  const drivers = findTestpmd();
  if (drivers === null) return 'dpdk-testpmd is not in the cache: tools/debian-cache peers';
  const folder = mkdtempSync(join(tmpdir(), 'airlock-bench-'));
  const [ours, theirs] = [join(folder, 'ours'), join(folder, 'theirs')];
  const server = await serveOurs(ours);
  const back = await Testpmd.start(drivers, [`net_vhost0,iface=${theirs}`], 1, []);
  const ring = `packed_vq=${scenario.packed ? 1 : 0}`;
  const users = [ours, theirs].map((path, port) => `net_virtio_user${port},path=${path},${ring}`);
  // UDP to the port that discards, or to the one that echoes (RFC 863, RFC 862).
  const to = scenario.traffic === 'send' ? '9,9' : '9,7';
  const front = await Testpmd.start(drivers, users, 0, ['--tx-ip=10.0.2.15,10.0.2.2', `--tx-udp=${to}`]);
  const side = (name: string, port: number): Side => {
    let rate = 0;
    return {
      name,
      async run() {
        const taken = await turn(scenario, front, back, port);
        rate = (1000 * OPERATIONS) / taken;
        return taken;
      },
      more: () => ({ 'Gbit/s': (rate * scenario.size * 8) / 1e9 }),
    };
  };
  return {
    ours: [side('airlock device serve net', OURS)],
    peers: [side('DPDK vhost', THEIRS)],
    operations: OPERATIONS,
    async close() {
      await front.stop();
      await back.stop();
      const ended = new Promise((done) => server.on('exit', done));
      server.kill('SIGTERM');
      await ended;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function serveOurs(socket: string): Promise<ChildProcess> {
  const args = ['device', 'serve', 'net', '--peer', 'user', '--socket', socket, '--unsealed-memory', '--json'];
  const child = spawn(join(HOUSE, 'airlock'), args, { stdio: ['ignore', 'pipe', 'inherit'] });
  return new Promise((done, fail) => {
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      if (text.includes('"listening"')) done(child);
    });
    child.on('exit', () => fail(new Error('airlock device serve net ended')));
  });
}

const pause = (milliseconds: number) => new Promise((done) => setTimeout(done, milliseconds));

/** Milliseconds that OPERATIONS frames took, by what went within a second. */
async function turn(scenario: Scenario, front: Testpmd, back: Testpmd, port: number): Promise<number> {
  const sends = scenario.traffic === 'send';
  if (port === THEIRS) {
    await back.command(`set fwd ${sends ? 'rxonly' : '5tswap'}`);
    await back.command('start');
  }
  await front.command(`set portlist ${port}`);
  await front.command(`set txpkts ${scenario.size}`);
  await front.command(`set fwd ${sends ? 'txonly' : '5tswap'}`);
  await front.command(sends ? 'start' : `start tx_first ${BURSTS}`);
  await pause(SETTLE);
  const before = await front.counts(port);
  const started = performance.now();
  await pause(TURN);
  const after = await front.counts(port);
  const taken = performance.now() - started;
  await front.command('stop');
  if (port === THEIRS) await back.command('stop');
  const frames = sends ? after.sent - before.sent : after.received - before.received;
  if (frames === 0) throw new Error(`nothing went through port ${port} of the front-end`);
  return (taken * OPERATIONS) / frames;
}
