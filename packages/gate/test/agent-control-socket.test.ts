import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Event } from '@airlock/core/event.ts';
import { ok, type Result } from '@airlock/core/result.ts';
import fc from 'fast-check';
import { lineSplitter, REQUEST_LIMIT, readRequest } from '../src/agent/control-protocol.ts';
import { askAgent, watchAgent } from '../src/agent/node-control-client.ts';
import {
  CONTROL_LIMITS,
  type ControlHandlers,
  type ControlLimits,
  serveControl,
} from '../src/agent/node-control-server.ts';

async function server(
  t: TestContext,
  given: { handlers?: Partial<ControlHandlers>; limits?: Partial<ControlLimits> } = {},
) {
  const folder = mkdtempSync(join(tmpdir(), 'airlock-control-'));
  const path = join(folder, 'run', 'control.sock');
  const handlers: ControlHandlers = {
    answer: async (request) => ok(request),
    watch: () => () => undefined,
    peer: () => 0,
    ...given.handlers,
  };
  const started = await serveControl(path, handlers, { ...CONTROL_LIMITS, ...given.limits });
  assert.ok(started.ok, JSON.stringify(started));
  t.after(async () => {
    await started.value.close();
    rmSync(folder, { recursive: true });
  });
  return { path, server: started.value, handlers };
}

/** What comes back on a raw connection until it ends, or until `lines` lines came. */
function talk(path: string, send: string | Uint8Array | undefined, lines = Number.POSITIVE_INFINITY): Promise<string> {
  return new Promise((resolve) => {
    let text = '';
    const socket = connect(path, () => send !== undefined && socket.write(send));
    socket.on('data', (chunk) => {
      text += chunk;
      if (text.split('\n').length > lines) socket.destroy();
    });
    socket.on('error', () => undefined);
    socket.on('close', () => resolve(text));
  });
}

test('the socket is for its owner alone, in a folder for its owner alone', async (t) => {
  const { path } = await server(t);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.equal(statSync(join(path, '..')).mode & 0o777, 0o700);
});

test('a request is answered by its id', async (t) => {
  const { path } = await server(t);
  assert.deepEqual(await askAgent(path, { verb: 'status' }), { ok: true, value: { verb: 'status' } });
  const both = await talk(path, '{"id":7,"verb":"status"}\n{"id":8,"verb":"revoke","device":"x"}\n', 2);
  assert.deepEqual(
    both
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).id)
      .sort(),
    [7, 8],
  );
});

test('another user is turned away before a byte is read', async (t) => {
  const { path } = await server(t, { handlers: { peer: () => 12345, answer: () => assert.fail() } });
  const answer = await askAgent(path, { verb: 'status' });
  assert.equal(answer.ok ? 'answered' : answer.error.code, 'control-denied');
});

test('where nobody listens there is no agent', async () => {
  const answer = await askAgent('/nowhere/control.sock', { verb: 'status' });
  assert.equal(answer.ok ? 'answered' : answer.error.code, 'agent-missing');
});

test("a second agent does not take the socket; a dead one's is taken", async (t) => {
  const { path, server: first, handlers } = await server(t);
  const second = await serveControl(path, handlers);
  assert.equal(second.ok ? 'taken' : second.error.code, 'agent-running');
  await first.close();
  writeFileSync(path, 'left behind');
  const third = await serveControl(path, handlers);
  assert.ok(third.ok);
  await third.value.close();
});

test('a folder that others can write to is closed, one that is a link or a file is refused', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'airlock-control-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const { handlers } = await server(t);
  mkdirSync(join(folder, 'open'));
  chmodSync(join(folder, 'open'), 0o777);
  const closed = await serveControl(join(folder, 'open', 's'), handlers);
  assert.ok(closed.ok);
  await closed.value.close();
  assert.equal(statSync(join(folder, 'open')).mode & 0o777, 0o700);
  symlinkSync(join(folder, 'open'), join(folder, 'link'));
  writeFileSync(join(folder, 'file'), '');
  for (const name of ['link', 'file', 'x'.repeat(120)]) {
    const refused = await serveControl(join(folder, name, 's'), handlers);
    assert.equal(refused.ok ? 'served' : refused.error.code, 'control-socket', name);
  }
});

const rude: Record<string, string> = {
  'no JSON': 'hello\n',
  'a list': '[1]\n',
  'no id': '{"verb":"status"}\n',
  'an id that is none': '{"id":-1,"verb":"status"}\n',
  'an unknown verb': '{"id":1,"verb":"sudo"}\n',
  'an unknown key': '{"id":1,"verb":"status","force":true}\n',
  'a device that is none': '{"id":1,"verb":"block","device":"a b"}\n',
  'no term': '{"id":1,"verb":"allow","device":"x"}\n',
  'an endless term': '{"id":1,"verb":"allow","device":"x","term":{"kind":"timed","lasts":1e15}}\n',
  'a term of no time': '{"id":1,"verb":"allow","device":"x","term":{"kind":"timed","lasts":0}}\n',
  'an expectation of nothing': '{"id":1,"verb":"reject","device":"x","expect":{}}\n',
};
for (const [name, line] of Object.entries(rude)) {
  test(`${name}: told what is wrong, and the next request is answered`, async (t) => {
    const { path } = await server(t);
    const [first, second] = (await talk(path, `${line}{"id":2,"verb":"status"}\n`, 2)).split('\n');
    assert.equal(JSON.parse(first ?? '').error.code, 'control-malformed');
    assert.equal(JSON.parse(second ?? '').ok, true);
  });
}

