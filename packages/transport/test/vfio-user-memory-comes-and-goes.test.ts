/**
 * Clients that map, unmap, read and leave at once, in any order and from many processes: the server goes on, nothing of
 * their memory stays mapped, no descriptor stays open, and the next client is served.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { createSharedMemory } from '../src/shared-memory.ts';
import { type Bench, must, openBench, words } from './support/vfio-client.ts';

const DMA_MAP = 2;
const DMA_UNMAP = 3;
const GET_INFO = 4;
const READ = 9;
const DMA_READ = 11;
const DONE = 1;
const REFUSED = 0x21;
const PAGE = 4096;

/** Descriptors of this process, and its mappings of memory files. */
function held(): { fds: number; memory: number } {
  return {
    fds: readdirSync('/proc/self/fd').length,
    memory: readFileSync('/proc/self/maps', 'latin1')
      .split('\n')
      .filter((line) => line.includes('/memfd:')).length,
  };
}

const map = (address: number, size: number, offset = 0) => words(32, 3, offset, 0, address, 0, size, 0);
const unmap = (address: number, size: number) => words(24, 0, address, 0, size, 0);

/** Serves until all of `children` are gone; their exit codes. */
async function serveUntilGone(bench: Bench, children: readonly ChildProcess[]): Promise<(number | null)[]> {
  const codes: (number | null)[] = [];
  for (const child of children) child.on('exit', (code) => codes.push(code));
  // The loop of this engine has to turn as well, to hear of a child's end.
  for (const end = Date.now() + 60_000; codes.length < children.length && Date.now() < end; ) {
    bench.turn(5);
    await new Promise((resolve) => setImmediate(resolve));
  }
  for (let i = 0; i < 20; i++) bench.turn();
  return codes;
}

const CHURN = join(import.meta.dirname, 'support/vfio-churn.ts');

function servesOn(bench: Bench): void {
  const client = bench.connect();
  client.greet();
  assert.equal(client.ask(GET_INFO, words(16, 0, 0, 0))?.flags, DONE);
  client.close();
  bench.turn();
}

test('several processes, each with its own connection, at once', { timeout: 90_000 }, async (t) => {
  const bench = await openBench(t);
  servesOn(bench);
  const before = held();
  const children = Array.from({ length: 4 }, () => spawn(process.execPath, [CHURN, bench.socket, '400']));
  assert.deepEqual(await serveUntilGone(bench, children), [0, 0, 0, 0]);
  assert.equal(bench.events.filter(({ kind }) => kind === 'connected').length, 5, 'each was served in its turn');
  assert.equal(bench.served.log.filter((line) => line === 'detach').length, 5);
  assert.ok(bench.served.log.filter((line) => line === 'quiesce').length >= 4 * 400);
  assert.deepEqual(held(), before);
  servesOn(bench);
});

test('several processes on one connection: maps, unmaps and reads in any order', { timeout: 90_000 }, async (t) => {
  const bench = await openBench(t);
  servesOn(bench);
  const before = held();
  const client = bench.connect();
  client.greet();
  const children = Array.from({ length: 3 }, () =>
    spawn(process.execPath, [CHURN, '-', '300'], { stdio: ['ignore', 'ignore', 'inherit', client.fd] }),
  );
  client.close();
  assert.deepEqual(await serveUntilGone(bench, children), [0, 0, 0]);
  assert.ok(bench.served.log.filter((line) => line === 'quiesce').length >= 100, 'much was said');
  assert.deepEqual(held(), before);
  servesOn(bench);
});

test('ranges that overlap, in any order: what is refused changes nothing, what is taken out was there', async (t) => {
  const bench = await openBench(t);
  const { fd } = must(createSharedMemory(bench.calls, 'ram', 64 * PAGE));
  const step = fc.record({
    maps: fc.boolean(),
    page: fc.nat(15),
    pages: fc.integer({ min: 1, max: 6 }),
    offset: fc.nat(60),
  });
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 30 }), (steps) => {
      const client = bench.connect();
      client.greet();
      const there = new Map<number, { pages: number; offset: number }>();
      const overlaps = (page: number, pages: number) =>
        [...there].some(([at, range]) => page < at + range.pages && at < page + pages);
      for (const { maps, page, pages, offset } of steps) {
        const [address, size] = [page * PAGE, pages * PAGE];
        if (maps) {
          const fine = !overlaps(page, pages) && offset + pages <= 64;
          const reply = client.ask(DMA_MAP, map(address, size, offset * PAGE), [fd]);
          assert.equal(reply?.flags, fine ? DONE : REFUSED);
          if (fine) there.set(page, { pages, offset });
        } else {
          const fine = there.get(page)?.pages === pages;
          assert.equal(client.ask(DMA_UNMAP, unmap(address, size))?.flags, fine ? DONE : REFUSED);
          if (fine) there.delete(page);
        }
        const memory = bench.served.link?.memory;
        for (let at = 0; at < 22; at++) {
          const found = [...there].find(([first, range]) => at >= first && at < first + range.pages);
          const bytes = memory?.translate(at * PAGE, 3) ?? 0;
          assert.equal(bytes > 0, found !== undefined, `page ${at}`);
          if (found !== undefined) assert.equal(memory?.offset, (found[1].offset + at - found[0]) * PAGE);
        }
      }
      client.close();
      bench.turn(0);
    }),
    { numRuns: 12 },
  );
  bench.turn();
  bench.calls.close(fd);
  assert.equal(held().memory, 0);
});

