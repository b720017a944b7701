/** A disk's server is killed, its front-end is killed, its file fails: what was flushed is there, and no request is lost. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { BlockDriver } from '@airlock/transport/vhost-user/block-driver.ts';
import { FrontEnd } from '@airlock/transport/vhost-user/front-end.ts';
import { BLK_FLUSH, BLK_IN, BLK_IOERR, BLK_OK, BLK_OUT } from '@airlock/virtio/request/block.ts';
import { DONE, NONE } from '@airlock/virtio/ring/queue.ts';
import { systemCalls, testFolder } from './support/disk-file.ts';
import { must } from './support/in-memory-driver.ts';
import { type ServedProcess, serveProcess } from './support/served-process.ts';

const MIB = 2 ** 20;
const BLOCK = 4096;
const DEPTH = 16;
const folder = testFolder();
after(() => folder.remove());

function openDriver(socket: string, without: readonly number[] = []): BlockDriver {
  const front = must(FrontEnd.connect(socket, { calls: systemCalls, timeout: 10_000 }));
  return must(BlockDriver.open(front, { queues: 1, size: 64, transfer: BLOCK, depth: DEPTH, without }));
}

function content(block: number, version: number): Uint8Array {
  const bytes = new Uint8Array(BLOCK);
  const view = new DataView(bytes.buffer);
  for (let at = 0; at < BLOCK; at += 8) {
    view.setUint32(at, block, true);
    view.setUint32(at + 4, version, true);
  }
  return bytes;
}

/** Completions that come within `tries` looks, as token → status. */
function collect(driver: BlockDriver, into: Map<number, number>, until: () => boolean): void {
  const queue = driver.queues.all[0];
  assert.ok(queue !== undefined);
  for (let idle = 0; !until(); ) {
    const outcome = driver.complete(queue);
    if (outcome === DONE) {
      into.set(driver.token, driver.status);
      idle = 0;
      continue;
    }
    assert.equal(outcome, NONE, JSON.stringify(queue.driver.violation));
    if (idle++ > 2000) return;
    systemCalls.poll(0, 0, 1);
  }
}

for (const [name, direct, without] of [
  ['page cache, split', false, [34]],
  ['direct, packed', true, []],
] as const) {
  test(`the server is killed during writes, again and again: nothing that was flushed is lost, nothing stays undone (${name})`, async () => {
    const file = folder.image(`killed-${direct}.img`, MIB);
    const socket = join(folder.path, `killed-${direct}.sock`);
    const values = { file, ...(direct ? { direct: true } : {}) };
    let server: ServedProcess = await serveProcess({ socket, values });
    const driver = openDriver(socket, without);
    const queue = driver.queues.all[0];
    assert.ok(queue !== undefined);
    /** Of each block, the version that was flushed last, and the one that was asked for last. */
    const flushed = new Map<number, number>();
    const asked = new Map<number, number>();
    let version = 0;
    for (let life = 0; life < 4; life++) {
      const written: [number, number][] = [];
      for (let round = 0; round < 3; round++) {
        const done = new Map<number, number>();
        for (let i = 0; i < DEPTH; i++) {
          const block = (i * 7 + round * 16 + life * 3) % (MIB / BLOCK);
          version++;
          const token = driver.submit(queue, BLK_OUT, block * 8, content(block, version), 0);
          assert.ok(token >= 0);
          asked.set(block, version);
          written.push([block, version]);
        }
        queue.publish();
        collect(driver, done, () => done.size === DEPTH);
        assert.deepEqual([...done.values()], Array(DEPTH).fill(BLK_OK));
      }
      must(driver.flush());
      for (const [block, at] of written) flushed.set(block, at);
      // These are on their way when the end comes; all must be done by the next server.
      const last = new Map<number, number>();
      for (let i = 0; i < DEPTH; i++) {
        const block = (i * 5 + life) % (MIB / BLOCK);
        version++;
        assert.ok(driver.submit(queue, BLK_OUT, block * 8, content(block, version), 0) >= 0);
        asked.set(block, version);
      }
      queue.publish();
      await server.kill();
      const image = readFileSync(file);
      for (const [block, at] of flushed) {
        const found = image.readUInt32LE(block * BLOCK + 4);
        assert.ok(found >= at, `block ${block} has version ${found}, ${at} was flushed`);
      }
      server = await serveProcess({ socket, values });
      must(driver.front.reconnect());
      collect(driver, last, () => last.size === DEPTH);
      assert.deepEqual([...last.values()], Array(DEPTH).fill(BLK_OK), `life ${life}`);
    }
    for (const [block, at] of asked) assert.deepEqual(must(driver.read(block * 8, BLOCK)), content(block, at));
    must(driver.front.stop());
    driver.front.close();
    assert.equal(await server.end(), 0);
  });
}

test('a front-end that dies with requests in flight leaves a server for the next one', async () => {
  const file = folder.image('orphaned.img', MIB);
  const socket = join(folder.path, 'orphaned.sock');
  const server = await serveProcess({ socket, values: { file, direct: true } });
  const script = join(import.meta.dirname, 'support', 'dying-driver.ts');
  for (let life = 0; life < 3; life++) {
    const child = spawn(process.execPath, [script, socket], { stdio: ['ignore', 'ignore', 'inherit'] });
    await once(child, 'exit');
    assert.equal(child.signalCode, 'SIGKILL', 'it died with its requests');
  }
  const driver = openDriver(socket);
  must(driver.write(0, content(1, 1)));
  assert.deepEqual(must(driver.read(0, BLOCK)), content(1, 1));
  driver.front.close();
  assert.equal(await server.end(), 0);
  assert.equal(server.events.filter(({ event }) => event === 'connected').length, 4);
});

test('a file that shrinks is read errors beyond its end, and nothing worse', async () => {
  const file = folder.image('shrinks.img', MIB);
  const socket = join(folder.path, 'shrinks.sock');
  const server = await serveProcess({ socket, values: { file } });
  const driver = openDriver(socket);
  const queue = driver.queues.all[0];
  assert.ok(queue !== undefined);
  must(driver.write(0, content(1, 1)));
  truncateSync(file, 2 * BLOCK);
  const status = (type: number, sector: number, out: Uint8Array | null, length: number): number | undefined => {
    const done = new Map<number, number>();
    const token = driver.submit(queue, type, sector, out, length);
    queue.publish();
    collect(driver, done, () => done.size === 1);
    return done.get(token);
  };
  assert.equal(status(BLK_IN, 0, null, BLOCK), BLK_OK);
  assert.equal(status(BLK_IN, 1024, null, BLOCK), BLK_IOERR);
  assert.equal(status(BLK_FLUSH, 0, null, 0), BLK_OK);
  // It grows again by what is written behind its end.
  assert.equal(status(BLK_OUT, 1024, content(2, 2), 0), BLK_OK);
  assert.equal(status(BLK_IN, 1024, null, BLOCK), BLK_OK);
  driver.front.close();
  assert.equal(await server.end(), 0);
});
