/**
 * An eventfd that a peer passed is one open file for both: the peer can take O_NONBLOCK off it again, fill its counter, or
 * empty it between our look and our read. Whoever signals or drains it must not wait. Each case runs in a process of its
 * own, because one that waits would never come back.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { drainEventFd, drainPeer, signalPeer } from '@airlock/transport/event-fd.ts';
import { READABLE } from '@airlock/transport/reactor.ts';
import { socketPair } from '@airlock/transport/unix-socket.ts';
import { DONE } from '@airlock/virtio/ring/queue.ts';
import { calls, missing } from './support/calls.ts';
import { EchoDevice } from './support/echo-device.ts';
import { ScriptedFrontEnd, startQueue, submit } from './support/scripted-front-end.ts';

const skip = missing;
const O_NONBLOCK = 0o4000;
const F_GETFL = 3;
const F_SETFL = 4;
const FULL = 0xffff_ffff_ffff_fffen;

/** As the peer would have it: no flag at all. */
function blockingCounter(value: bigint): number {
  const fd = calls.eventfd(0, 0);
  const memory = calls.allocate(8);
  memory.view.setBigUint64(0, value, true);
  if (value > 0n) assert.equal(calls.write(fd, memory.address, 8), 8);
  return fd;
}

/** What a peer does to a descriptor after it was accepted. */
function makeBlocking(fd: number): void {
  assert.equal(calls.fcntl(fd, F_SETFL, calls.fcntl(fd, F_GETFL, 0) & ~O_NONBLOCK), 0);
}

function fill(fd: number): void {
  const memory = calls.allocate(8);
  memory.view.setBigUint64(0, FULL, true);
  assert.equal(calls.write(fd, memory.address, 8), 8);
}

const CASES: Readonly<Record<string, () => void>> = {
  'a full counter is signalled without waiting'() {
    const fd = blockingCounter(FULL);
    for (let i = 0; i < 1000; i++) assert.ok(signalPeer(calls, fd));
    assert.ok(drainPeer(calls, fd) > 2 ** 53);
  },
  'an empty counter is drained without waiting'() {
    const fd = blockingCounter(0n);
    assert.equal(drainPeer(calls, fd), 0);
    assert.ok(signalPeer(calls, fd));
    assert.ok(signalPeer(calls, fd));
    assert.equal(drainPeer(calls, fd), 2);
    assert.equal(drainPeer(calls, fd), 0);
  },
  'signals beyond what the kernel keeps answers for arrive all the same'() {
    const fd = blockingCounter(0n);
    for (let i = 0; i < 10_000; i++) assert.ok(signalPeer(calls, fd));
    assert.equal(drainPeer(calls, fd), 10_000);
  },
  'what is no eventfd is told, and nothing is written to it'() {
    const pair = socketPair(calls);
    assert.ok(pair.ok);
    const [ours, theirs] = pair.value;
    assert.equal(signalPeer(calls, ours), false);
    assert.equal(drainEventFd(calls, theirs), 0, 'nothing was written to it');
    const closed = blockingCounter(0n);
    calls.close(closed);
    assert.equal(signalPeer(calls, closed), false);
    assert.equal(drainPeer(calls, closed), -1);
  },
  'without AIO a full counter still holds nobody'() {
    const without = { ...calls, aioSetup: () => -38 };
    const fd = blockingCounter(FULL);
    assert.ok(signalPeer(without, fd));
    assert.ok(drainPeer(without, fd) > 2 ** 53);
    assert.ok(signalPeer(without, fd));
    assert.equal(drainPeer(without, fd), 1);
  },
  'a back-end completes requests although its call is full and its kick is empty'() {
    const front = new ScriptedFrontEnd(new EchoDevice());
    const features = front.negotiate();
    const ram = front.ram(4 * 65536);
    assert.equal(front.ack('ADD_MEM_REG', { form: 'region', region: ram.region }, [ram.fd]), 0);
    const queue = startQueue(front, ram, 0, 8, features);
    makeBlocking(queue.call);
    makeBlocking(queue.kick);
    fill(queue.call);
    for (let round = 0; round < 100; round++) {
      submit(ram, queue, 0, Uint8Array.of(1, 2, 3));
      queue.driver.publish();
      // The kick was there, and the front-end took it back before the back-end read it.
      front.tellKick(READABLE);
      front.reactor.turn();
      assert.equal(queue.driver.complete(), DONE);
    }
    assert.deepEqual(front.problems, []);
    front.end();
  },
};

const [chosen] = process.argv.slice(2);
if (chosen !== undefined && CASES[chosen] !== undefined) {
  CASES[chosen]();
} else {
  for (const name of Object.keys(CASES)) {
    test(name, { skip }, () => {
      const { status, signal, stderr } = spawnSync(process.execPath, [import.meta.filename, name], {
        timeout: 10_000,
        killSignal: 'SIGKILL',
        encoding: 'latin1',
      });
      assert.equal(signal, null, 'it waits');
      assert.equal(status, 0, stderr);
    });
  }
}
