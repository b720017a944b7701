import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { openQmp, type Qmp } from '../src/qmp.ts';

const GREETING = '{"QMP":{"version":{},"capabilities":[]}}\n';

/** A QEMU of our own: greets, then answers each question as `answer` says. */
async function withQemu(
  answer: (question: { execute: string; id: number }, socket: Socket) => void,
  work: (socket: Socket) => Promise<void>,
  greeting = GREETING,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'airlock-qmp-'));
  const server = createServer((socket) => {
    socket.write(greeting);
    socket.on('error', () => {});
    let text = '';
    socket.on('data', (bytes) => {
      text += bytes;
      for (let end = text.indexOf('\n'); end !== -1; end = text.indexOf('\n')) {
        answer(JSON.parse(text.slice(0, end)), socket);
        text = text.slice(end + 1);
      }
    });
  });
  server.listen(join(folder, 'qmp'));
  await once(server, 'listening');
  const socket = connect(join(folder, 'qmp'));
  try {
    await work(socket);
  } finally {
    socket.destroy();
    server.close();
    rmSync(folder, { recursive: true });
  }
}

async function opened(socket: Socket, seconds = 5): Promise<Qmp> {
  const qmp = await openQmp(socket, seconds);
  assert.ok(qmp.ok);
  return qmp.value;
}

const fine = (question: { id: number }, socket: Socket) =>
  void socket.write(`${JSON.stringify({ return: {}, id: question.id })}\n`);

test('answers go to the question that they belong to, in any order', async () => {
  const held: { execute: string; id: number }[] = [];
  await withQemu(
    (question, socket) => {
      if (question.execute === 'qmp_capabilities') return fine(question, socket);
      held.push(question);
      if (held.length < 2) return;
      for (const { execute, id } of held.reverse()) socket.write(`${JSON.stringify({ return: execute, id })}\n`);
    },
    async (socket) => {
      const qmp = await opened(socket);
      const [a, b] = await Promise.all([qmp.execute('a'), qmp.execute('b')]);
      assert.ok(a.ok && b.ok);
      assert.deepEqual([a.value, b.value], ['a', 'b']);
    },
  );
});

test('a refusal carries what QEMU said', async () => {
  await withQemu(
    (question, socket) => {
      if (question.execute === 'qmp_capabilities') return fine(question, socket);
      socket.write(`${JSON.stringify({ error: { class: 'GenericError', desc: 'no slot' }, id: question.id })}\n`);
    },
    async (socket) => {
      const answer = await (await opened(socket)).execute('device_add');
      assert.ok(!answer.ok);
      assert.equal(answer.error.code, 'qmp-refused');
      assert.match(answer.error.message, /device_add: .*no slot/);
    },
  );
});

test('events that came before the question are found', async () => {
  await withQemu(
    fine,
    async (socket) => {
      const qmp = await opened(socket);
      const event = await qmp.event(({ event: name }) => name === 'RESUME', 2);
      assert.ok(event.ok);
      assert.deepEqual(event.value.data, { why: 1 });
    },
    `${GREETING}{"event":"RESUME","data":{"why":1}}\n`,
  );
});

for (const [what, line] of [
  ['is not JSON', 'hello\n'],
  ['is no object', '[1]\n'],
  ['is neither greeting, event nor answer', '{"x":1}\n'],
  ['is longer than the limit', `{"event":"${'x'.repeat(2 << 20)}"}\n`],
] as const) {
  test(`a line that ${what} ends the conversation`, async () => {
    await withQemu(
      (question, socket) => {
        if (question.execute === 'qmp_capabilities') return fine(question, socket);
        socket.write(line);
      },
      async (socket) => {
        const qmp = await opened(socket);
        const answer = await qmp.execute('query-status');
        assert.equal(!answer.ok && answer.error.code, 'qmp-malformed');
        const after = await qmp.execute('query-status');
        assert.equal(!after.ok && after.error.code, 'qmp-malformed');
      },
    );
  });
}

test('a QEMU that says nothing is given up', async () => {
  await withQemu(
    (question, socket) => void (question.execute === 'qmp_capabilities' && fine(question, socket)),
    async (socket) => {
      const answer = await (await opened(socket, 0.2)).execute('query-status');
      assert.equal(!answer.ok && answer.error.code, 'qmp-timeout');
    },
  );
  await withQemu(
    fine,
    async (socket) => {
      const qmp = await openQmp(socket, 0.2);
      assert.equal(!qmp.ok && qmp.error.code, 'qmp-timeout');
    },
    '',
  );
});

test('a QEMU that goes away fails what was asked', async () => {
  await withQemu(
    (question, socket) => void (question.execute === 'qmp_capabilities' ? fine(question, socket) : socket.destroy()),
    async (socket) => {
      const answer = await (await opened(socket)).execute('quit');
      assert.equal(!answer.ok && answer.error.code, 'qmp-closed');
    },
  );
});
