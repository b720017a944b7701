/** A device that lies in a split ring (VIRTIO 1.3 §2.7): each rule, and the code that names it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BROKEN, DONE, FULL, NONE, REFUSED } from '@airlock/virtio/ring/queue.ts';
import { BASE, bothEnds, type Ends, PLAIN } from './support/both-ends.ts';

const SIZE = 4;

function sent(count: number, options: { strictLength?: boolean; inOrder?: boolean } = {}): Ends {
  const ends = bothEnds(
    SIZE,
    { ...PLAIN, inOrder: options.inOrder ?? false },
    { strictLength: options.strictLength ?? false },
  );
  for (let i = 0; i < count; i++) {
    ends.driver.writable(BASE + ends.layout.data + 64 * i, 32);
    assert.equal(ends.driver.submit(100 + i), DONE);
  }
  ends.driver.publish();
  return ends;
}

/** Used elements and index, as a device would write them. */
function use(ends: Ends, index: number, ...elements: (readonly [id: number, length: number])[]): void {
  const { view } = ends.memory.region;
  const at = ends.layout.addresses.device - BASE;
  elements.forEach(([id, length], i) => {
    view.setUint32(at + 4 + 8 * i, id, true);
    view.setUint32(at + 8 + 8 * i, length, true);
  });
  view.setUint16(at + 2, index, true);
}

function assertBroken(ends: Ends, code: string): void {
  assert.equal(ends.driver.complete(), BROKEN);
  assert.equal(ends.driver.violation?.code, code);
  assert.equal(ends.driver.complete(), BROKEN, 'it stays broken');
  assert.equal(ends.driver.requestNotifications(), false, 'it gives no reason to go on asking');
  ends.driver.readable(BASE, 1);
  assert.equal(ends.driver.submit(1), BROKEN);
  ends.memory.checkGuards();
}

test('§2.7.8: a used id beyond the queue size', () => {
  for (const id of [SIZE, 60_000, 0x10000, 0xffffffff]) {
    const ends = sent(2);
    use(ends, 1, [id, 0]);
    assertBroken(ends, 'used-id-out-of-range');
  }
});

test('§2.7.8: a used id of an idle descriptor', () => {
  const ends = sent(2);
  use(ends, 1, [3, 0]);
  assertBroken(ends, 'used-id-not-in-flight');
});

test('§2.7.8: a used id that is not the head of its chain', () => {
  const ends = bothEnds(SIZE, PLAIN);
  ends.driver.readable(BASE + ends.layout.data, 1);
  ends.driver.writable(BASE + ends.layout.data, 1);
  ends.driver.submit(1);
  ends.driver.publish();
  use(ends, 1, [1, 0]);
  assertBroken(ends, 'used-id-not-in-flight');
});

test('§2.7.8: a completion that comes twice', () => {
  const ends = sent(2);
  use(ends, 2, [0, 1], [0, 1]);
  assert.equal(ends.driver.complete(), DONE);
  assertBroken(ends, 'used-id-not-in-flight');
});

test('§2.7.13: a completion of a request that was not published', () => {
  const ends = sent(1);
  ends.driver.writable(BASE + ends.layout.data, 8);
  assert.equal(ends.driver.submit(7), DONE);
  use(ends, 1, [1, 8]);
  assertBroken(ends, 'used-id-not-in-flight');
});

test('§2.7.8: a used index that jumps, goes back, or moves with nothing in flight', () => {
  for (const index of [3, SIZE + 5, 0xffff, 0x8000]) {
    const ends = sent(2);
    use(ends, index, [0, 0], [1, 0]);
    assertBroken(ends, 'used-index-jump');
  }
  const idle = sent(0);
  use(idle, 1, [0, 0]);
  assertBroken(idle, 'used-index-jump');
});

test('§2.7.8.2: a used length above the writable bytes is cut and counted', () => {
  const ends = sent(1);
  use(ends, 1, [0, 0xffffffff]);
  assert.equal(ends.driver.complete(), DONE);
  assert.deepEqual([ends.driver.token, ends.driver.written, ends.driver.clamped], [100, 32, 1]);
});

test('§2.7.8.2: or breaks the queue, when asked to be strict', () => {
  const ends = sent(1, { strictLength: true });
  use(ends, 1, [0, 33]);
  assertBroken(ends, 'used-length-exceeds-buffer');
  assert.deepEqual(ends.driver.reset(), [100], 'the request was not completed');
});

