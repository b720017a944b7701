/** Who is told when: VIRTIO 1.3 §2.7.7, §2.7.10, §2.8.10, §2.9. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeNotification, encodeNotification } from '@airlock/virtio/notification.ts';
import { Chain } from '@airlock/virtio/ring/chain.ts';
import { DONE, NONE, passedEvent } from '@airlock/virtio/ring/queue.ts';
import { passedDescriptor } from '@airlock/virtio/ring/suppression.ts';
import {
  allFeatures,
  BASE,
  bothEnds,
  describeFeatures,
  type Ends,
  PACKED,
  PLAIN,
  random,
} from './support/both-ends.ts';

function send(ends: Ends, count = 1): void {
  for (let i = 0; i < count; i++) {
    ends.driver.writable(BASE + ends.layout.data, 8);
    assert.equal(ends.driver.submit(i), DONE);
  }
  ends.driver.publish();
}

function serve(ends: Ends, count = 1): void {
  const chain = new Chain(64);
  for (let i = 0; i < count; i++) {
    assert.equal(ends.device.take(chain), DONE);
    ends.device.give(chain.id, 8);
  }
  ends.device.publish();
}

test('vring_need_event: passed exactly when the event lies in [old, now), across the wrap', () => {
  for (const old of [0, 1, 0x7fff, 0xfffe, 0xffff]) {
    for (let moved = 0; moved < 6; moved++) {
      const now = (old + moved) & 0xffff;
      for (let ahead = -3; ahead < 9; ahead++) {
        const event = (old + ahead) & 0xffff;
        assert.equal(passedEvent(event, now, old), ahead >= 0 && ahead < moved, `${event} ${old} ${now}`);
      }
    }
  }
});

test('§2.8.10: a place and wrap counter is passed exactly when it is among those moved over', () => {
  for (const size of [1, 3, 4, 8]) {
    // Absolute positions: place = position mod size, wrap 1 in even rounds.
    for (let position = size; position < 4 * size; position++) {
      for (let moved = 0; moved <= size; moved++) {
        for (let event = position - size; event < position + size; event++) {
          const wrapOf = (at: number) => (Math.floor(at / size) % 2 === 0 ? 1 : 0);
          const encoded = (wrapOf(event) << 15) | (event % size);
          assert.equal(
            passedDescriptor(encoded, position % size, wrapOf(position), moved, size),
            event >= position - moved && event < position,
            `size ${size}, at ${position}, moved ${moved}, event ${event}`,
          );
        }
      }
    }
  }
});

for (const features of allFeatures()) {
  const name = describeFeatures(features);
  test(`${name}: after a queue is made each side notifies the other`, () => {
    const ends = bothEnds(8, features);
    send(ends);
    assert.equal(ends.driver.shouldNotify(), true);
    assert.equal(ends.driver.shouldNotify(), false, 'nothing new was published');
    serve(ends);
    assert.equal(ends.device.shouldNotify(), true);
    assert.equal(ends.device.shouldNotify(), false);
  });

  test(`${name}: a suppressed notification is not sent, a requested one is`, () => {
    const ends = bothEnds(8, features);
    ends.device.suppressNotifications();
    ends.driver.suppressNotifications();
    send(ends, 2);
    assert.equal(ends.driver.shouldNotify(), false);
    serve(ends, 2);
    assert.equal(ends.device.shouldNotify(), false);
    assert.equal(ends.driver.complete(), DONE);
    assert.equal(ends.driver.requestNotifications(), true, 'one completion was not taken yet');
    assert.equal(ends.driver.complete(), DONE);
    assert.equal(ends.driver.complete(), NONE);
    assert.equal(ends.driver.requestNotifications(), false);
    assert.equal(ends.device.requestNotifications(), false);
    send(ends);
    assert.equal(ends.driver.shouldNotify(), true);
    assert.equal(ends.device.requestNotifications(), true, 'a chain is there');
    serve(ends);
    assert.equal(ends.device.shouldNotify(), true);
  });

  test(`${name}: no wake-up is lost, whatever the interleaving`, () => {
    const next = random(99);
    const ends = bothEnds(4, features);
    const chain = new Chain(64);
    let driverSleeps = false;
    let deviceSleeps = false;
    let kicked = true;
    let called = true;
    let open = 0;
    for (let step = 0; step < 20_000; step++) {
      if (next(2) === 0) {
        if (driverSleeps && !called) continue;
        driverSleeps = false;
        called = false;
        if (next(4) === 0) ends.driver.suppressNotifications();
        while (ends.driver.complete() === DONE) open--;
        for (let n = next(3); n > 0 && ends.driver.free > 0; n--) {
          ends.driver.writable(BASE + ends.layout.data, 8);
          assert.equal(ends.driver.submit(step), DONE);
          open++;
        }
        ends.driver.publish();
        if (ends.driver.shouldNotify()) kicked = true;
        // A driver with nothing open has no reason to sleep.
        if (open > 0 && !ends.driver.requestNotifications(features.eventIndex ? 1 + next(3) : 1)) driverSleeps = true;
      } else {
        if (deviceSleeps && !kicked) continue;
        deviceSleeps = false;
        kicked = false;
        if (next(4) === 0) ends.device.suppressNotifications();
        for (let n = next(4); n > 0 && ends.device.take(chain) === DONE; n--) ends.device.give(chain.id, 8);
        ends.device.publish();
        if (ends.device.shouldNotify()) called = true;
        if (!ends.device.requestNotifications()) deviceSleeps = true;
      }
      const stuck: boolean = driverSleeps && !called && deviceSleeps && !kicked;
      assert.equal(stuck, false, `both sleep at step ${step} with ${open} open`);
    }
  });
}

test('§2.7.7.1, §2.7.10.2: with EVENT_IDX the flags stay 0', () => {
  const ends = bothEnds(8, { ...PLAIN, eventIndex: true });
  ends.driver.suppressNotifications();
  ends.device.suppressNotifications();
  const { view } = ends.memory.region;
  assert.equal(view.getUint16(ends.layout.addresses.driver - BASE, true), 0);
  assert.equal(view.getUint16(ends.layout.addresses.device - BASE, true), 0);
});

test('§2.8.14: event suppression as bytes, off and wrap in the lower half, flags in the upper', () => {
  const ends = bothEnds(8, { ...PACKED, eventIndex: true });
  const { view } = ends.memory.region;
  const at = ends.layout.addresses.device - BASE;
  send(ends, 3);
  serve(ends, 3);
  ends.device.requestNotifications();
  assert.equal(view.getUint16(at, true), 0x8003);
  assert.equal(view.getUint16(at + 2, true), 2);
  ends.device.suppressNotifications();
  assert.equal(view.getUint16(at + 2, true), 1);
});

test('§2.8.10: DESC without EVENT_IDX, and the reserved value 3, count as wanting every notification', () => {
  for (const flags of [2, 3]) {
    const ends = bothEnds(8, PACKED);
    ends.memory.region.view.setUint32(ends.layout.addresses.device - BASE, (flags << 16) | 0x7fff, true);
    send(ends);
    assert.equal(ends.driver.shouldNotify(), true);
  }
});

test('§2.9: NOTIFICATION_DATA holds the queue, the next place and its wrap', () => {
  const split = bothEnds(8, PLAIN);
  send(split, 3);
  assert.equal(encodeNotification(5, split.driver.notificationOffset()), 0x0003_0005);
  const packed = bothEnds(8, PACKED);
  assert.equal(encodeNotification(1, packed.driver.notificationOffset()), 0x8000_0001);
  send(packed, 5);
  assert.deepEqual(decodeNotification(encodeNotification(2, packed.driver.notificationOffset())), {
    queue: 2,
    nextOffset: 5,
    nextWrap: true,
  });
  serve(packed, 5);
  while (packed.driver.complete() === DONE);
  send(packed, 5);
  assert.deepEqual(decodeNotification(encodeNotification(2, packed.driver.notificationOffset())), {
    queue: 2,
    nextOffset: 2,
    nextWrap: false,
  });
});
