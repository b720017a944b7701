/** Whatever a client sends, it gets an error or loses its connection; the server and the next client go on. */
import assert from 'node:assert/strict';
import { closeSync, openSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { createEventFd, drainEventFd } from '../src/event-fd.ts';
import { createSharedMemory } from '../src/shared-memory.ts';
import { MFD_CLOEXEC } from '../src/sys/memory.ts';
import { must, openBench, version, words } from './support/vfio-client.ts';

const VERSION = 1;
const DMA_MAP = 2;
const DMA_UNMAP = 3;
const GET_INFO = 4;
const GET_REGION = 5;
const GET_IRQ = 7;
const SET_IRQS = 8;
const READ = 9;
const WRITE = 10;
const DMA_READ = 11;
const RESET = 13;
const ERROR_REPLY = 0x21;

const openFds = () => readdirSync('/proc/self/fd').length;

test('nothing but VERSION may come first, and VERSION only once', async (t) => {
  const bench = await openBench(t);
  for (const command of [DMA_MAP, DMA_UNMAP, GET_INFO, GET_REGION, GET_IRQ, SET_IRQS, READ, WRITE, RESET, 0, 99]) {
    const client = bench.connect();
    assert.equal(client.ask(command, new Uint8Array(0))?.flags, ERROR_REPLY, `${command}`);
    assert.ok(client.ended());
    client.close();
  }
  assert.ok(!bench.served.log.includes('attach'));
  const client = bench.connect();
  client.greet();
  assert.equal(client.ask(VERSION, version())?.flags, ERROR_REPLY);
  assert.ok(client.ended());
  assert.deepEqual(bench.served.log, ['attach', 'detach']);
});

test('a version message that is malformed, or of another major version, is refused', async (t) => {
  const bench = await openBench(t);
  for (const body of [
    new Uint8Array(0),
    version(1),
    version(0, 0, '{'),
    version(0, 0, '{"capabilities":[]}\0'),
    version(0, 0, '{}'),
    version(0, 0, '3\0'),
  ]) {
    const client = bench.connect();
    assert.equal(client.ask(VERSION, body)?.flags, ERROR_REPLY);
    assert.ok(client.ended());
    client.close();
  }
  const short = bench.connect();
  const reply = short.ask(VERSION, version(0, 0, ''));
  assert.equal(reply?.flags, 1);
  assert.ok((reply?.body.length ?? 99) <= 4, 'a reply is never longer than the request');
});

test('bodies of every wrong size end the connection with an error reply', async (t) => {
  const bench = await openBench(t);
  const right: Readonly<Record<number, number>> = {
    [DMA_MAP]: 32,
    [DMA_UNMAP]: 24,
    [GET_INFO]: 16,
    [GET_REGION]: 32,
    [GET_IRQ]: 16,
    [SET_IRQS]: 20,
    [READ]: 16,
    [WRITE]: 16,
    [RESET]: 0,
  };
  for (const [command, size] of Object.entries(right)) {
    for (const wrong of [0, size - 1, size + 1, 200].filter((each) => each >= 0 && each !== size)) {
      const client = bench.connect();
      client.greet();
      assert.equal(client.ask(Number(command), new Uint8Array(wrong))?.flags, ERROR_REPLY, `${command}: ${wrong}`);
      assert.ok(client.ended(), `${command}: ${wrong}`);
      client.close();
      bench.turn();
    }
  }
});

test('lengths and flags of the header that no message has end the connection', async (t) => {
  const bench = await openBench(t);
  for (const more of [
    { size: 0 },
    { size: 15 },
    { size: 0x7fffffff },
    { size: 0xffffffff },
    { flags: 2 },
    { flags: 0x40 },
    { flags: 0xffffffff },
  ]) {
    const client = bench.connect();
    client.greet();
    client.say(client.message(GET_INFO, words(16, 0, 0, 0), more));
    assert.ok(client.ended(), JSON.stringify(more));
    client.close();
    bench.turn();
  }
  assert.ok(bench.endings().every((code) => code === 'vfio-user-header-invalid'));
});

test('a client that goes away within a message leaves nothing', async (t) => {
  const bench = await openBench(t);
  for (const count of [1, 15, 16, 20]) {
    const client = bench.connect();
    client.greet();
    client.say(client.message(GET_INFO, words(16, 0, 0, 0)).subarray(0, count));
    client.close();
    bench.turn();
  }
  assert.deepEqual(
    bench.endings(),
    Array.from({ length: 4 }, () => 'vfio-user-cut-off'),
  );
  assert.equal(bench.served.log.filter((line) => line === 'detach').length, 4);
});

test('accesses beyond a region, or to one that is not there, are refused and the connection lives', async (t) => {
  const bench = await openBench(t);
  const client = bench.connect();
  client.greet();
  for (const [region, offset, high, count] of [
    [0, 4095, 0, 2],
    [0, 4096, 0, 1],
    [1, 0, 0, 1],
    [9, 0, 0, 4],
    [0xffffffff, 0, 0, 4],
    [7, 0xfffffffc, 0, 8],
  ] as const) {
    assert.equal(client.ask(READ, words(offset, high, region, count))?.flags, ERROR_REPLY, `${region} ${offset}`);
  }
  const fine = client.ask(READ, words(4092, 0, 0, 4));
  assert.deepEqual([...(fine?.body.subarray(16) ?? [])], [1, 1, 1, 1]);
  assert.equal(client.ask(READ, words(0, 0xffffffff, 0, 4))?.flags, ERROR_REPLY);
  assert.ok(client.ended(), 'an offset beyond 2^52 is no offset');
});

test('a count that is not that of the data is refused', async (t) => {
  const bench = await openBench(t);
  for (const count of [0, 3, 5, 0xffffffff]) {
    const client = bench.connect();
    client.greet();
    assert.equal(client.ask(WRITE, words(0, 0, 0, count, 0x12345678))?.flags, ERROR_REPLY);
    assert.ok(client.ended());
    client.close();
    bench.turn();
  }
  assert.ok(!bench.served.log.some((line) => line.startsWith('write')));
});

test('descriptors that belong to no message are closed, and end the connection', async (t) => {
  const bench = await openBench(t);
  const eventfd = must(createEventFd(bench.calls));
  const before = openFds();
  const map = words(32, 3, 0, 0, 0, 0, 4096, 0);
  for (const [command, body, count] of [
    [GET_INFO, words(16, 0, 0, 0), 1],
    [DMA_MAP, map, 2],
    [READ, words(0, 0, 0, 4), 1],
    [SET_IRQS, words(20, 0x24, 2, 0, 2), 3],
    [SET_IRQS, words(20, 0x24, 2, 0, 2), 1],
    [SET_IRQS, words(20, 0x21, 2, 0, 1), 1],
  ] as const) {
    const client = bench.connect();
    client.greet();
    assert.equal(
      client.ask(
        command,
        body,
        Array.from({ length: count }, () => eventfd),
      )?.flags,
      ERROR_REPLY,
    );
    assert.ok(client.ended());
    client.close();
    bench.turn();
  }
  assert.equal(openFds(), before);
  bench.calls.close(eventfd);
});

test('memory is mapped only when its owner cannot shrink it, and only within its file', async (t) => {
  const bench = await openBench(t);
  const before = openFds();
  const client = bench.connect();
  client.greet();
  const loose = bench.calls.memfdCreate('loose', MFD_CLOEXEC);
  bench.calls.ftruncate(loose, 65536);
  const file = openSync('/dev/null', 'r');
  const sealed = must(createSharedMemory(bench.calls, 'ram', 65536)).fd;
  const map = (address: number, size: number, offset: number, fd: number[]) =>
    client.ask(DMA_MAP, words(32, 3, offset, 0, address, 0, size, 0), fd);
  assert.equal(map(0, 65536, 0, [loose])?.flags, ERROR_REPLY, 'not sealed');
  assert.equal(map(0, 4096, 0, [file])?.flags, ERROR_REPLY, 'no memfd');
  assert.equal(map(0, 65537, 0, [sealed])?.flags, ERROR_REPLY, 'longer than the file');
  assert.equal(map(0, 4096, 65536, [sealed])?.flags, ERROR_REPLY, 'behind the file');
  assert.equal(map(0, 65536, 0, [sealed])?.flags, 1);
  assert.equal(map(4096, 4096, 0, [sealed])?.flags, ERROR_REPLY, 'overlaps');
  assert.equal(map(0, 65536, 0, [sealed])?.flags, ERROR_REPLY, 'again');
  assert.equal(bench.served.link?.memory.translate(100, 3), 65436);
  assert.equal(client.ask(DMA_UNMAP, words(24, 0, 0, 0, 4096, 0))?.flags, ERROR_REPLY, 'a part of a range');
  assert.equal(client.ask(DMA_UNMAP, words(24, 0, 0, 0, 65536, 0))?.flags, 1);
  assert.ok((bench.served.link?.memory.translate(100, 3) ?? 1) < 0);
  assert.ok(bench.served.log.includes('quiesce'), 'nothing is under way when memory goes');
  assert.equal(map(0, 65536, 0, [])?.flags, 1, 'without a file it is reached by message');
  assert.equal(client.ask(DMA_UNMAP, words(24, 2, 0, 0, 0, 0))?.flags, 1, 'everything');
  client.close();
  bench.turn();
  for (const fd of [loose, sealed]) bench.calls.close(fd);
  closeSync(file);
  assert.equal(openFds(), before);
});

test('eventfds are replaced, taken away, triggered; vectors that are not there are refused', async (t) => {
  const bench = await openBench(t);
  const client = bench.connect();
  client.greet();
  const [first, second] = [must(createEventFd(bench.calls)), must(createEventFd(bench.calls))];
  assert.equal(client.ask(SET_IRQS, words(20, 0x24, 2, 0, 2), [first, second])?.flags, 1);
  bench.served.link?.trigger('msix', 1);
  assert.equal(drainEventFd(bench.calls, first), 0);
  assert.equal(drainEventFd(bench.calls, second), 1);
  assert.equal(client.ask(SET_IRQS, words(20, 0x24, 2, 1, 1), [first])?.flags, 1);
  bench.served.link?.trigger('msix', 1);
  assert.equal(drainEventFd(bench.calls, first), 1);
  assert.equal(client.ask(SET_IRQS, words(20, 0x24, 2, 1, 1))?.flags, 1, 'no descriptor takes it away');
  bench.served.link?.trigger('msix', 1);
  assert.equal(drainEventFd(bench.calls, first), 0);
  assert.equal(client.ask(SET_IRQS, words(20, 0x21, 2, 0, 1))?.flags, 1, 'the client triggers');
  assert.equal(drainEventFd(bench.calls, first), 1);
  assert.equal(client.ask(SET_IRQS, words(20, 0x21, 2, 0, 0))?.flags, 1, 'all off');
  bench.served.link?.trigger('msix', 0);
  assert.equal(drainEventFd(bench.calls, first), 0);
  for (const [start, count] of [
    [0, 5],
    [4, 1],
    [0xffffffff, 2],
    [1, 0xffffffff],
  ] as const) {
    assert.equal(client.ask(SET_IRQS, words(20, 0x21, 2, start, count))?.flags, ERROR_REPLY);
  }
  assert.equal(client.ask(SET_IRQS, words(20, 0x21, 9, 0, 1))?.flags, ERROR_REPLY);
  bench.served.lineAsserted = true;
  assert.equal(client.ask(SET_IRQS, words(20, 0x24, 0, 0, 1), [second])?.flags, 1);
  assert.equal(client.ask(SET_IRQS, words(20, 0x11, 0, 0, 1))?.flags, 1, 'unmask');
  assert.equal(drainEventFd(bench.calls, second), 1, 'a line that is still asserted interrupts again');
  for (const fd of [first, second]) bench.calls.close(fd);
});

test('an interrupt’s descriptor that is no eventfd ends the connection, and none of the message is kept', async (t) => {
  const bench = await openBench(t);
  const eventfd = must(createEventFd(bench.calls));
  const file = openSync('/dev/zero', 'r+');
  const client = bench.connect();
  client.greet();
  const before = openFds();
  assert.equal(client.ask(SET_IRQS, words(20, 0x24, 2, 0, 2), [eventfd, file])?.flags, ERROR_REPLY);
  assert.deepEqual(bench.endings(), ['vfio-user-descriptors']);
  // The connection's own is gone, and no other came to stay.
  assert.equal(openFds(), before - 1);
  bench.calls.close(eventfd);
  closeSync(file);
});

test('transfers by message are matched with their replies; a reply to nothing ends the connection', async (t) => {
  const bench = await openBench(t);
  const client = bench.connect();
  client.greet();
  const results: string[] = [];
  const note = (result: { ok: boolean }) => results.push(result.ok ? 'ok' : 'refused');
  bench.served.link?.readDma(0x1000, 4, note);
  bench.served.link?.writeDma(0x2000, Uint8Array.of(1, 2), note);
  bench.served.link?.readDma(0, 0, note);
  bench.served.link?.readDma(0, 2 ** 21, note);
  assert.deepEqual(results, ['refused', 'refused']);
  const [read, write] = [client.hear(), client.hear()];
  assert.deepEqual([read?.command, write?.command], [11, 12]);
  client.say(client.message(12, words(0x2000, 0, 2, 0), { flags: 1, id: write?.id ?? 0 }));
  client.say(client.message(11, words(0x1000, 0, 4, 0, 0x04030201), { flags: 1, id: read?.id ?? 0 }));
  assert.deepEqual(results.slice(2), ['ok', 'ok']);
  bench.served.link?.readDma(0x1000, 4, note);
  client.say(client.message(11, new Uint8Array(0), { flags: ERROR_REPLY, id: client.hear()?.id ?? 0 }));
  assert.equal(results.at(-1), 'refused');
  bench.served.link?.readDma(0x1000, 4, note);
  client.say(client.message(11, words(0x1000, 0, 4, 0), { flags: 1, id: client.hear()?.id ?? 0 }));
  assert.equal(results.at(-1), 'refused', 'a reply that is too short');
  assert.ok(client.ended());
  client.close();
  bench.turn();
  const next = bench.connect();
  next.greet();
  bench.served.link?.readDma(0x1000, 4, note);
  next.say(next.message(DMA_READ, words(0, 0, 4, 0, 0), { flags: 1, id: 4242 }));
  assert.equal(next.hear()?.command, DMA_READ);
  assert.ok(next.ended());
  assert.equal(results.at(-1), 'refused', 'what waits when the client goes is told so');
});

test('in stealth the snapshot shows no capabilities, short reads show all, and a client that works otherwise is reported', async (t) => {
  const bench = await openBench(t, true);
  const client = bench.connect();
  client.greet();
  const shown = client.ask(READ, words(0, 0, 7, 4096))?.body.subarray(16) ?? new Uint8Array(0);
  assert.equal(shown[0x06], 0x01);
  assert.equal(shown[0x34], 0);
  assert.ok(shown.subarray(0x40).every((byte) => byte === 0));
  assert.equal(client.ask(READ, words(0x34, 0, 7, 4))?.body[16], 0x11);
  assert.ok(!bench.events.some(({ kind }) => kind === 'problem'));
  assert.equal(client.ask(GET_IRQ, words(16, 0, 2, 0))?.body[12], 0, 'no MSI-X for the client');
  client.close();
  bench.turn();
  const other = bench.connect();
  other.greet();
  other.ask(READ, words(0x34, 0, 7, 1));
  const told = bench.events.find(({ kind }) => kind === 'problem');
  assert.equal(told?.kind === 'problem' ? told.problem.code : '', 'vfio-user-stealth-unsure');
});

test('three hundred clients leave as many descriptors as there were before', async (t) => {
  const bench = await openBench(t);
  const sealed = must(createSharedMemory(bench.calls, 'ram', 65536)).fd;
  const eventfd = must(createEventFd(bench.calls));
  const once = () => {
    const client = bench.connect();
    client.greet();
    client.ask(DMA_MAP, words(32, 3, 0, 0, 0, 0, 65536, 0), [sealed]);
    client.ask(SET_IRQS, words(20, 0x24, 2, 0, 1), [eventfd]);
    client.close();
    bench.turn(0);
  };
  once();
  bench.turn();
  const before = openFds();
  for (let i = 0; i < 300; i++) once();
  bench.turn();
  assert.equal(openFds(), before);
  for (const fd of [sealed, eventfd]) bench.calls.close(fd);
});

test('noise in place of messages never ends the server', async (t) => {
  const bench = await openBench(t);
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(16), fc.uint8Array({ maxLength: 64 }), fc.boolean()), { maxLength: 8 }),
      (messages) => {
        const client = bench.connect();
        client.greet();
        for (const [command, body, whole] of messages) {
          client.say(client.message(command, body, whole ? {} : { size: body.length * 3 }));
        }
        client.close();
        bench.turn(0);
      },
    ),
    { numRuns: 150 },
  );
  bench.turn();
  const client = bench.connect();
  client.greet();
  assert.equal(client.ask(GET_INFO, words(16, 0, 0, 0))?.flags, 1);
});
