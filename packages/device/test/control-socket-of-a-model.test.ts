import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { test } from 'node:test';
import { ok } from '@airlock/core/result.ts';
import { keyboardModel } from '@airlock/device/input/device.ts';
import { control, openControl } from '@airlock/device/model/control.ts';
import { must } from './support/in-memory-driver.ts';
import { realReactor } from './support/real-reactor.ts';

test('facts are every model’s; an unknown word says which there are; nothing of an object’s own is a word', () => {
  const model = keyboardModel({ name: 'k', serial: '1' });
  assert.deepEqual(control(model, 'facts'), ok({ sent: 0, dropped: 0, malformed: 0, lights: {} }));
  for (const line of ['', 'nothing', 'constructor', '__proto__ x', 'toString', 'KEY 1']) {
    const answer = control(model, line);
    assert.equal(answer.ok ? '' : answer.error.code, 'device-control-invalid', line);
    assert.equal(answer.ok ? '' : answer.error.hint, 'facts, key');
  }
});

test('the socket answers line by line, in order; a line without end is hung up on, and the next one is served', async () => {
  const real = await realReactor();
  const path = `${real.folder}/control`;
  const opened = must(openControl(real.calls, real.reactor, path, keyboardModel({ name: 'k', serial: '1' })));
  const say = (text: string, answers: number) =>
    new Promise<string>((resolve) => {
      const socket = connect(path);
      let heard = '';
      socket.setEncoding('latin1');
      socket.on('error', () => {});
      socket.on('data', (piece: string) => {
        heard += piece;
        if (heard.split('\n').length > answers) socket.end();
      });
      socket.on('close', () => resolve(heard));
      socket.write(text);
    });
  const turn = async <T>(promise: Promise<T>): Promise<T> => {
    let done = false;
    void promise.finally(() => {
      done = true;
    });
    for (let rounds = 0; !done && rounds < 2000; rounds++) {
      real.reactor.after(1, () => real.reactor.stop());
      must(real.reactor.run());
      await new Promise((resolve) => setImmediate(resolve));
    }
    return promise;
  };
  const two = await turn(say('facts\nnothing\x1b[2J\n', 2));
  const [first = '', second = ''] = two.trim().split('\n');
  assert.equal(JSON.parse(first).ok, true);
  assert.equal(JSON.parse(second).ok, false);
  assert.ok(!second.includes('\x1b'));
  assert.equal(await turn(say('x'.repeat(5000), 1)), '');
  assert.match(await turn(say('facts\n', 1)), /"sent":0/);
  opened.close();
  real.end();
});
