import assert from 'node:assert/strict';
import { closeSync, openSync } from 'node:fs';
import { test } from 'node:test';
import { createEventFd, drainEventFd, signalEventFd } from '@airlock/transport/event-fd.ts';
import { setNonBlocking, socketPair } from '@airlock/transport/unix-socket.ts';
import { calls, missing } from './support/calls.ts';

const skip = missing;

test('signals are counted and taken once', { skip }, () => {
  const made = createEventFd(calls);
  assert.ok(made.ok);
  assert.equal(drainEventFd(calls, made.value), 0);
  assert.ok(signalEventFd(calls, made.value));
  assert.ok(signalEventFd(calls, made.value));
  assert.equal(drainEventFd(calls, made.value), 2);
  assert.equal(drainEventFd(calls, made.value), 0);
  calls.close(made.value);
  assert.equal(signalEventFd(calls, made.value), false);
  assert.equal(drainEventFd(calls, made.value), -1);
});

test('a counter that is full is signalled already, and nobody waits for it', { skip }, () => {
  const made = createEventFd(calls);
  assert.ok(made.ok);
  const memory = calls.allocate(8);
  memory.view.setBigUint64(0, 0xffff_ffff_ffff_fffen, true);
  assert.equal(calls.write(made.value, memory.address, 8), 8);
  assert.ok(signalEventFd(calls, made.value));
  assert.ok(drainEventFd(calls, made.value) > 2 ** 53);
  calls.close(made.value);
});

test('what a peer passes instead does not hold us: an empty file, a full socket, a closed one', { skip }, () => {
  const empty = openSync('/dev/null', 'r+');
  assert.equal(drainEventFd(calls, empty), -1);
  closeSync(empty);
  const pair = socketPair(calls);
  assert.ok(pair.ok);
  const [ours, theirs] = pair.value;
  assert.ok(setNonBlocking(calls, ours).ok);
  assert.equal(drainEventFd(calls, ours), 0);
  // Each is 8 bytes into a buffer that nobody empties.
  for (let i = 0; i < 100_000; i++) assert.ok(signalEventFd(calls, ours));
  calls.close(theirs);
  assert.equal(signalEventFd(calls, ours), false);
  assert.equal(drainEventFd(calls, ours), -1);
  calls.close(ours);
});