test('a range is taken out while the function reads it by message: the late answer is taken, and harms nobody', async (t) => {
  const bench = await openBench(t);
  const client = bench.connect();
  client.greet();
  assert.equal(client.ask(DMA_MAP, map(0, 4 * PAGE))?.flags, DONE, 'without a file');
  const got: string[] = [];
  bench.served.link?.readDma(0, 8, (bytes) => got.push(bytes.ok ? String(bytes.value.length) : bytes.error.code));
  const asked = client.hear();
  assert.equal(asked?.command, DMA_READ);
  assert.equal(client.ask(DMA_UNMAP, unmap(0, 4 * PAGE))?.flags, DONE);
  assert.ok(bench.served.log.includes('quiesce'));
  assert.deepEqual(got, []);
  const answer = words(0, 0, 8, 0, 0x01020304, 0x05060708);
  client.say(client.message(DMA_READ, answer, { flags: 1, id: asked?.id ?? 0 }));
  assert.deepEqual(got, ['8']);
  client.say(client.message(DMA_READ, answer, { flags: 1, id: asked?.id ?? 0 }));
  assert.ok(client.ended(), 'a second answer to the same');
  client.close();
  bench.turn();
  servesOn(bench);
});

test('a range is taken out while the function reads it in place: it sees the end of it, and nothing else', async (t) => {
  const bench = await openBench(t);
  const client = bench.connect();
  client.greet();
  const { fd } = must(createSharedMemory(bench.calls, 'ram', 4 * PAGE));
  assert.equal(client.ask(DMA_MAP, map(0, 4 * PAGE), [fd])?.flags, DONE);
  const memory = bench.served.link?.memory;
  const reached: number[] = [];
  // A function that copies a page a turn, as one that is slow would.
  const stop = bench.reactor.addPoller({
    poll() {
      reached.push(memory?.translate((reached.length % 4) * PAGE, 1) ?? 0);
      return true;
    },
    prepareToSleep: () => false,
  });
  bench.turn();
  assert.ok(reached.length > 0 && reached.every((bytes) => bytes > 0));
  const region = memory?.region;
  assert.equal(client.ask(DMA_UNMAP, unmap(0, 4 * PAGE))?.flags, DONE);
  reached.length = 0;
  bench.turn();
  assert.ok(reached.length > 0 && reached.every((bytes) => bytes < 0));
  client.close();
  bench.turn();
  stop();
  // What somebody kept of it leads nowhere: not to what is mapped there next.
  assert.equal(region?.bytes.length, 0);
  bench.calls.close(fd);
  assert.equal(held().memory, 0);
});

test('clients that go while transfers by message are under way: each is told once, and nothing stays', async (t) => {
  const bench = await openBench(t);
  servesOn(bench);
  const { fd } = must(createSharedMemory(bench.calls, 'ram', 64 * PAGE));
  const before = held();
  const told: string[] = [];
  for (let cut = 0; cut < 40; cut++) {
    const client = bench.connect();
    client.greet();
    client.ask(DMA_MAP, map(0, 64 * PAGE), [fd]);
    const note = (result: { ok: boolean; error?: { code: string } }) => told.push(result.error?.code ?? 'done');
    bench.served.link?.readDma(0, 24, note);
    bench.served.link?.writeDma(PAGE, new Uint8Array(24), note);
    const asked = client.hear();
    // The answer to the first, cut anywhere; whole in the end.
    const answer = client.message(DMA_READ, words(0, 0, 24, 0, ...Array.from({ length: 6 }, () => 7)), {
      flags: 1,
      id: asked?.id ?? 0,
    });
    client.say(answer.subarray(0, Math.min(cut + 17, answer.length)));
    client.close();
    bench.turn();
  }
  assert.equal(told.length, 80);
  assert.ok(told.every((code) => code === 'vfio-user-gone' || code === 'done'));
  assert.equal(told.filter((code) => code === 'done').length, 1);
  assert.deepEqual(held(), before);
  bench.calls.close(fd);
  servesOn(bench);
});

test('a client that reads nothing while it is asked for much is given up, and nothing stays', async (t) => {
  const bench = await openBench(t);
  servesOn(bench);
  const before = held();
  const client = bench.connect();
  client.greet();
  for (let i = 0; i < 400 && bench.endings().length === 0; i++) {
    bench.served.link?.writeDma(0, new Uint8Array(64 * 1024), () => {});
    client.say(client.message(READ, words(0, 0, 7, 4096)));
  }
  assert.deepEqual(bench.endings(), ['vfio-user-not-reading']);
  client.close();
  bench.turn();
  assert.deepEqual(held(), before);
  servesOn(bench);
});
