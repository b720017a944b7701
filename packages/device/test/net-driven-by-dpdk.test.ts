/** DPDK's testpmd with virtio-user as the driver of our network card: every form of ring, frames sent, echoed and received. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, before, test } from 'node:test';

const house = resolve(import.meta.dirname, '../../..');
const cache = execFileSync(join(house, 'tools/debian-cache'), ['path'], { encoding: 'utf8' }).trim();
const plugins = join(cache, 'peers/usr/lib/x86_64-linux-gnu/dpdk/pmds-25.0');
const skip =
  existsSync(join(cache, 'peers/usr/bin/dpdk-testpmd')) && existsSync(plugins)
    ? false
    : 'needs dpdk-testpmd (tools/debian-cache peers)';
const folder = mkdtempSync(join(tmpdir(), 'airlock-dpdk-'));
const socket = join(folder, 'net.sock');
const told: { event: string; problem?: { code: string } }[] = [];
let server: ReturnType<typeof spawn> | undefined;

before(async () => {
  if (skip !== false) return;
  const args = [
    'device',
    'serve',
    'net',
    '--socket',
    socket,
    '--peer',
    'user',
    '--queues',
    '2',
    '--unsealed-memory',
    '--json',
  ];
  const started = spawn(join(house, 'airlock'), args, { stdio: ['ignore', 'pipe', 'inherit'] });
  server = started;
  await new Promise<void>((done, fail) => {
    let rest = '';
    started.stdout.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) told.push(JSON.parse(line));
      if (told.some(({ event }) => event === 'listening')) done();
    });
    started.on('exit', () => fail(new Error('the server ended')));
  });
});

after(async () => {
  if (server !== undefined && server.exitCode === null) {
    const ended = new Promise((done) => server?.on('exit', done));
    server.kill('SIGTERM');
    await ended;
  }
  rmSync(folder, { recursive: true, force: true });
});

/** Runs testpmd, lets it send four bursts and swap what comes back until it has `enough` frames, and reads its numbers. */
async function swap(options: string, more: readonly string[], enough: number) {
  const program = ['-m', '256', '--no-huge', '--no-pci', '--no-telemetry', '--no-shconf'];
  const device = `--vdev=net_virtio_user0,path=${socket},mac=52:54:00:12:34:56,${options}`;
  const own = ['-i', '--total-num-mbufs=8192', '--forward-mode=5tswap', '--tx-ip=10.0.2.15,10.0.2.2', '--tx-udp=9,7'];
  const child = spawn(
    join(house, 'tools/cached'),
    ['dpdk-testpmd', ...program, '-l', '0,1', '-d', plugins, device, '--', ...own, ...more],
    { env: { ...process.env, RUNTIME_DIRECTORY: folder }, stdio: ['pipe', 'pipe', 'pipe'] },
  );
  let output = '';
  let asked = 0;
  const enoughSeen = () => Number(/RX-packets: (\d+) +RX-missed/.exec(output.slice(asked))?.[1] ?? 0) >= enough;
  let begun = false;
  child.stderr.resume();
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
    if (!begun && output.includes('testpmd> ')) {
      begun = true;
      child.stdin.write('start tx_first 4\n');
    }
  });
  // Asked again and again, since how long it takes depends on the machine.
  const asking = setInterval(() => {
    if (!begun) return;
    if (enoughSeen()) {
      clearInterval(asking);
      child.stdin.end('stop\nquit\n');
      return;
    }
    asked = output.length;
    child.stdin.write('show port stats 0\n');
  }, 300);
  const gaveUp = setTimeout(() => child.kill(), 30_000);
  await new Promise((done) => child.on('close', done));
  clearInterval(asking);
  clearTimeout(gaveUp);
  const totals = /Accumulated forward statistics[\s\S]*?RX-packets: (\d+)[\s\S]*?TX-packets: (\d+)/.exec(output);
  assert.ok(totals !== null, output.slice(-2000));
  return { received: Number(totals[1]), sent: Number(totals[2]) };
}

const forms: [string, string, readonly string[]][] = [
  ['split', 'packed_vq=0', []],
  ['split, one buffer a frame, two pairs of queues', 'packed_vq=0,mrg_rxbuf=0,queues=2', ['--rxq=2', '--txq=2']],
  ['packed', 'packed_vq=1', []],
  ['packed, in order, one buffer a frame', 'packed_vq=1,in_order=1,mrg_rxbuf=0', []],
  ['packed, long frames', 'packed_vq=1', ['--txpkts=1400']],
];

for (const [name, options, more] of forms) {
  test(`echo through our card: ${name}`, { skip }, async () => {
    const { received, sent } = await swap(options, more, 2000);
    assert.ok(received >= 2000, `${received} received, ${sent} sent`);
    // Four bursts of 32 frames go round in each of the queues; none was lost on the way.
    assert.ok(sent - received <= 256, `${received} received, ${sent} sent`);
    assert.deepEqual(
      told.filter(({ event }) => event === 'problem').map(({ problem }) => problem?.code),
      [],
    );
  });
}
