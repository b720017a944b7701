import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Chain } from '@airlock/virtio/ring/chain.ts';
import { DONE, FULL, NONE } from '@airlock/virtio/ring/queue.ts';
import { allFeatures, BASE, bothEnds, describeFeatures, random } from './support/both-ends.ts';

/** A request of the model: bytes to the device, room for an answer. */
interface Sent {
  readonly elements: { readonly at: number; readonly length: number; readonly writable: boolean }[];
  readonly question: Uint8Array;
  readonly room: number;
  answer: Uint8Array | null;
}

/** The answer that the model's device gives: made of the question, of a length that the question chooses. */
function answerTo(question: Uint8Array, room: number): Uint8Array {
  const first = question[0] ?? 7;
  const length = first % 5 === 0 ? Math.floor(room / 2) : room;
  return Uint8Array.from({ length }, (_, i) => ((question[i % Math.max(1, question.length)] ?? 3) ^ (i * 31)) & 0xff);
}

function run(
  size: number,
  features: ReturnType<typeof allFeatures>[number],
  seed: number,
  requests: number,
  thorough = true,
): void {
  const next = random(seed);
  const ends = bothEnds(size, features, { memory: 1 << 20 });
  const { driver, device, memory, layout } = ends;
  const ram = memory.region.bytes;
  const slots = size;
  const slotSize = 4096;
  const freeSlots = Array.from({ length: slots }, (_, i) => layout.data + i * slotSize);
  assert.ok(layout.data + slots * slotSize <= ram.length);
  const sent = new Map<number, { one: Sent; slot: number }>();
  const chains = Array.from({ length: size }, () => new Chain(size));
  const idle = [...chains];
  const working: Chain[] = [];
  let token = 0;
  let completed = 0;
  for (let turn = 0; completed < requests; turn++) {
    assert.ok(turn < requests * 60, 'no progress');
    const what = next(4);
    if (what === 0 && token < requests) {
      for (let n = next(4) + 1; n > 0 && token < requests; n--) {
        const slot = freeSlots.pop();
        if (slot === undefined) break;
        const readable = next(4);
        const writable = readable === 0 ? 1 + next(3) : next(4);
        const elements: Sent['elements'] = [];
        let at = slot;
        for (let i = 0; i < readable + writable; i++) {
          const length = 1 + next(i % 2 === 0 ? 40 : 500);
          elements.push({ at, length, writable: i >= readable });
          at += length;
        }
        const question = Uint8Array.from(
          { length: elements.filter((e) => !e.writable).reduce((sum, e) => sum + e.length, 0) },
          () => next(256),
        );
        let done = 0;
        for (const { at: where, length, writable: w } of elements) {
          if (w) driver.writable(BASE + where, length);
          else {
            ram.set(question.subarray(done, done + length), where);
            done += length;
            driver.readable(BASE + where, length);
          }
        }
        const room = elements.filter((e) => e.writable).reduce((sum, e) => sum + e.length, 0);
        const outcome = driver.submit(token);
        if (outcome === FULL) {
          freeSlots.push(slot);
          break;
        }
        assert.equal(outcome, DONE, driver.refusal?.message);
        sent.set(token, { one: { elements, question, room, answer: null }, slot });
        token++;
      }
      driver.publish();
      driver.shouldNotify();
    } else if (what === 1) {
      const chain = idle.pop();
      if (chain === undefined) continue;
      const outcome = device.take(chain);
      assert.ok(outcome === DONE || outcome === NONE, device.violation?.message ?? device.refusal?.message);
      if (outcome === DONE) working.push(chain);
      else idle.push(chain);
    } else if (what === 2) {
      for (let n = next(3) + 1; n > 0 && working.length > 0; n--) {
        const [chain] = working.splice(next(working.length), 1);
        assert.ok(chain);
        const question = new Uint8Array(chain.readableBytes);
        assert.equal(chain.read(0, question), question.length);
        const answer = answerTo(question, chain.writableBytes);
        assert.equal(chain.write(0, answer), answer.length);
        assert.equal(device.give(chain.id, answer.length), true);
        assert.equal(device.give(chain.id, answer.length), false, 'a chain can be given back once');
        idle.push(chain);
      }
      if (next(3) > 0) device.publish();
      device.shouldNotify();
    } else {
      device.publish();
      for (;;) {
        const outcome = driver.complete();
        if (outcome === NONE) break;
        assert.equal(outcome, DONE, driver.violation?.message);
        const entry = sent.get(driver.token);
        assert.ok(entry, `token ${driver.token} completes once`);
        sent.delete(driver.token);
        const { one, slot } = entry;
        const expected = answerTo(one.question, one.room);
        assert.equal(driver.written, expected.length);
        freeSlots.push(slot);
        completed++;
        if (!thorough) continue;
        const elements = { addresses: new Float64Array(size), lengths: new Uint32Array(size), readable: 0, count: 0 };
        assert.equal(driver.elements(elements), true);
        assert.deepEqual(
          one.elements.map(({ at, length }) => [at + BASE, length]),
          Array.from({ length: elements.count }, (_, i) => [elements.addresses[i], elements.lengths[i]]),
        );
        assert.equal(elements.readable, one.elements.filter((e) => !e.writable).length);
        const got: number[] = [];
        for (const { at, length, writable } of one.elements) {
          if (writable) got.push(...ram.subarray(at, at + length));
        }
        assert.deepEqual(Uint8Array.from(got.slice(0, expected.length)), expected);
      }
    }
  }
  assert.equal(sent.size, 0);
  assert.equal(driver.inFlight, 0);
  assert.equal(device.inFlight, 0);
  assert.equal(driver.free, size);
  memory.checkGuards();
}

for (const features of allFeatures()) {
  const sizes = features.packed ? [7, 8, 12, 64] : [8, 64];
  for (const size of sizes) {
    test(`${describeFeatures(features)}, queue size ${size}: right bytes, once each, in any order`, () => {
      for (let seed = 1; seed <= 2; seed++) run(size, features, seed * 7919 + size, 600);
    });
  }
}

test('split: indices wrap at 65536', () => {
  run(64, { packed: false, indirect: false, eventIndex: true, inOrder: false }, 5, 70_000, false);
});
