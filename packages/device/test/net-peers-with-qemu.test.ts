/** QEMU's own `-netdev stream` and `-netdev dgram` at our other end, and behind them QEMU's user-mode network, closed off. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { Result } from '@airlock/core/result.ts';
import { openDatagrams } from '@airlock/device/net/datagram-end.ts';
import type { NetEnd } from '@airlock/device/net/end.ts';
import { StreamEnd } from '@airlock/device/net/stream-end.ts';
import { connectingSource, listeningSource } from '@airlock/device/net/stream-source.ts';
import { createReactor } from '@airlock/transport/event-loop.ts';
import { loadSystemCalls } from '@airlock/transport/system-calls.ts';
import { must } from './support/in-memory-driver.ts';
import { udp } from './support/user-client.ts';

const house = resolve(import.meta.dirname, '../../..');
const cache = execFileSync(join(house, 'tools/debian-cache'), ['path'], { encoding: 'utf8' }).trim();
const program = 'qemu-system-x86_64';
const skip = existsSync(join(cache, 'tools/usr/bin', program)) ? false : `needs ${program} (tools/debian-cache tools)`;
const calls = must(await loadSystemCalls());
/** How long a peer may take to come or to answer; waited for, not measured. */
const PATIENCE = 30_000;

function startQemu(t: TestContext, netdev: string): ChildProcess {
  // A hub between the socket and QEMU's user-mode network, which is told to reach nothing.
  const args = ['-M', 'none', '-nodefaults', '-display', 'none', '-netdev', netdev];
  const hub = ['-netdev', 'user,id=user,restrict=on', '-netdev', 'hubport,hubid=0,id=a,netdev=socket'];
  const child = spawn(
    join(house, 'tools/cached'),
    [program, ...args, ...hub, '-netdev', 'hubport,hubid=0,id=b,netdev=user'],
    {
      stdio: 'ignore',
    },
  );
  t.after(() => child.kill());
  return child;
}

function folder(t: TestContext): string {
  const made = mkdtempSync(join(tmpdir(), 'airlock-qemu-'));
  t.after(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

/** Asks who has 10.0.2.2, and for an address by DHCP, until both answers are there. */
function talk(open: (reactor: ReturnType<typeof reactorOf>) => NetEnd): { arp: number; offer: string } {
  const reactor = reactorOf();
  const end = open(reactor);
  const found = { arp: 0, offer: '' };
  const take = () => {
    for (let frame = end.peek(); frame !== null; frame = end.peek()) {
      const { view, start, length } = frame;
      const type = view.getUint16(start + 12);
      if (type === 0x0806 && view.getUint16(start + 20) === 2) found.arp = view.getUint32(start + 28);
      if (type === 0x0800 && length > 300 && view.getUint8(start + 23) === 17) {
        found.offer = [...frame.bytes.subarray(start + 58, start + 62)].join('.');
      }
      end.advance();
    }
    if (found.arp !== 0 && found.offer !== '') reactor.stop();
  };
  end.open(take);
  const ask = () => {
    for (const bytes of [arpRequest(), dhcpDiscover()]) {
      const room = end.room();
      if (room === null) continue;
      room.bytes.set(bytes, room.start);
      room.length = bytes.length;
      end.send();
    }
    end.flush();
    take();
    reactor.after(200, ask);
  };
  reactor.after(0, ask);
  reactor.after(PATIENCE, () => reactor.stop());
  must(reactor.run());
  end.close();
  reactor.close();
  return found;
}

function reactorOf() {
  return must(createReactor(calls));
}

function arpRequest(): Uint8Array {
  const bytes = new Uint8Array(60);
  const view = new DataView(bytes.buffer);
  bytes.fill(0xff, 0, 6);
  bytes.set([0x52, 0x54, 0, 0x12, 0x34, 0x56, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 0x52, 0x54, 0, 0x12, 0x34, 0x56], 6);
  view.setUint32(28, 0x0a00_020f);
  view.setUint32(38, 0x0a00_0202);
  return bytes;
}

function dhcpDiscover(): Uint8Array {
  const message = new Uint8Array(300);
  message.set([1, 1, 6, 0, 1, 2, 3, 4]);
  message.set([0x52, 0x54, 0, 0x12, 0x34, 0x56], 28);
  message.set([0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255], 236);
  return udp(68, 67, message, { source: 0, target: 0xffff_ffff, mac: new Uint8Array(6).fill(0xff) });
}

const ANSWERS = { arp: 0x0a00_0202, offer: '10.0.2.15' };

/** Tries until the peer is there. */
async function until<T>(attempt: () => Result<T>): Promise<T> {
  for (const end = Date.now() + PATIENCE; ; ) {
    const got = attempt();
    if (got.ok || Date.now() > end) return must(got);
    await new Promise((done) => setTimeout(done, 50));
  }
}

test('we listen, QEMU’s stream connects', { skip }, (t) => {
  const path = join(folder(t), 'net.sock');
  const source = must(listeningSource(calls, path));
  startQemu(t, `stream,id=socket,server=off,addr.type=unix,addr.path=${path},reconnect-ms=100`);
  assert.deepEqual(
    talk((reactor) => new StreamEnd(calls, reactor, source)),
    ANSWERS,
  );
});

test('QEMU’s stream listens, we connect', { skip }, async (t) => {
  const path = join(folder(t), 'net.sock');
  startQemu(t, `stream,id=socket,server=on,addr.type=unix,addr.path=${path}`);
  const source = await until(() => connectingSource(calls, path));
  assert.deepEqual(
    talk((reactor) => new StreamEnd(calls, reactor, source)),
    ANSWERS,
  );
});

test('datagrams to and from QEMU', { skip }, (t) => {
  const at = folder(t);
  const [ours, theirs] = [join(at, 'ours'), join(at, 'theirs')];
  startQemu(t, `dgram,id=socket,local.type=unix,local.path=${theirs},remote.type=unix,remote.path=${ours}`);
  assert.deepEqual(
    talk((reactor) => must(openDatagrams(calls, reactor, ours, theirs))),
    ANSWERS,
  );
});
