/** A back-end that lies, is late, is loud or is gone: the front-end names it, ends it, and keeps nothing open. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Result } from '@airlock/core/result.ts';
import { createSharedMemory } from '@airlock/transport/shared-memory.ts';
import { send } from '@airlock/transport/unix-socket.ts';
import { BlockDriver } from '@airlock/transport/vhost-user/block-driver.ts';
import { exchange } from '@airlock/transport/vhost-user/exchange.ts';
import type { FrontEnd } from '@airlock/transport/vhost-user/front-end.ts';
import { encodeMessage } from '@airlock/transport/vhost-user/message.ts';
import { NO_PAYLOAD } from '@airlock/transport/vhost-user/payload.ts';
import { BACK_END_MESSAGES, NEED_REPLY, REPLY } from '@airlock/transport/vhost-user/protocol.ts';
import { block } from '@airlock/virtio/device/block.ts';
import { featureSet } from '@airlock/virtio/features.ts';
import { number, reply, type Script, ScriptedBackEnd } from './support/scripted-back-end.ts';
import { must, openDescriptors, systemCalls } from './support/scripted-front-end.ts';

const POOL = [{ size: 256, count: 8 }];

function codeOf(result: Result<unknown>): string {
  return result.ok ? 'no problem' : result.error.code;
}

/** Connects to a back-end with this script, and runs the rest; nothing may be left open. */
function meet(
  script: Script,
  rest: (front: FrontEnd, back: ScriptedBackEnd) => void,
  protocol?: ConstructorParameters<typeof ScriptedBackEnd>[1],
  bits?: number[],
): void {
  const before = openDescriptors();
  const back = new ScriptedBackEnd(script, protocol, bits);
  const front = must(back.connect());
  rest(front, back);
  front.close();
  back.end();
  assert.equal(openDescriptors(), before, 'descriptors were left open');
}

/** The code that connecting fails with. */
function greeting(script: Script, protocol?: ConstructorParameters<typeof ScriptedBackEnd>[1]): string {
  const before = openDescriptors();
  const back = new ScriptedBackEnd(script, protocol);
  const front = back.connect();
  if (front.ok) front.value.close();
  back.end();
  assert.equal(openDescriptors(), before, 'descriptors were left open');
  return codeOf(front);
}

test('an answer that never comes, and a connection that ends', () => {
  assert.equal(greeting({ GET_FEATURES: null }), 'vhost-user-reply-late');
  assert.equal(greeting({ GET_FEATURES: 'hang up' }), 'vhost-user-closed');
  assert.equal(greeting({ GET_FEATURES: reply('GET_FEATURES', number(0)).slice(0, 15) }), 'vhost-user-reply-late');
  assert.equal(greeting({ GET_QUEUE_NUM: 'hang up' }), 'vhost-user-closed');
});

test('answers to other questions, of other sizes, without the mark of a reply, or with a wrong header', () => {
  const good = reply('GET_FEATURES', number(1 << 30, 1));
  const change = (at: number, value: number): Uint8Array => {
    const bytes = good.slice();
    bytes[at] = value;
    return bytes;
  };
  assert.equal(greeting({ GET_FEATURES: reply('GET_STATUS', number(1)) }), 'vhost-user-reply-invalid');
  assert.equal(greeting({ GET_FEATURES: reply('GET_FEATURES', number(1), 0) }), 'vhost-user-reply-invalid');
  assert.equal(greeting({ GET_FEATURES: reply('GET_FEATURES', NO_PAYLOAD) }), 'vhost-user-reply-invalid');
  assert.equal(greeting({ GET_FEATURES: reply('GET_FEATURES', { form: 'vring', index: 1, value: 1 }) }), 'no problem');
  assert.equal(greeting({ GET_FEATURES: change(4, 6) }), 'vhost-user-version');
  assert.equal(greeting({ GET_FEATURES: change(5, 1) }), 'vhost-user-flags');
  assert.equal(greeting({ GET_FEATURES: change(11, 0x80) }), 'vhost-user-too-large');
  assert.equal(greeting({ GET_FEATURES: change(8, 9) }), 'vhost-user-reply-late');
});

test('descriptors that nobody asked for are closed, and end it', () => {
  const spare = must(createSharedMemory(systemCalls, 'spare', 4096)).fd;
  assert.equal(
    greeting({ GET_FEATURES: { bytes: reply('GET_FEATURES', number(1 << 30, 1)), fds: [spare, spare] } }),
    'vhost-user-reply-invalid',
  );
  const many = Array.from({ length: 9 }, () => spare);
  assert.equal(greeting({ GET_FEATURES: { bytes: reply('GET_FEATURES', number(1)), fds: many } }), 'descriptors-cut');
  systemCalls.close(spare);
});

