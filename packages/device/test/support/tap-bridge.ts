/**
 * Runs in a user and network namespace of its own: Linux's network stack, behind a TAP, on a wire with our user-mode
 * network. Then a client, a process of its own, talks to the gateway through the kernel. Arguments: every
 * how manieth frame is lost (0: none), bytes, `offloads` or `plain`. Writes one JSON line with what the client saw.
 */
import { execFileSync, spawn } from 'node:child_process';
import { join } from 'node:path';
import type { NetEnd } from '@airlock/device/net/end.ts';
import { type Frame, HEADROOM } from '@airlock/device/net/frame.ts';
import { ALL_OFFLOADS, NO_OFFLOADS } from '@airlock/device/net/offloads.ts';
import { isJoined } from '@airlock/device/net/segmenter.ts';
import { openTap } from '@airlock/device/net/tap-end.ts';
import { UserEnd } from '@airlock/device/net/user-end.ts';
import { createReactor } from '@airlock/transport/event-loop.ts';
import { loadSystemCalls } from '@airlock/transport/system-calls.ts';
import { must, random } from './in-memory-driver.ts';

const [loss = '0', bytes = '1000000', offloads = 'offloads'] = process.argv.slice(2);
const calls = must(await loadSystemCalls());
const reactor = must(createReactor(calls));
const below = random(99);
const tap = must(openTap(calls, reactor, 'airlock0'));
const user = new UserEnd(reactor, () => below(0x7fff_ffff), 1500);
const ip = (...args: string[]) => execFileSync('ip', args);
ip('addr', 'add', '10.0.2.15/24', 'dev', 'airlock0');
ip('link', 'set', 'airlock0', 'up');

const seen = { joinedIn: 0, joinedOut: 0, frames: 0, lost: 0 };
/** Moves what there is from one end to the other; true when there was something. */
function move(from: NetEnd, to: NetEnd, joined: 'joinedIn' | 'joinedOut'): boolean {
  let moved = false;
  for (let frame = from.peek(); frame !== null; frame = from.peek()) {
    const room = to.room();
    if (room === null) break;
    seen.frames++;
    moved = true;
    if (Number(loss) > 0 && seen.frames % Number(loss) === 0) seen.lost++;
    else {
      if (isJoined(frame)) seen[joined]++;
      copy(frame, room);
      to.send();
    }
    from.advance();
  }
  to.flush();
  return moved;
}

function copy(from: Frame, to: Frame): void {
  to.bytes.set(from.bytes.subarray(from.start, from.start + from.length), to.start);
  const { flags, gsoType, gsoSize, headerLength, checksumStart, checksumOffset, length } = from;
  Object.assign(to, { flags, gsoType, gsoSize, headerLength, checksumStart, checksumOffset, length });
}

const pump = () => {
  for (let i = 0; i < 1000; i++) {
    const up = move(tap, user, 'joinedIn');
    const down = move(user, tap, 'joinedOut');
    if (!up && !down) return;
  }
};
tap.open(pump);
user.open(pump);
tap.setOffloads(offloads === 'offloads' ? ALL_OFFLOADS : NO_OFFLOADS);
user.setOffloads(offloads === 'offloads' ? ALL_OFFLOADS : NO_OFFLOADS);

// The client tells by a line on a descriptor that is watched, since Node's own loop stands still meanwhile.
const pair = new Int32Array(2);
if (calls.socketpair(1, 1, 0, pair) < 0) throw new Error('socketpair');
const [mine = -1, theirs = -1] = pair;
const client = spawn(process.execPath, [join(import.meta.dirname, 'tcp-client.ts'), bytes], {
  stdio: ['ignore', 'inherit', 'inherit', theirs],
});
calls.close(theirs);
reactor.watch(mine, 1, () => reactor.stop());
reactor.after(60_000, () => reactor.stop());
must(reactor.run());
client.kill();
process.stdout.write(
  `${JSON.stringify({ bridge: seen, tap: tap.counters, user: user.counters, headroom: HEADROOM })}\n`,
);
process.exit(0);
