import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fakeReactor } from '@airlock/transport/fake-reactor.ts';
import { HANGUP, READABLE, WRITABLE } from '@airlock/transport/reactor.ts';

test('readiness comes when the test says so, to who asked for it', () => {
  const reactor = fakeReactor();
  const told: number[] = [];
  const watch = reactor.watch(5, READABLE, (events) => told.push(events));
  assert.equal(reactor.makeReady(5, WRITABLE), false);
  assert.equal(reactor.makeReady(6, READABLE), false);
  assert.ok(reactor.makeReady(5, READABLE | WRITABLE));
  watch.setEvents(0);
  assert.equal(reactor.watchedEvents(5), 0);
  assert.equal(reactor.makeReady(5, READABLE), false);
  assert.ok(reactor.makeReady(5, READABLE | HANGUP));
  watch.close();
  assert.equal(reactor.watchedEvents(5), undefined);
  assert.equal(reactor.makeReady(5, HANGUP), false);
  assert.deepEqual(told, [READABLE, HANGUP]);
});

test('time moves by hand, each timer sees its own time', () => {
  const reactor = fakeReactor();
  const seen: [string, number][] = [];
  reactor.after(10, () => {
    seen.push(['ten', reactor.now()]);
    reactor.after(5, () => seen.push(['fifteen', reactor.now()]));
  });
  reactor.after(20, () => seen.push(['twenty', reactor.now()]));
  const takeBack = reactor.after(12, () => seen.push(['never', 0]));
  takeBack();
  reactor.advance(16);
  assert.deepEqual(seen, [
    ['ten', 10],
    ['fifteen', 15],
  ]);
  assert.equal(reactor.nextTimer, 4);
  reactor.advance(100);
  assert.equal(seen.length, 3);
  assert.equal(reactor.now(), 116);
});

test('pollers run until none has work; run ends by stop, or says that it is stuck', () => {
  const reactor = fakeReactor();
  let work = 3;
  const remove = reactor.addPoller({ poll: () => work-- > 0, prepareToSleep: () => work > 0 });
  assert.equal(reactor.turn(), 3);
  assert.ok(reactor.trySleep());
  reactor.after(50, () => reactor.stop());
  assert.ok(reactor.run().ok);
  assert.equal(reactor.now(), 50);
  remove();
  const stuck = reactor.run();
  assert.equal(stuck.ok ? 'ran' : stuck.error.code, 'reactor-stuck');
});