test('numbers beyond reason: queues, memory slots, status', () => {
  assert.equal(greeting({ GET_QUEUE_NUM: reply('GET_QUEUE_NUM', number(1025)) }), 'vhost-user-reply-invalid');
  assert.equal(greeting({ GET_QUEUE_NUM: reply('GET_QUEUE_NUM', number(0, 1)) }), 'vhost-user-reply-invalid');
  assert.equal(greeting({ GET_QUEUE_NUM: reply('GET_QUEUE_NUM', number(1024)) }), 'no problem');
  const slots = reply('GET_MAX_MEM_SLOTS', number(0, 1));
  assert.equal(greeting({ GET_MAX_MEM_SLOTS: slots }, ['CONFIGURE_MEM_SLOTS']), 'vhost-user-reply-invalid');
  meet(
    { GET_STATUS: reply('GET_STATUS', number(3)) },
    (front) => assert.equal(codeOf(front.negotiate('block', featureSet([32]))), 'features-refused'),
    ['STATUS', 'REPLY_ACK'],
  );
});

test('a back-end that says no', () => {
  const no = (name: 'SET_OWNER' | 'SET_FEATURES' | 'SET_MEM_TABLE' | 'SET_VRING_NUM' | 'SET_VRING_ENABLE'): Script => ({
    [name]: reply(name, number(1)),
  });
  assert.equal(greeting(no('SET_OWNER')), 'vhost-user-refused');
  meet(no('SET_FEATURES'), (front) => {
    assert.equal(codeOf(front.negotiate('block', featureSet([32]))), 'vhost-user-refused');
    assert.equal(front.features, null);
  });
  for (const name of ['SET_MEM_TABLE', 'SET_VRING_NUM', 'SET_VRING_ENABLE'] as const) {
    meet(no(name), (front) => {
      must(front.negotiate('block', featureSet([32])));
      assert.equal(codeOf(front.setUp({ queues: 1, size: 8, pool: POOL })), 'vhost-user-refused');
    });
  }
});

test('a yes that is no number is no yes', () => {
  meet({ SET_FEATURES: reply('SET_FEATURES', number(0, 1)) }, (front) => {
    assert.equal(codeOf(front.negotiate('block', featureSet([32]))), 'vhost-user-refused');
  });
  meet({ SET_FEATURES: reply('SET_FEATURES', NO_PAYLOAD) }, (front) => {
    assert.equal(codeOf(front.negotiate('block', featureSet([32]))), 'vhost-user-reply-invalid');
    assert.equal(codeOf(front.caller.tell('SET_OWNER')), 'vhost-user-reply-invalid', 'it is not spoken to again');
  });
});

test('VERSION_1 is not optional', () => {
  meet(
    {},
    (front) => assert.equal(codeOf(front.negotiate('block', featureSet([32]))), 'feature-required'),
    undefined,
    [28],
  );
});

test('configuration: too short, of another place, with values that no disk has, changing for ever', () => {
  const answer = (bytes: Uint8Array, offset = 0): Script => ({
    GET_CONFIG: reply('GET_CONFIG', { form: 'config', span: { offset, flags: 0, bytes } }),
  });
  meet(answer(new Uint8Array(4)), (front) => assert.equal(codeOf(front.readConfig(block)), 'config-too-short'));
  meet(answer(new Uint8Array(8), 1), (front) => assert.equal(codeOf(front.readConfig(block)), 'config-too-short'));
  meet(answer(new Uint8Array(4096)), (front) => assert.equal(codeOf(front.readConfig(block)), 'config-too-short'));
  meet({ GET_CONFIG: reply('GET_CONFIG', NO_PAYLOAD) }, (front) => {
    assert.equal(codeOf(front.readConfig(block)), 'config-too-short');
    assert.equal(codeOf(front.readConfigBytes(4)), 'config-too-short', 'it may be asked again');
  });
  meet(answer(new Uint8Array(8).fill(0xff)), (front) => {
    assert.equal(codeOf(front.readConfig(block)), 'config-value-invalid');
  });
  let held: ScriptedBackEnd | null = null;
  const restless: Script = {
    GET_CONFIG: ({ payload }) => {
      const bytes = encodeMessage(BACK_END_MESSAGES.BACKEND_CONFIG_CHANGE_MSG.number, 0, NO_PAYLOAD);
      must(send(systemCalls, held?.channel ?? -1, bytes));
      return reply('GET_CONFIG', { form: 'opaque', bytes: payload });
    },
  };
  meet(
    restless,
    (front, back) => {
      held = back;
      assert.equal(codeOf(front.readConfig(block)), 'config-unstable');
    },
    ['CONFIG', 'BACKEND_REQ', 'REPLY_ACK'],
  );
});