test('a line without an end costs the connection, nothing else', async (t) => {
  const { path } = await server(t);
  const text = await talk(path, 'x'.repeat(REQUEST_LIMIT + 1));
  assert.match(text, /control-too-long/);
  assert.ok((await askAgent(path, { verb: 'status' })).ok);
});

test('one client more than there is room for is turned away, and room is made when one leaves', async (t) => {
  const { path, server: running } = await server(t, { limits: { clients: 3 } });
  const silent: Socket[] = await Promise.all(
    [1, 2, 3].map(
      () =>
        new Promise<Socket>((resolve) => {
          const socket = connect(path, () => resolve(socket));
        }),
    ),
  );
  while (running.clients < 3) await sleep(1);
  const refused = await askAgent(path, { verb: 'status' });
  assert.equal(refused.ok ? 'answered' : refused.error.code, 'agent-busy');
  silent[0]?.destroy();
  while (running.clients > 2) await sleep(1);
  assert.ok((await askAgent(path, { verb: 'status' })).ok);
  for (const socket of silent) socket.destroy();
});

test('a silent client is let go, one that watches is not', async (t) => {
  const { path, server: running } = await server(t, { limits: { idle: 30 } });
  const gone = await talk(path, undefined);
  assert.equal(gone, '');
  const watcher = connect(path, () => watcher.write('{"id":1,"verb":"watch"}\n'));
  await new Promise((resolve) => watcher.once('data', resolve));
  await sleep(100);
  assert.equal(running.clients, 1);
  watcher.destroy();
});

test('requests of one client that are under way are bounded', async (t) => {
  let release = (): void => undefined;
  const gate = new Promise<void>((resolve) => {
    release = resolve;
  });
  const { path } = await server(t, {
    handlers: {
      answer: async (): Promise<Result<unknown>> => {
        await gate;
        return ok('late');
      },
    },
    limits: { requests: 2 },
  });
  const lines = Array.from({ length: 5 }, (_, i) => `{"id":${i + 1},"verb":"status"}\n`).join('');
  const answers = talk(path, lines, 5);
  await sleep(20);
  release();
  const codes = (await answers)
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
    .map(({ id, ok: fine }) => [id, fine]);
  assert.deepEqual(codes.sort(), [
    [1, true],
    [2, true],
    [3, false],
    [4, false],
    [5, false],
  ]);
});

test('a watcher that does not read is cut off, and costs the others nothing', async (t) => {
  const watchers = new Set<(event: Event) => void>();
  const { path, server: running } = await server(t, {
    handlers: {
      watch: (_since, send) => {
        watchers.add(send);
        return () => void watchers.delete(send);
      },
    },
    limits: { backlog: 100_000 },
  });
  const deaf = connect(path, () => deaf.write('{"id":1,"verb":"watch"}\n'));
  deaf.on('error', () => undefined);
  deaf.pause();
  const heard: Event[] = [];
  const stop = new AbortController();
  const watching = watchAgent(path, undefined, stop.signal, (event) => void heard.push(event));
  while (watchers.size < 2) await sleep(1);
  const event: Event = { kind: 'violation', device: 'd', rule: '', detail: 'x'.repeat(10_000), at: 0, sequence: 1 };
  for (let i = 0; i < 500 && running.clients > 1; i++) {
    for (const send of watchers) send(event);
    await sleep(1);
  }
  assert.equal(running.clients, 1);
  assert.equal(watchers.size, 1);
  const before = heard.length;
  for (const send of watchers) send(event);
  while (heard.length === before) await sleep(1);
  stop.abort();
  assert.deepEqual(await watching, { ok: true, value: undefined });
  deaf.destroy();
});

test('a watcher hears that the agent ended', async (t) => {
  const { path, server: running } = await server(t);
  const watching = watchAgent(path, 0, new AbortController().signal, () => undefined);
  while (running.clients < 1) await sleep(1);
  await running.close();
  const ended = await watching;
  assert.equal(ended.ok ? 'fine' : ended.error.code, 'control-lost');
});

test('arbitrary lines are requests or errors', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.json()), (line) => {
      const { id, request } = readRequest(line);
      return Number.isSafeInteger(id) && (request.ok || request.error.code === 'control-malformed');
    }),
  );
});

test('lines come out whole, however the bytes arrive', () => {
  fc.assert(
    fc.property(
      fc.array(fc.stringMatching(/^[a-zé]{0,20}$/)),
      fc.array(fc.integer({ min: 1, max: 7 })),
      (lines, cuts) => {
        const bytes = Buffer.from(lines.map((line) => `${line}\n`).join(''));
        const splitter = lineSplitter(100);
        const out: string[] = [];
        let at = 0;
        for (let i = 0; at < bytes.length; i++) {
          const cut = cuts[i % Math.max(1, cuts.length)] ?? 3;
          // The same buffer is used again, as a socket's may be.
          const chunk = Buffer.from(bytes.subarray(at, at + cut));
          out.push(...splitter.push(chunk));
          chunk.fill(0x21);
          at += cut;
        }
        assert.deepEqual(out, lines);
        assert.equal(splitter.overflow, false);
      },
    ),
  );
});
