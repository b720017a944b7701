/** A back-end on the reactor of tests, and the front-end of this house waiting for it in the same thread. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type FakeReactor, fakeReactor } from '@airlock/transport/fake-reactor.ts';
import type { Reactor, Watch } from '@airlock/transport/reactor.ts';
import { READABLE, WRITABLE } from '@airlock/transport/reactor.ts';
import { listenUnix, type UnixListener } from '@airlock/transport/unix-listener.ts';
import { type BackEnd, type BackEndEvent, serveVhostUser } from '@airlock/transport/vhost-user/back-end.ts';
import type { Wait } from '@airlock/transport/vhost-user/wait.ts';
import type { ServedDevice } from '@airlock/virtio/served-device.ts';
import { must, systemCalls } from './scripted-front-end.ts';

/** A fake reactor whose descriptors are really looked at when the test says so. */
export interface PumpedReactor extends Reactor {
  readonly fake: FakeReactor;
  /** Calls who is ready, and the pollers, until nothing happens any more. */
  pump(): void;
}

export function pumpedReactor(): PumpedReactor {
  const fake = fakeReactor();
  const watched = new Map<number, number>();
  const memory = systemCalls.allocate(8);
  const ready = (fd: number): number => {
    memory.view.setInt32(0, fd, true);
    memory.view.setUint16(4, 1 | 4, true);
    memory.view.setUint16(6, 0, true);
    systemCalls.poll(memory.address, 1, 0);
    const events = memory.view.getUint16(6, true);
    return ((events & 1) !== 0 ? READABLE : 0) | ((events & 4) !== 0 ? WRITABLE : 0);
  };
  return {
    ...fake,
    fake,
    watch(fd, events, call): Watch {
      const watch = fake.watch(fd, events, call);
      watched.set(fd, (watched.get(fd) ?? 0) + 1);
      let open = true;
      return {
        setEvents: (wanted) => watch.setEvents(wanted),
        close() {
          if (open) watched.set(fd, (watched.get(fd) ?? 1) - 1);
          open = false;
          watch.close();
        },
      };
    },
    pump() {
      for (let round = 0; round < 64; round++) {
        let told = false;
        for (const [fd, count] of [...watched]) {
          if (count <= 0) {
            watched.delete(fd);
            continue;
          }
          const wanted = fake.watchedEvents(fd) ?? 0;
          const events = wanted === 0 ? 0 : ready(fd) & wanted;
          if (events !== 0 && fake.makeReady(fd, events)) told = true;
        }
        const worked = fake.turn() > 0;
        // Asleep again, the device asks to be woken: what came meanwhile must not be lost.
        if (!told && !worked && fake.trySleep()) return;
      }
    },
  };
}

const folder = mkdtempSync(join(tmpdir(), 'vhost-user-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
let sockets = 0;

export interface PumpedBackEnd {
  readonly reactor: PumpedReactor;
  readonly path: string;
  readonly events: BackEndEvent[];
  readonly wait: Wait;
  readonly now: () => number;
  readonly backEnd: BackEnd;
  /** As `kill -9`: the connection breaks, nothing more is done; another back-end may come. */
  end(): void;
}

/** Serves `device` at a path of its own, or at `path`. */
export function pumpedBackEnd(device: ServedDevice, path?: string): PumpedBackEnd {
  const reactor = pumpedReactor();
  const where = path ?? join(folder, `socket-${sockets++}`);
  const listener: UnixListener = must(listenUnix(systemCalls, where));
  const events: BackEndEvent[] = [];
  const report = (event: BackEndEvent): void => void events.push(event);
  const backEnd = serveVhostUser({ calls: systemCalls, reactor, device, report }, listener);
  let time = 0;
  return {
    reactor,
    path: where,
    events,
    backEnd,
    // Nobody else runs: when the back-end has nothing to do, the time is over.
    wait: (_fds, _writable, milliseconds) => {
      reactor.pump();
      const step = Math.max(1, milliseconds / 8);
      time += step;
      reactor.fake.advance(step);
    },
    now: () => time,
    end() {
      backEnd.close();
      listener.close();
    },
  };
}