test('the back-end’s channel: requests that were not negotiated, garbage, floods, half messages', () => {
  const speak = (front: FrontEnd, back: ScriptedBackEnd, bytes: Uint8Array): string => {
    back.pump();
    must(send(systemCalls, back.channel, bytes));
    return front.serveChannel()?.code ?? 'no problem';
  };
  const notifier = encodeMessage(3, 0, { form: 'opaque', bytes: new Uint8Array(24) });
  const cases: readonly (readonly [Uint8Array, string])[] = [
    [notifier, 'vhost-user-unsupported'],
    [encodeMessage(77, 0, NO_PAYLOAD), 'vhost-user-unsupported'],
    [encodeMessage(1, 0, NO_PAYLOAD), 'vhost-user-payload-size'],
    [new Uint8Array(12).fill(0xff), 'vhost-user-version'],
    [encodeMessage(2, 0, NO_PAYLOAD).slice(0, 5), 'no problem'],
  ];
  for (const [bytes, code] of cases) {
    meet({}, (front, back) => assert.equal(speak(front, back, bytes), code), ['BACKEND_REQ', 'CONFIG', 'REPLY_ACK']);
  }
  meet(
    {},
    (front, back) => {
      // A flood is taken in portions; a miss for memory that is not ours is answered with no.
      const one = encodeMessage(2, 0, NO_PAYLOAD);
      const many = new Uint8Array(one.length * 1000);
      for (let i = 0; i < 1000; i++) many.set(one, i * one.length);
      assert.equal(speak(front, back, many), 'no problem');
      // As many as fit into one read.
      assert.equal(front.configGeneration, Math.floor(4096 / one.length));
      const entry = { address: 0x7000_0000_0000, size: 0, userAddress: 0, access: 3, type: 1 };
      for (let i = 0; i < 20; i++) assert.equal(front.serveChannel(), null);
      assert.equal(speak(front, back, encodeMessage(1, NEED_REPLY, { form: 'iotlb', entry })), 'no problem');
      assert.equal(back.told.includes('IOTLB_MSG'), false);
    },
    ['BACKEND_REQ', 'CONFIG', 'REPLY_ACK'],
  );
});

test('a record of requests in flight: none given, a descriptor without one, beyond reason', () => {
  const area = (size: number): Uint8Array =>
    reply('GET_INFLIGHT_FD', { form: 'inflight', area: { size, offset: 0, queues: 1, queueSize: 8 } });
  const spare = must(createSharedMemory(systemCalls, 'spare', 4096)).fd;
  for (const [said, code] of [
    [area(0), 'no problem'],
    [area(4096), 'no problem'],
    [{ bytes: area(0), fds: [spare] }, 'no problem'],
    [{ bytes: area(4096), fds: [spare] }, 'no problem'],
    [{ bytes: area(2 ** 40), fds: [spare] }, 'vhost-user-inflight-invalid'],
    [{ bytes: area(4096), fds: [spare, spare] }, 'vhost-user-reply-invalid'],
  ] as const) {
    meet(
      { GET_INFLIGHT_FD: said },
      (front) => {
        must(front.negotiate('block', featureSet([32])));
        assert.equal(codeOf(front.setUp({ queues: 1, size: 8, pool: POOL })), code);
      },
      ['INFLIGHT_SHMFD', 'REPLY_ACK'],
    );
  }
  systemCalls.close(spare);
});

test('a queue that stops elsewhere, and a request that is never answered', () => {
  meet({ GET_VRING_BASE: reply('GET_VRING_BASE', { form: 'vring', index: 5, value: 0 }) }, (front) => {
    must(front.negotiate('block', featureSet([32])));
    const queues = must(front.setUp({ queues: 1, size: 8, pool: POOL }));
    assert.equal(codeOf(queues.stopOne(0)), 'vhost-user-reply-invalid');
  });
  meet({}, (front) => {
    must(front.negotiate('block', featureSet([32])));
    const queue = must(front.setUp({ queues: 1, size: 8, pool: POOL })).all[0];
    const pool = front.memory?.pool;
    assert.ok(queue !== undefined && pool !== undefined);
    const ask = { queue, pool, out: [Uint8Array.of(1)], in: [8], timeout: 1000, now: front.now };
    assert.equal(codeOf(exchange(ask)), 'driver-timeout');
    // The device may still write there: the slices are not for anybody else.
    assert.equal(pool.free(), 6);
    assert.equal(codeOf(exchange({ ...ask, in: Array.from({ length: 7 }, () => 8) })), 'driver-pool-empty');
    assert.equal(pool.free(), 6);
  });
});

