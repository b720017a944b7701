/** A device that lies in a packed ring (VIRTIO 1.3 §2.8): each rule, and the code that names it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BROKEN, DONE, NONE } from '@airlock/virtio/ring/queue.ts';
import { BASE, bothEnds, type Ends, PACKED } from './support/both-ends.ts';

const SIZE = 5;

function sent(count: number, options: { strictLength?: boolean } = {}): Ends {
  const ends = bothEnds(SIZE, PACKED, { strictLength: options.strictLength ?? false });
  for (let i = 0; i < count; i++) {
    ends.driver.writable(BASE + ends.layout.data + 64 * i, 32);
    assert.equal(ends.driver.submit(100 + i), DONE);
  }
  ends.driver.publish();
  return ends;
}

function idAt(ends: Ends, place: number): number {
  return ends.memory.region.view.getUint16(16 * place + 12, true);
}

function use(ends: Ends, place: number, id: number, length: number, flags = 0x8082): void {
  const { view } = ends.memory.region;
  view.setUint32(16 * place + 8, length, true);
  view.setUint16(16 * place + 12, id, true);
  view.setUint16(16 * place + 14, flags, true);
}

function assertBroken(ends: Ends, code: string): void {
  assert.equal(ends.driver.complete(), BROKEN);
  assert.equal(ends.driver.violation?.code, code);
  assert.equal(ends.driver.complete(), BROKEN, 'it stays broken');
  assert.equal(ends.driver.requestNotifications(), false);
  ends.memory.checkGuards();
}

test('§2.8.22: a buffer id beyond the queue size', () => {
  for (const id of [SIZE, 7, 8, 0xffff]) {
    const ends = sent(2);
    use(ends, 0, id, 1);
    assertBroken(ends, 'used-id-out-of-range');
  }
});

test('§2.8.22: a buffer id that is idle, completed before, or not yet published', () => {
  const idle = sent(2);
  const taken = [idAt(idle, 0), idAt(idle, 1)];
  use(idle, 0, [0, 1, 2, 3, 4].find((id) => !taken.includes(id)) ?? 0, 1);
  assertBroken(idle, 'used-id-not-in-flight');

  const twice = sent(2);
  const first = idAt(twice, 0);
  use(twice, 0, first, 1);
  use(twice, 1, first, 1);
  assert.equal(twice.driver.complete(), DONE);
  assertBroken(twice, 'used-id-not-in-flight');

  const early = sent(1);
  early.driver.writable(BASE + early.layout.data, 8);
  early.driver.submit(9);
  use(early, 0, idAt(early, 1), 1);
  assertBroken(early, 'used-id-not-in-flight');
});

test('§2.8.1: flags of the wrong round, or of an available descriptor, are no completion', () => {
  for (const flags of [0, 2, 0x80, 0x82, 0x8000]) {
    const ends = sent(2);
    use(ends, 0, 0, 1, flags);
    assert.equal(ends.driver.complete(), NONE);
    assert.equal(ends.driver.violation, null);
  }
});

test('with nothing in flight nothing is completed, whatever the ring says', () => {
  const ends = sent(0);
  for (let place = 0; place < SIZE; place++) use(ends, place, place, 1);
  assert.equal(ends.driver.complete(), NONE);
  assert.equal(ends.driver.requestNotifications(), false);
});

test('§2.8.4: a length above the writable bytes is cut and counted, or breaks the queue', () => {
  const lenient = sent(1);
  use(lenient, 0, idAt(lenient, 0), 0xffffffff);
  assert.equal(lenient.driver.complete(), DONE);
  assert.deepEqual([lenient.driver.token, lenient.driver.written, lenient.driver.clamped], [100, 32, 1]);
  const strict = sent(1, { strictLength: true });
  use(strict, 0, idAt(strict, 0), 33);
  assertBroken(strict, 'used-length-exceeds-buffer');
});

test('§2.8.4: a length without the WRITE flag counts, as QEMU writes it', () => {
  const ends = sent(1);
  use(ends, 0, idAt(ends, 0), 12, 0x8080);
  assert.equal(ends.driver.complete(), DONE);
  assert.equal(ends.driver.written, 12);
});

test('a whole ring rewritten by the device leaks nothing: every place and id comes back', () => {
  const ends = sent(SIZE);
  const ids = Array.from({ length: SIZE }, (_, place) => idAt(ends, place));
  ends.memory.region.bytes.fill(0xff, 0, 16 * SIZE);
  ids.reverse().forEach((id, place) => {
    use(ends, place, id, place);
  });
  const tokens: number[] = [];
  while (ends.driver.complete() === DONE) tokens.push(ends.driver.token);
  assert.deepEqual(tokens, [104, 103, 102, 101, 100]);
  assert.deepEqual([ends.driver.free, ends.driver.inFlight, ends.driver.violation], [SIZE, 0, null]);
  for (let i = 0; i < SIZE; i++) {
    ends.driver.readable(BASE + ends.layout.data, 1);
    assert.equal(ends.driver.submit(i), DONE);
  }
  assert.deepEqual(ends.driver.reset(), [0, 1, 2, 3, 4]);
});
