/**
 * vhost-user "Inflight I/O tracking": the back-end ends at any store into the record, the next one takes it up, and the
 * driver sees every request completed exactly once. The driver's own queue is the judge: a completion too many breaks it.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ok } from '@airlock/core/result.ts';
import { inflightArea, inflightPart } from '@airlock/transport/vhost-user/inflight-area.ts';
import { Vring } from '@airlock/transport/vhost-user/vring.ts';
import { type MadeQueue, makeQueue } from '@airlock/transport/vhost-user/vring-queue.ts';
import { featureSet } from '@airlock/virtio/features.ts';
import { makeRegion } from '@airlock/virtio/memory/region.ts';
import { AddressSpace } from '@airlock/virtio/memory/space.ts';
import { Chain } from '@airlock/virtio/ring/chain.ts';
import { createDriverQueue, ringFeatures } from '@airlock/virtio/ring/create.ts';
import { DONE, type DriverQueue, FULL, MALFORMED } from '@airlock/virtio/ring/queue.ts';
import { must, systemCalls } from './support/scripted-front-end.ts';

const SIZE = 8;
const BASE = 0x4000;

/** A process that ends in the middle of what it does. */
class Killed extends Error {}

/** A view that ends the process at the store that it is told. */
class MortalView extends DataView<ArrayBufferLike> {
  stores = 0;
  lastStore = Number.POSITIVE_INFINITY;

  private store(): void {
    if (this.stores++ >= this.lastStore) throw new Killed();
  }

  override setUint8(at: number, value: number): void {
    this.store();
    super.setUint8(at, value);
  }

  override setUint16(at: number, value: number, little?: boolean): void {
    this.store();
    super.setUint16(at, value, little);
  }

  override setUint32(at: number, value: number, little?: boolean): void {
    this.store();
    super.setUint32(at, value, little);
  }
}

interface World {
  readonly driver: DriverQueue;
  readonly view: MortalView;
  /** A new back-end, as after a restart. */
  readonly live: () => MadeQueue;
  readonly next: () => number;
  readonly open: Set<number>;
  token: number;
}

function world(bits: readonly number[], seed: number): World {
  const features = featureSet([32, ...bits]);
  const flags = ringFeatures(features);
  const memory = new ArrayBuffer(65536);
  const region = must(makeRegion('ram', memory));
  const space = new AddressSpace();
  must(space.map({ start: BASE, size: memory.byteLength, region, offset: 0, access: 3 }));
  const addresses = { descriptors: BASE, driver: BASE + 1024, device: BASE + 2048 };
  const indirect = { address: BASE + 4096, limit: 4 };
  const driver = must(createDriverQueue(space, { size: SIZE, features: flags, addresses, indirect }));
  const area = must(inflightArea(1, SIZE));
  const record = must(makeRegion('inflight', new ArrayBuffer(area.size)));
  const view = new MortalView(record.bytes.buffer);
  const around = {
    rings: space,
    buffers: space,
    features,
    chainLimit: 8,
    inflight: (size: number, packed: boolean) => {
      const part = must(inflightPart(record, area, 0, size, packed));
      return ok({ view, base: part.base });
    },
  };
  let state = seed >>> 0 || 1;
  const next = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  return {
    driver,
    view,
    next,
    open: new Set(),
    token: 0,
    live() {
      const vring = new Vring(systemCalls, 0);
      vring.size = SIZE;
      vring.addresses = addresses;
      vring.base = flags.packed ? 0x80008000 : 0;
      return must(makeQueue(vring, around));
    },
  };
}

function submitSome(all: World, count: number): void {
  for (let i = 0; i < count; i++) {
    const parts = 1 + (all.next() % 3);
    for (let part = 0; part < parts; part++) all.driver.readable(BASE + 16384 + 64 * part, 16 + part);
    // Every fifth request points where nothing is: the device gives it back by itself.
    const address = all.next() % 5 === 0 ? 0x7000_0000 : BASE + 32768;
    all.driver.writable(address, 32);
    const outcome = all.driver.submit(all.token);
    if (outcome === FULL) break;
    assert.equal(outcome, DONE);
    all.open.add(all.token++);
  }
  all.driver.publish();
}

function completeAll(all: World): void {
  for (;;) {
    const outcome = all.driver.complete();
    if (outcome !== DONE) {
      assert.equal(all.driver.violation, null, JSON.stringify(all.driver.violation));
      return;
    }
    assert.ok(all.open.delete(all.driver.token), `request ${all.driver.token} completed twice`);
  }
}

/** One life: takes, keeps some, gives some back in any order, shows them; ends where the view says. */
function liveOnce(all: World, rounds: number): void {
  try {
    const { queue } = all.live();
    const held: Chain[] = [];
    for (let round = 0; round < rounds; round++) {
      submitSome(all, 1 + (all.next() % 4));
      for (let i = all.next() % 6; i > 0; i--) {
        const chain = new Chain(16);
        const outcome = queue.take(chain);
        if (outcome === DONE) held.push(chain);
        else if (outcome !== MALFORMED) break;
      }
      for (let i = all.next() % 5; i > 0 && held.length > 0; i--) {
        const [chain] = held.splice(all.next() % held.length, 1);
        if (chain !== undefined) assert.ok(queue.give(chain.id, chain.writableBytes === 0 ? 0 : all.next() % 33));
      }
      queue.publish();
      completeAll(all);
    }
  } catch (error) {
    if (!(error instanceof Killed)) throw error;
  }
}

/** A life that does everything that is left. */
function finish(all: World): void {
  all.view.lastStore = Number.POSITIVE_INFINITY;
  const { queue } = all.live();
  for (let round = 0; round < 100 && all.open.size > 0; round++) {
    const chain = new Chain(16);
    for (;;) {
      const outcome = queue.take(chain);
      if (outcome === DONE) assert.ok(queue.give(chain.id, 0));
      else if (outcome !== MALFORMED) break;
    }
    queue.publish();
    completeAll(all);
  }
  assert.equal(queue.violation, null, JSON.stringify(queue.violation));
  assert.deepEqual([...all.open], [], 'requests were lost');
  assert.equal(all.driver.inFlight, 0);
}

const KINDS = [
  ['split', []],
  ['split, indirect', [28]],
  ['split, in order', [28, 35]],
  ['packed', [34]],
  ['packed, indirect', [34, 28]],
  ['packed, in order', [34, 28, 35]],
] as const;

for (const [name, bits] of KINDS) {
  test(`the end at any store loses nothing and repeats nothing (${name})`, () => {
    let lives = 0;
    for (let seed = 1; seed <= 6; seed++) {
      for (let at = 0; at < 220; at++) {
        const all = world(bits, seed * 7919 + at);
        // Three ends: at the chosen store, soon after the start of the next life, and somewhere in the one after.
        for (const last of [at, seed * 2, 30 + ((at * seed) % 90)]) {
          all.view.lastStore = all.view.stores + last;
          liveOnce(all, 40);
          completeAll(all);
          lives++;
        }
        finish(all);
      }
    }
    assert.equal(lives, 6 * 220 * 3);
  });
}