/** Writes a used element as the device would, with whatever id and length. */
function use(front: FrontEnd, id: number, length: number, index: number): void {
  const queue = front.queues?.all[0];
  const { memory } = front;
  assert.ok(queue !== undefined && memory !== null);
  const { buffer, byteOffset } = memory.pool.region.view;
  const view = new DataView(buffer, byteOffset - (memory.pool.address - memory.entry.guestAddress));
  const used = queue.addresses.device - memory.entry.guestAddress;
  view.setUint32(used + 4, id, true);
  view.setUint32(used + 8, length, true);
  view.setUint16(used + 2, index, true);
}

test('completions that are not due, and answers that are not there, are no answers', () => {
  const config = new Uint8Array(96);
  new DataView(config.buffer).setUint32(0, 1000, true);
  const disk: Script = {
    GET_CONFIG: ({ payload }) => {
      const bytes = payload.slice();
      bytes.set(config.subarray(0, bytes.length - 12), 12);
      return reply('GET_CONFIG', { form: 'opaque', bytes });
    },
  };
  const options = { queues: 1, size: 8, transfer: 4096, depth: 2 };
  for (const [id, length, index, code] of [
    [0, 513, 1, 'driver-request-failed'], // the status byte was not written
    [7, 513, 1, 'used-id-not-in-flight'],
    [8, 513, 1, 'used-id-out-of-range'],
    [0xffff_ffff, 513, 1, 'used-id-out-of-range'],
    [0, 513, 2, 'used-index-jump'],
    [0, 513, 0xffff, 'used-index-jump'],
  ] as const) {
    meet(disk, (front, back) => {
      const driver = must(BlockDriver.open(front, options));
      const { wait } = back;
      let lies = 0;
      // The lie comes while the driver sleeps.
      const queue = driver.queues.all[0];
      assert.ok(queue !== undefined);
      const sleep = queue.sleep.bind(queue);
      queue.sleep = (milliseconds) => {
        if (lies++ === 0) use(front, id, length, index);
        return sleep(milliseconds);
      };
      assert.equal(codeOf(driver.read(0, 512)), code);
      assert.ok(wait !== undefined && lies > 0);
      const again = codeOf(driver.read(0, 512));
      assert.equal(again === 'no problem', false, 'and the next request is no better off');
    });
  }
  // A status that says yes while the data are missing.
  meet(disk, (front) => {
    const driver = must(BlockDriver.open(front, options));
    const queue = driver.queues.all[0];
    assert.ok(queue !== undefined);
    const sleep = queue.sleep.bind(queue);
    let lies = 0;
    queue.sleep = (milliseconds) => {
      if (lies++ === 0) {
        const { view } = driver.pool.region;
        // Header and status share the first slice of the pool.
        view.setUint8(driver.pool.offsetOf(0) + 16, 0);
        use(front, 0, 1, 1);
      }
      return sleep(milliseconds);
    };
    assert.equal(codeOf(driver.read(0, 512)), 'driver-reply-short');
  });
});

test('the error descriptor of a queue ends the wait', () => {
  meet({}, (front) => {
    must(front.negotiate('block', featureSet([32])));
    const queue = must(front.setUp({ queues: 1, size: 8, pool: POOL })).all[0];
    const pool = front.memory?.pool;
    assert.ok(queue !== undefined && pool !== undefined);
    const one = Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0);
    const memory = systemCalls.allocate(8);
    memory.bytes.set(one);
    systemCalls.write(queue.errFd, memory.address, 8);
    const ask = { queue, pool, out: [Uint8Array.of(1)], in: [8], timeout: 1000, now: front.now };
    assert.equal(codeOf(exchange(ask)), 'vhost-user-queue-broken');
  });
});

test('replies are only what has the mark of one', () => {
  assert.equal(greeting({ GET_FEATURES: reply('GET_FEATURES', number(1), REPLY | NEED_REPLY) }), 'no problem');
});