test('§2.7.8.2: nothing can be written to a request that is only read', () => {
  const ends = bothEnds(SIZE, PLAIN);
  ends.driver.readable(BASE + ends.layout.data, 512);
  ends.driver.submit(1);
  ends.driver.publish();
  use(ends, 1, [0, 512]);
  assert.equal(ends.driver.complete(), DONE);
  assert.equal(ends.driver.written, 0);
});

test('§2.7.9: IN_ORDER, an element that names a buffer further than the index', () => {
  const ends = sent(3, { inOrder: true });
  use(ends, 2, [2, 0]);
  assertBroken(ends, 'used-out-of-order');
});

test('§2.7.5.1: a descriptor table that the device rewrites changes nothing for the driver', () => {
  const ends = bothEnds(SIZE, PLAIN);
  const data = BASE + ends.layout.data;
  ends.driver.readable(data, 16);
  ends.driver.writable(data + 16, 32);
  ends.driver.submit(9);
  ends.driver.publish();
  ends.memory.region.bytes.fill(0xff, 0, 16 * SIZE);
  use(ends, 1, [0, 20]);
  assert.equal(ends.driver.complete(), DONE);
  const elements = { addresses: new Float64Array(4), lengths: new Uint32Array(4), readable: 0, count: 0 };
  assert.equal(ends.driver.elements(elements), true);
  assert.deepEqual([...elements.addresses.slice(0, 2), ...elements.lengths.slice(0, 2)], [data, data + 16, 16, 32]);
  // And the free list is not what the device wrote: all descriptors can be used again, each once.
  for (let i = 0; i < SIZE; i++) {
    ends.driver.readable(data, 1);
    assert.equal(ends.driver.submit(i), DONE);
  }
  ends.driver.readable(data, 1);
  assert.equal(ends.driver.submit(5), FULL);
});

test('an available ring and index that the device rewrites change nothing for the driver', () => {
  const ends = sent(2);
  const at = ends.layout.addresses.driver - BASE;
  ends.memory.region.bytes.fill(0xff, at, at + 6 + 2 * SIZE);
  use(ends, 2, [1, 1], [0, 2]);
  assert.deepEqual([ends.driver.complete(), ends.driver.token], [DONE, 101]);
  assert.deepEqual([ends.driver.complete(), ends.driver.token], [DONE, 100]);
  assert.equal(ends.driver.complete(), NONE);
});

test('§2.6.1: reset gives back the tokens that were open, in the order in which they were submitted', () => {
  const ends = sent(3);
  use(ends, 1, [1, 0]);
  assert.equal(ends.driver.complete(), DONE);
  ends.driver.writable(BASE + ends.layout.data, 1);
  ends.driver.submit(200);
  assert.deepEqual(ends.driver.reset(), [100, 102, 200]);
  assert.deepEqual([ends.driver.free, ends.driver.inFlight], [SIZE, 0]);
  assert.equal(ends.driver.complete(), NONE);
  assert.deepEqual(ends.driver.reset(), []);
});

test('what a caller may not ask of the driver side: coded, and the next request is clean', () => {
  const { driver, layout } = bothEnds(SIZE, PLAIN);
  const data = BASE + layout.data;
  const refused = (code: string) => {
    assert.equal(driver.submit(1), REFUSED);
    assert.equal(driver.refusal?.code, code);
  };
  refused('request-empty');
  driver.writable(data, 1);
  driver.readable(data, 1);
  refused('request-order');
  for (let i = 0; i < SIZE + 1; i++) driver.readable(data, 1);
  refused('request-too-long');
  driver.readable(data, 0xffffffff);
  driver.readable(data, 2);
  refused('request-too-long');
  for (const [address, length] of [
    [Number.NaN, 1],
    [-1, 1],
    [0.5, 1],
    [2 ** 53, 1],
    [2 ** 53 - 1, 2],
    [data, 0],
    [data, -1],
    [data, 1.5],
    [data, 2 ** 32],
    [data, Number.NaN],
  ] as const) {
    driver.readable(address, length);
    refused('request-element-invalid');
  }
  driver.readable(data, 1);
  assert.equal(driver.submit(1), DONE);
});
