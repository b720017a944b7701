/**
 * A front-end that does everything wrong, byte by byte. After each offence: the code that names it, an acknowledgement
 * that says no where one was asked for, the connection ended where the stream cannot be trusted, no descriptor left open,
 * the device stopped, and the next front-end served.
 */
import assert from 'node:assert/strict';
import { closeSync, openSync } from 'node:fs';
import { test } from 'node:test';
import { createEventFd, signalEventFd } from '@airlock/transport/event-fd.ts';
import { HANGUP, READABLE } from '@airlock/transport/reactor.ts';
import { MFD_ALLOW_SEALING, MFD_CLOEXEC } from '@airlock/transport/sys/memory.ts';
import { socketPair } from '@airlock/transport/unix-socket.ts';
import { encodeMessage } from '@airlock/transport/vhost-user/message.ts';
import type { Payload } from '@airlock/transport/vhost-user/payload.ts';
import {
  FRONT_END_MESSAGES,
  type FrontEndMessage,
  NEED_REPLY,
  protocolFeatureSet,
  REPLY,
} from '@airlock/transport/vhost-user/protocol.ts';
import { DONE } from '@airlock/virtio/ring/queue.ts';
import { EchoDevice } from './support/echo-device.ts';
import {
  addressPayload,
  echoed,
  GUEST_BASE,
  mappedFiles,
  must,
  openDescriptors,
  placeQueue,
  ScriptedFrontEnd,
  startQueue,
  submit,
  systemCalls,
  USER_BASE,
} from './support/scripted-front-end.ts';

const u64 = (low: number, high = 0): Payload => ({ form: 'u64', words: [low, high] });
const vring = (index: number, value: number): Payload => ({ form: 'vring', index, value });
const vringFd = (index: number, hasFd: boolean): Payload => ({ form: 'vring-fd', index, hasFd });

/** Runs a script against a fresh back-end, and checks what must hold whatever the script did. */
function offend(script: (front: ScriptedFrontEnd, device: EchoDevice) => void, device = new EchoDevice()): void {
  const before = openDescriptors();
  const mapped = mappedFiles();
  const front = new ScriptedFrontEnd(device);
  script(front, device);
  front.end();
  assert.equal(openDescriptors(), before, 'descriptors were left open');
  assert.equal(mappedFiles(), mapped, 'memory was left mapped');
  assert.equal(front.reactor.watchCount, 0);
  assert.equal(front.reactor.pollerCount, 0);
  const starts = device.log.filter((one) => one === 'start').length;
  assert.equal(device.log.filter((one) => one === 'stop').length, starts, 'the device was left running');
  assert.equal(device.queues.size, 0);
  stillServes(device);
}

/** The same device serves whoever comes next. */
function stillServes(device: EchoDevice): void {
  const front = new ScriptedFrontEnd(device);
  const features = front.negotiate();
  const ram = front.ram(2 * 65536);
  assert.equal(front.ack('ADD_MEM_REG', { form: 'region', region: ram.region }, [ram.fd]), 0);
  const queue = startQueue(front, ram, 0, 8, features);
  assert.equal(submit(ram, queue, 0, Uint8Array.of(1, 2, 3)), DONE);
  queue.driver.publish();
  front.reactor.turn();
  assert.equal(queue.driver.complete(), DONE);
  assert.deepEqual(echoed(ram, queue, 0, 3), Uint8Array.of(3, 2, 1));
  front.end();
}

function header(request: number, flags: number, size: number): Uint8Array {
  const bytes = new Uint8Array(12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, request, true);
  view.setUint32(4, flags, true);
  view.setUint32(8, size, true);
  return bytes;
}

for (const [name, bytes, code] of [
  ['another version', header(1, 2, 0), 'vhost-user-version'],
  ['no version', header(1, 0, 0), 'vhost-user-version'],
  ['flags that mean nothing', header(1, 1 | 16, 0), 'vhost-user-flags'],
  ['a request that says it is a reply', header(1, 1 | REPLY, 0), 'vhost-user-flags'],
  ['a payload of four gigabytes', header(2, 1, 0xffff_ffff), 'vhost-user-too-large'],
  ['a payload one byte too long for any message', header(2, 1, 12 + 4096 + 1), 'vhost-user-too-large'],
] as const) {
  test(`the connection ends: ${name}`, () => {
    offend((front) => {
      front.raw(bytes);
      assert.equal(front.connected, false);
      assert.deepEqual(front.problems, [code]);
    });
  });
}

test('unknown messages are refused where an answer is asked for, and otherwise change nothing', () => {
  offend((front) => {
    front.negotiate();
    for (const request of [0, 45, 255, 0x7fff_ffff, 0xffff_ffff]) {
      front.raw(encodeMessage(request, NEED_REPLY, u64(1)));
      const reply = front.reply();
      assert.equal(reply?.request, request);
      assert.deepEqual([...(reply?.payload ?? [])], [1, 0, 0, 0, 0, 0, 0, 0]);
      front.raw(encodeMessage(request, 0, u64(1)));
      assert.equal(front.reply(), null);
    }
    assert.equal(front.connected, true);
    assert.equal(new Set(front.problems).size, 1);
    assert.equal(front.problems[0], 'vhost-user-unknown');
    assert.equal(front.askNumber('GET_QUEUE_NUM'), 2);
  });
});

test('every message with every wrong size, and with descriptors that do not belong to it', () => {
  for (const name of Object.keys(FRONT_END_MESSAGES) as FrontEndMessage[]) {
    const { number } = FRONT_END_MESSAGES[name];
    for (const size of [0, 1, 4, 7, 8, 9, 12, 16, 20, 24, 26, 31, 32, 39, 40, 41, 100, 264, 300, 4108]) {
      for (const descriptors of [0, 1, 3, 8]) {
        // Half of the payloads are zeros; the others are as large as numbers get.
        for (const fill of [0, 0xff]) {
          const before = openDescriptors();
          const front = new ScriptedFrontEnd(new EchoDevice());
          front.negotiate();
          const fds = Array.from({ length: descriptors }, () => front.eventFd());
          const bytes = new Uint8Array(12 + size).fill(fill);
          bytes.set(header(number, 1 | NEED_REPLY, size));
          front.raw(bytes, fds);
          for (let reply = front.reply(); reply !== null; reply = front.reply()) {
            for (const fd of reply.fds) systemCalls.close(fd);
          }
          if (front.connected) assert.equal(front.askNumber('GET_QUEUE_NUM'), 2, `${name}, ${size} bytes`);
          else assert.equal(front.problems.length > 0, true);
          front.end();
          assert.equal(openDescriptors(), before, `${name}, ${size} bytes, ${descriptors} descriptors`);
        }
      }
    }
  }
});

test('the wrong number of descriptors is refused, and so is a table of another size than it says', () => {
  offend((front) => {
    front.negotiate();
    const ram = front.ram(65536);
    const fds = (count: number): number[] => Array.from({ length: count }, () => ram.fd);
    const region: Payload = { form: 'region', region: ram.region };
    const table: Payload = { form: 'regions', regions: [ram.region] };
    const signal = (count: number): number[] => Array.from({ length: count }, () => front.eventFd());
    assert.equal(front.ack('SET_VRING_CALL', vringFd(0, true), []), 1);
    assert.equal(front.ack('SET_VRING_CALL', vringFd(0, true), signal(2)), 1);
    assert.equal(front.ack('SET_VRING_CALL', vringFd(0, false), signal(1)), 1);
    assert.equal(front.ack('SET_VRING_NUM', vring(0, 8), signal(1)), 1);
    assert.equal(front.ack('ADD_MEM_REG', region, []), 1);
    assert.equal(front.ack('ADD_MEM_REG', region, fds(2)), 1);
    assert.equal(front.ack('SET_MEM_TABLE', table, []), 1);
    assert.equal(front.ack('SET_MEM_TABLE', table, fds(2)), 1);
    assert.equal(front.ack('SET_BACKEND_REQ_FD', { form: 'none' }, []), 1);
    assert.deepEqual([...new Set(front.problems)], ['vhost-user-descriptors']);
    front.events.length = 0;
    // One region more, or less, than there are.
    for (const count of [0, 2, 8]) {
      const bytes = encodeMessage(FRONT_END_MESSAGES.SET_MEM_TABLE.number, NEED_REPLY, table);
      bytes[12] = count;
      front.raw(bytes, [ram.fd]);
      assert.equal(front.reply()?.payload[0], 1);
    }
    assert.deepEqual([...new Set(front.problems)], ['vhost-user-payload-size']);
  });
});

test('nine descriptors with one message, and descriptors that come with its second half', () => {
  offend((front) => {
    const fds = Array.from({ length: 9 }, () => front.eventFd());
    front.raw(header(1, 1, 0), fds);
    assert.equal(front.connected, false);
    assert.deepEqual(front.problems, ['descriptors-cut']);
  });
  offend((front) => {
    front.negotiate();
    const bytes = encodeMessage(FRONT_END_MESSAGES.SET_VRING_CALL.number, NEED_REPLY, vringFd(0, true));
    const fds = Array.from({ length: 5 }, () => front.eventFd());
    front.raw(bytes.slice(0, 12), fds);
    front.raw(bytes.slice(12, 16), fds);
    front.raw(bytes.slice(16));
    assert.equal(front.connected, false);
    assert.deepEqual(front.problems, ['vhost-user-descriptors']);
  });
});

test('a message that comes byte by byte does not hold up the queues', () => {
  offend((front) => {
    const features = front.negotiate();
    const ram = front.ram(2 * 65536);
    front.ack('ADD_MEM_REG', { form: 'region', region: ram.region }, [ram.fd]);
    const queue = startQueue(front, ram, 0, 8, features);
    const bytes = encodeMessage(FRONT_END_MESSAGES.GET_CONFIG.number, 0, {
      form: 'config',
      span: { offset: 0, flags: 0, bytes: new Uint8Array(8) },
    });
    for (const [i, byte] of bytes.entries()) {
      front.raw(Uint8Array.of(byte));
      assert.equal(submit(ram, queue, i % 8, Uint8Array.of(i, 2, 3)), DONE);
      queue.driver.publish();
      front.reactor.turn();
      assert.equal(queue.driver.complete(), DONE);
    }
    assert.deepEqual(front.reply()?.payload.slice(12), Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8));
  });
});

test('the end within a message, at every byte of it', () => {
  const whole = encodeMessage(FRONT_END_MESSAGES.SET_VRING_KICK.number, 0, vringFd(0, true));
  for (let length = 1; length < whole.length; length++) {
    const before = openDescriptors();
    const device = new EchoDevice();
    const front = new ScriptedFrontEnd(device);
    front.negotiate();
    front.raw(whole.slice(0, length), [front.eventFd()]);
    front.hangUp();
    assert.deepEqual(front.problems, ['vhost-user-cut-off']);
    // The script's end of the socket is closed already.
    front.backEnd.close();
    front.closeOwned();
    assert.equal(openDescriptors(), before);
  }
});

test('whoever does not read its replies is not listened to, and costs no more memory than a few of them', () => {
  offend((front) => {
    front.negotiate();
    const one = encodeMessage(FRONT_END_MESSAGES.GET_FEATURES.number, 0, { form: 'none' });
    const many = new Uint8Array(one.length * 1000);
    for (let i = 0; i < 1000; i++) many.set(one, i * one.length);
    for (let i = 0; i < 200 && front.connected; i++) if (!front.tryRaw(many)) break;
    assert.equal(front.connected, true);
    // It goes on as soon as somebody reads.
    for (let i = 0; i < 100; i++) assert.notEqual(front.reply(), null);
  });
});

test('features: not offered, protocol features not offered, too few, too late', () => {
  offend((front) => {
    front.negotiate();
    assert.equal(front.ack('SET_FEATURES', u64(1 << 3, 1)), 1);
    assert.equal(front.ack('SET_FEATURES', u64(0, 0x8000_0000)), 1);
    assert.equal(front.ack('SET_PROTOCOL_FEATURES', u64(1 << 14)), 1);
    assert.equal(front.ack('SET_PROTOCOL_FEATURES', u64(0, 1)), 1);
    assert.deepEqual([...new Set(front.problems)], ['feature-not-offered', 'vhost-user-protocol-features']);
  });
  offend((front) => {
    // VERSION_1 is missing: nothing starts.
    const features = front.negotiate([]);
    const ram = front.ram(2 * 65536);
    front.ack('ADD_MEM_REG', { form: 'region', region: ram.region }, [ram.fd]);
    assert.equal(features[1], 0);
    front.ack('SET_VRING_NUM', vring(0, 8));
    front.ack(
      'SET_VRING_ADDR',
      addressPayload(0, { descriptors: USER_BASE, driver: USER_BASE + 256, device: USER_BASE + 512 }),
    );
    front.ack('SET_VRING_KICK', vringFd(0, false));
    assert.equal(front.ack('SET_VRING_ENABLE', vring(0, 1)), 1);
    assert.deepEqual(front.problems, ['feature-required']);
  });
  offend((front) => {
    const features = front.negotiate();
    const ram = front.ram(2 * 65536);
    front.ack('ADD_MEM_REG', { form: 'region', region: ram.region }, [ram.fd]);
    startQueue(front, ram, 0, 8, features);
    assert.equal(front.ack('SET_FEATURES', u64((features[0] | (1 << 28)) >>> 0, features[1])), 1);
    assert.equal(front.ack('SET_FEATURES', u64(features[0], features[1])), 0);
    assert.deepEqual(front.problems, ['vhost-user-order']);
  });
});

test('a status asked for before it was agreed on, and answers that nobody can say no with, end the connection', () => {
  offend((front) => {
    front.tell('SET_STATUS', u64(1));
    assert.equal(front.connected, false);
    assert.deepEqual(front.problems, ['vhost-user-not-negotiated']);
  });
  offend((front) => {
    front.negotiate();
    front.tell('GET_VRING_BASE', vring(2, 0));
    assert.equal(front.connected, false);
    assert.deepEqual(front.problems, ['vhost-user-no-queue']);
  });
  offend((front) => {
    front.negotiate();
    front.tell('POSTCOPY_ADVISE');
    assert.equal(front.connected, false);
    assert.deepEqual(front.problems, ['vhost-user-not-negotiated']);
  });
});

test('an offence without a question for an answer ends the connection', () => {
  offend((front) => {
    front.negotiate();
    front.tell('SET_VRING_NUM', vring(7, 8));
    assert.equal(front.connected, false);
    assert.deepEqual(front.problems, ['vhost-user-no-queue']);
  });
});

test('queues that do not exist, sizes that no queue has, addresses that lead nowhere', () => {
  offend((front) => {
    const features = front.negotiate();
    for (const index of [2, 255]) {
      assert.equal(front.ack('SET_VRING_NUM', vring(index, 8)), 1);
      assert.equal(front.ack('SET_VRING_BASE', vring(index, 0)), 1);
      assert.equal(front.ack('SET_VRING_ENABLE', vring(index, 1)), 1);
      assert.equal(front.ack('SET_VRING_KICK', vringFd(index, true), [front.eventFd()]), 1);
      assert.equal(front.ack('SET_VRING_CALL', vringFd(index, true), [front.eventFd()]), 1);
      assert.equal(front.ack('SET_VRING_ERR', vringFd(index, true), [front.eventFd()]), 1);
      assert.equal(front.ack('SET_VRING_ADDR', addressPayload(index, { descriptors: 0, driver: 0, device: 0 })), 1);
    }
    assert.deepEqual([...new Set(front.problems)], ['vhost-user-no-queue']);
    front.events.length = 0;
    for (const size of [0, 65, 0x8000_0000, 0xffff_ffff]) assert.equal(front.ack('SET_VRING_NUM', vring(0, size)), 1);
    assert.deepEqual([...new Set(front.problems)], ['queue-size-invalid']);
    front.events.length = 0;
    // Not a power of two: found when the queue starts, because only then the kind of ring is known.
    const ram = front.ram(2 * 65536);
    front.ack('ADD_MEM_REG', { form: 'region', region: ram.region }, [ram.fd]);
    const { offsets } = placeQueue(0, 8, false);
    const at = (base: number): Payload =>
      addressPayload(0, {
        descriptors: base + offsets.descriptors,
        driver: base + offsets.driver,
        device: base + offsets.device,
      });
    assert.equal(front.ack('SET_VRING_KICK', vringFd(0, true), [front.eventFd()]), 0);
    assert.equal(front.ack('SET_VRING_ENABLE', vring(0, 1)), 1);
    assert.equal(front.ack('SET_VRING_NUM', vring(0, 7)), 0);
    assert.equal(front.ack('SET_VRING_ADDR', at(USER_BASE)), 0);
    assert.equal(front.ack('SET_VRING_ENABLE', vring(0, 1)), 1);
    assert.equal(front.ack('SET_VRING_NUM', vring(0, 8)), 0);
    for (const base of [USER_BASE + 1, GUEST_BASE, USER_BASE + 2 * 65536 - 64, 0, 2 ** 53, 2 ** 63]) {
      assert.equal(front.ack('SET_VRING_ADDR', at(base)), 0);
      assert.equal(front.ack('SET_VRING_ENABLE', vring(0, 1)), 1, `${base}`);
    }
    assert.deepEqual(
      [...new Set(front.problems)],
      ['vhost-user-order', 'queue-size-invalid', 'queue-part-misaligned', 'queue-part-outside-memory'],
    );
    assert.equal(front.ack('SET_VRING_ADDR', at(USER_BASE)), 0);
    assert.equal(front.ack('SET_VRING_ENABLE', vring(0, 1)), 0);
    // And now it runs: nothing of it may change under the device.
    front.events.length = 0;
    assert.equal(front.ack('SET_VRING_NUM', vring(0, 4)), 1);
    assert.equal(front.ack('SET_VRING_BASE', vring(0, 4)), 1);
    assert.equal(front.ack('SET_VRING_ADDR', at(USER_BASE + 65536)), 1);
    assert.equal(front.ack('SET_VRING_ENABLE', vring(0, 2)), 1);
    assert.deepEqual([...new Set(front.problems)], ['vhost-user-order', 'vhost-user-payload-invalid']);
    assert.equal(features[1], 1);
  });
});

test('memory: not sealed, no memfd, larger than its file, overlapping, at impossible addresses', () => {
  offend((front) => {
    front.negotiate();
    const ram = front.ram(65536);
    const add = (region: object, fd: number): number =>
      front.ack('ADD_MEM_REG', { form: 'region', region: { ...ram.region, ...region } }, [fd]);
    const unsealed = front.own(systemCalls.memfdCreate('unsealed', MFD_CLOEXEC | MFD_ALLOW_SEALING));
    systemCalls.ftruncate(unsealed, 65536);
    const file = openSync('/proc/self/status', 'r');
    assert.equal(add({}, unsealed), 1);
    assert.equal(add({}, file), 1);
    closeSync(file);
    assert.equal(add({}, front.eventFd()), 1);
    assert.deepEqual([...new Set(front.problems)], ['memory-not-sealed']);
    front.events.length = 0;
    for (const region of [
      { size: 65537 },
      { size: 0 },
      { size: 2 ** 63 },
      { offset: 1, size: 65536 },
      { offset: 2 ** 53 },
      { offset: 2 ** 64 - 4096 },
      { guestAddress: 2 ** 53 - 4096 },
      { guestAddress: 2 ** 64 - 4096 },
      { userAddress: 2 ** 64 - 65536 },
    ]) {
      assert.equal(add(region, ram.fd), 1, JSON.stringify(region));
    }
    assert.deepEqual([...new Set(front.problems)], ['memory-size-invalid', 'memory-table-invalid']);
    assert.equal(add({}, ram.fd), 0);
    assert.equal(add({}, ram.fd), 1);
    assert.equal(add({ guestAddress: GUEST_BASE + 4096 }, ram.fd), 1);
    assert.equal(add({ guestAddress: GUEST_BASE + 65536, userAddress: USER_BASE - 1 }, ram.fd), 1);
    // What is not there cannot be taken away; the descriptor of older front-ends is closed.
    const gone: Payload = { form: 'region', region: { ...ram.region, guestAddress: 4096 } };
    assert.equal(front.ack('REM_MEM_REG', gone), 1);
    assert.equal(front.ack('REM_MEM_REG', { form: 'region', region: ram.region }, [ram.fd]), 0);
    assert.equal(front.ack('REM_MEM_REG', { form: 'region', region: ram.region }), 1);
  });
});

test('as many regions as there are slots, and one more', () => {
  offend((front) => {
    front.negotiate();
    const ram = front.ram(4096);
    const slots = front.askNumber('GET_MAX_MEM_SLOTS');
    for (let i = 0; i <= slots; i++) {
      // Two pages apart, so that no two join.
      const region = { guestAddress: i * 8192, userAddress: USER_BASE + i * 8192, size: 4096, offset: 0 };
      assert.equal(front.ack('ADD_MEM_REG', { form: 'region', region }, [ram.fd]), i < slots ? 0 : 1);
    }
  });
});

test('a memory table with one wrong entry changes nothing, and a right one leaves no request behind', () => {
  offend((front, device) => {
    device.hold = true;
    const features = front.negotiate();
    const ram = front.ram(2 * 65536);
    assert.equal(front.ack('SET_MEM_TABLE', { form: 'regions', regions: [ram.region] }, [ram.fd]), 0);
    const queue = startQueue(front, ram, 0, 8, features);
    submit(ram, queue, 0, Uint8Array.of(1, 2, 3));
    queue.driver.publish();
    front.reactor.turn();
    assert.equal(device.taken.length, 1);
    const second = { ...ram.region, guestAddress: GUEST_BASE + 2 ** 30, userAddress: USER_BASE + 1 };
    const bad: Payload = { form: 'regions', regions: [ram.region, second] };
    assert.equal(front.ack('SET_MEM_TABLE', bad, [ram.fd, ram.fd]), 1);
    assert.deepEqual(device.log, ['start', 'queue 0']);
    // The same memory elsewhere: what is in flight is finished in the old place before that is unmapped.
    const moved = { ...ram.region, guestAddress: GUEST_BASE + 2 ** 30 };
    assert.equal(front.ack('SET_MEM_TABLE', { form: 'regions', regions: [moved] }, [ram.fd]), 0);
    assert.deepEqual(device.log, ['start', 'queue 0', 'stop-queue 0', 'queue 0']);
    assert.equal(queue.driver.complete(), DONE);
    assert.deepEqual(echoed(ram, queue, 0, 3), Uint8Array.of(3, 2, 1));
    // And the ring goes on where it was.
    device.hold = false;
    device.taken.length = 0;
    queue.driver.readable(GUEST_BASE + 2 ** 30 + queue.data, 3);
    queue.driver.writable(GUEST_BASE + 2 ** 30 + queue.data + 128, 8);
    assert.equal(queue.driver.submit(5), DONE);
    queue.driver.publish();
    front.reactor.turn();
    assert.equal(queue.driver.complete(), DONE);
    assert.equal(queue.driver.written, 3);
  });
});

test('memory that goes away under a running queue stops it, and says so', () => {
  offend((front, device) => {
    const features = front.negotiate();
    const ram = front.ram(2 * 65536);
    front.ack('ADD_MEM_REG', { form: 'region', region: ram.region }, [ram.fd]);
    const err = front.eventFd();
    startQueue(front, ram, 0, 8, features);
    front.ack('SET_VRING_ERR', vringFd(0, true), [err]);
    assert.equal(front.ack('REM_MEM_REG', { form: 'region', region: ram.region }), 0);
    assert.deepEqual(device.log, ['start', 'queue 0', 'stop-queue 0']);
    assert.deepEqual(front.problems, ['queue-part-outside-memory']);
    assert.ok(front.signalled(err));
  });
});

test('a driver that breaks the ring: NEEDS_RESET, the error descriptor, and nothing more until a reset', () => {
  offend((front, device) => {
    const features = front.negotiate();
    const ram = front.ram(2 * 65536);
    front.ack('ADD_MEM_REG', { form: 'region', region: ram.region }, [ram.fd]);
    const queue = startQueue(front, ram, 0, 8, features);
    const err = front.eventFd();
    front.ack('SET_VRING_ERR', vringFd(0, true), [err]);
    front.ack('SET_STATUS', u64(15));
    const { offsets } = placeQueue(0, 8, false);
    // The available index jumps.
    ram.mapping.region.view.setUint16(offsets.driver + 2, 1000, true);
    front.reactor.turn();
    assert.deepEqual(front.problems, ['avail-index-jump']);
    assert.ok(front.signalled(err));
    assert.equal(front.askNumber('GET_STATUS'), 15 | 64);
    front.reactor.turn();
    assert.deepEqual(front.problems, ['avail-index-jump']);
    assert.equal(front.ack('SET_STATUS', u64(0)), 0);
    assert.equal(front.askNumber('GET_STATUS'), 0);
    assert.deepEqual(device.log, ['start', 'queue 0', 'stop-queue 0', 'stop']);
    ram.mapping.region.bytes.fill(0);
    front.tell('SET_FEATURES', u64(features[0], features[1]));
    const again = startQueue(front, ram, 0, 8, features);
    submit(ram, again, 0, Uint8Array.of(1, 2));
    again.driver.publish();
    front.reactor.turn();
    assert.equal(again.driver.complete(), DONE);
    assert.notEqual(queue, again);
  });
});

test('descriptors that are no eventfd: files, folders, memory, sockets that are no sockets', () => {
  offend((front) => {
    front.negotiate();
    const file = front.own(openSync('/proc/self/status', 'r'));
    const folder = front.own(openSync('/', 'r'));
    const ram = front.ram(4096);
    const zero = front.own(openSync('/dev/zero', 'r'));
    for (const fd of [file, folder, ram.fd, zero]) {
      assert.equal(front.ack('SET_VRING_KICK', vringFd(0, true), [fd]), 1);
      assert.equal(front.ack('SET_VRING_CALL', vringFd(0, true), [fd]), 1);
      assert.equal(front.ack('SET_VRING_ERR', vringFd(0, true), [fd]), 1);
      assert.equal(front.ack('SET_BACKEND_REQ_FD', { form: 'none' }, [fd]), 1);
    }
    assert.equal(front.ack('SET_BACKEND_REQ_FD', { form: 'none' }, [front.eventFd()]), 1);
    assert.deepEqual([...new Set(front.problems)], ['vhost-user-descriptors']);
  });
});

test('a kick that fails is looked at at intervals instead, and does not keep the process awake', () => {
  offend((front) => {
    const features = front.negotiate();
    const ram = front.ram(2 * 65536);
    front.ack('ADD_MEM_REG', { form: 'region', region: ram.region }, [ram.fd]);
    const queue = startQueue(front, ram, 0, 8, features);
    const before = front.reactor.watchCount;
    front.tellKick(HANGUP | READABLE);
    assert.deepEqual(front.problems, ['vhost-user-kick-broken']);
    assert.equal(front.reactor.watchCount, before - 1);
    submit(ram, queue, 0, Uint8Array.of(7, 8));
    queue.driver.publish();
    front.reactor.advance(2);
    assert.equal(queue.driver.complete(), DONE);
  });
});

test('a back-end’s channel that nobody reads costs one change and one miss for each queue', () => {
  offend((front, device) => {
    const features = front.negotiate([32, 33]);
    const ram = front.ram(2 * 65536);
    front.ack('ADD_MEM_REG', { form: 'region', region: ram.region }, [ram.fd]);
    const [near, far] = must(socketPair(systemCalls));
    front.own(near);
    front.own(far);
    assert.equal(front.ack('SET_BACKEND_REQ_FD', { form: 'none' }, [far]), 0);
    // Its ring is not translated: asked for once, however often the queue is told to start.
    front.ack('SET_VRING_NUM', vring(0, 8));
    front.ack('SET_VRING_ADDR', addressPayload(0, { descriptors: 65536, driver: 69632, device: 73728 }));
    front.ack('SET_VRING_KICK', vringFd(0, false));
    for (let i = 0; i < 1000; i++) {
      assert.equal(front.ack('SET_VRING_ENABLE', vring(0, 1)), 0);
      front.reactor.turn();
    }
    assert.equal(front.readChannel(near).length, 1);
    assert.equal(device.log.length, 0);
    assert.equal(features[1], 3);
  });
});

test('IOTLB messages that make no sense are refused one by one', () => {
  offend((front) => {
    front.negotiate([32, 33]);
    const ram = front.ram(65536);
    front.ack('ADD_MEM_REG', { form: 'region', region: ram.region }, [ram.fd]);
    const good = { address: 4096, size: 4096, userAddress: USER_BASE, access: 3, type: 2 };
    const send = (change: object): number => front.ack('IOTLB_MSG', { form: 'iotlb', entry: { ...good, ...change } });
    assert.equal(send({}), 0);
    for (const change of [
      { type: 0 },
      { type: 1 },
      { type: 4 },
      { type: 255 },
      { access: 0 },
      { access: 4 },
      { size: 0 },
      { size: 2 ** 63 },
      { userAddress: 0 },
      { userAddress: USER_BASE + 65536 },
      { userAddress: USER_BASE + 61441 },
      { address: 2 ** 53 },
      { address: 2 ** 64 - 4096 },
    ]) {
      assert.equal(send(change), 1, JSON.stringify(change));
    }
    assert.equal(send({ type: 3, address: 0, size: 2 ** 64 }), 0);
  });
  offend((front) => {
    front.negotiate();
    const entry = { address: 0, size: 4096, userAddress: 0, access: 3, type: 2 };
    assert.equal(front.ack('IOTLB_MSG', { form: 'iotlb', entry }), 1);
    assert.deepEqual(front.problems, ['vhost-user-order']);
  });
});

test('inflight areas: too many queues, too small, not sealed, contradicting themselves', () => {
  offend((front) => {
    const features = front.negotiate();
    const none = { size: 0, offset: 0, queues: 0, queueSize: 0 };
    for (const area of [
      { ...none, queues: 3, queueSize: 8 },
      { ...none, queues: 2, queueSize: 65 },
      { ...none, queues: 0, queueSize: 8 },
      { ...none, queues: 2, queueSize: 0 },
    ]) {
      const reply = front.ask('GET_INFLIGHT_FD', { form: 'inflight', area });
      assert.deepEqual([...reply.payload.slice(0, 8)], [0, 0, 0, 0, 0, 0, 0, 0]);
      assert.deepEqual(reply.fds, []);
    }
    assert.deepEqual([...new Set(front.problems)], ['vhost-user-inflight-invalid']);
    front.events.length = 0;
    const ram = front.ram(65536);
    for (const area of [
      { size: 65536, offset: 0, queues: 2, queueSize: 32768 },
      { size: 65537, offset: 0, queues: 2, queueSize: 64 },
      { size: 8192, offset: 61440, queues: 2, queueSize: 64 },
      { size: 8192, offset: 4, queues: 2, queueSize: 64 },
      { size: 2 ** 63, offset: 0, queues: 2, queueSize: 64 },
      { size: 0, offset: 0, queues: 2, queueSize: 64 },
    ]) {
      const answer = front.ack('SET_INFLIGHT_FD', { form: 'inflight', area }, [ram.fd]);
      // A record that has no place for a queue is found when the queue starts.
      if (answer === 0) assert.equal(area.queueSize, 32768);
    }
    // Whatever stands in a record: the queue starts or it does not, and nothing else happens.
    front.ack('ADD_MEM_REG', { form: 'region', region: ram.region }, [ram.fd]);
    const record = front.ram(16384, 0, 0);
    for (let seed = 1; seed < 200; seed++) {
      const { bytes } = record.mapping.region;
      let state = seed * 2654435761;
      for (let i = 0; i < bytes.length; i++) {
        state = (Math.imul(state, 1103515245) + 12345) >>> 0;
        bytes[i] = seed % 3 === 0 ? (state >>> 24) & 1 : (state >>> 16) & 0xff;
      }
      for (const at of [0, 8192]) {
        record.mapping.region.view.setUint16(at + 8, 1, true);
        record.mapping.region.view.setUint16(at + 10, 8, true);
      }
      const area = { size: 16384, offset: 0, queues: 2, queueSize: 64 };
      assert.equal(front.ack('SET_INFLIGHT_FD', { form: 'inflight', area }, [record.fd]), 0);
      front.ack('SET_VRING_NUM', vring(0, 8));
      front.ack(
        'SET_VRING_ADDR',
        addressPayload(0, { descriptors: USER_BASE, driver: USER_BASE + 256, device: USER_BASE + 512 }),
      );
      front.ack('SET_VRING_KICK', vringFd(0, false));
      front.ack('SET_VRING_ENABLE', vring(0, 1));
      front.reactor.turn(100);
      assert.equal(front.connected, true);
      front.ack('RESET_DEVICE');
      const bits = seed % 2 === 0 ? 0 : 4;
      front.ack('SET_FEATURES', u64(features[0], features[1] | bits));
    }
  });
});

test('a record that has no place for a queue: the queue does not start', () => {
  offend((front) => {
    front.negotiate();
    const ram = front.ram(2 * 65536);
    front.ack('ADD_MEM_REG', { form: 'region', region: ram.region }, [ram.fd]);
    const record = front.ram(4096, 0, 0);
    for (const [area, index] of [
      [{ size: 4096, offset: 0, queues: 1, queueSize: 64 }, 1],
      [{ size: 64, offset: 0, queues: 2, queueSize: 64 }, 0],
      [{ size: 272, offset: 0, queues: 2, queueSize: 64 }, 1],
      [{ size: 1536, offset: 0, queues: 2, queueSize: 4 }, 0],
    ] as const) {
      assert.equal(front.ack('SET_INFLIGHT_FD', { form: 'inflight', area }, [record.fd]), 0);
      const { offsets } = placeQueue(index, 8, false);
      front.ack('SET_VRING_NUM', vring(index, 8));
      front.ack(
        'SET_VRING_ADDR',
        addressPayload(index, {
          descriptors: USER_BASE + offsets.descriptors,
          driver: USER_BASE + offsets.driver,
          device: USER_BASE + offsets.device,
        }),
      );
      front.ack('SET_VRING_KICK', vringFd(index, false));
      assert.equal(front.ack('SET_VRING_ENABLE', vring(index, 1)), 1, JSON.stringify(area));
      front.ack('SET_VRING_ENABLE', vring(index, 0));
    }
    assert.deepEqual([...new Set(front.problems)], ['vhost-user-inflight-invalid']);
  });
});

test('configuration: outside, read-only, of a migrated device', () => {
  offend((front) => {
    front.negotiate();
    const config = (offset: number, length: number, flags = 0): Payload => ({
      form: 'config',
      span: { offset, flags, bytes: new Uint8Array(length) },
    });
    // What the device does not have reads as zero; what no device has is an error, which is an empty answer.
    assert.deepEqual([...front.ask('GET_CONFIG', config(4, 8)).payload.slice(12)], [5, 6, 7, 8, 0, 0, 0, 0]);
    assert.equal(front.ask('GET_CONFIG', config(4096, 0)).payload.length, 12);
    assert.equal(front.ask('GET_CONFIG', config(4096, 1)).payload.length, 0);
    assert.equal(front.ack('SET_CONFIG', config(4, 1)), 0);
    assert.equal(front.ack('SET_CONFIG', config(0, 1)), 1);
    assert.equal(front.ack('SET_CONFIG', config(4, 1, 1)), 1);
    assert.equal(front.ack('SET_CONFIG', config(4, 1, 2)), 1);
    // A guest's write to what is not its own must not end its VMM's connection.
    front.tell('SET_CONFIG', config(0, 1));
    assert.equal(front.connected, true);
  });
});

test('messages in any order, with any values, from a thousand front-ends', () => {
  const names = Object.keys(FRONT_END_MESSAGES) as FrontEndMessage[];
  const device = new EchoDevice();
  for (let seed = 1; seed <= 1000; seed++) {
    const before = openDescriptors();
    let state = (seed * 2654435761) >>> 0;
    const next = (below: number): number => {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      state >>>= 0;
      return state % below;
    };
    const front = new ScriptedFrontEnd(device);
    const ram = front.ram(2 * 65536);
    if (next(4) > 0) front.negotiate(next(2) === 0 ? [32] : [32, 34, 28, 33]);
    const number = (): number => [0, 1, 2, 8, 16, 64, 255, 65535, 0xffff_ffff][next(9)] ?? 0;
    const address = (): number =>
      [USER_BASE, USER_BASE + 4096, GUEST_BASE, 0, 4096, 2 ** 53, 2 ** 64 - 4096][next(7)] ?? 0;
    const region = {
      guestAddress: address(),
      userAddress: address(),
      size: [4096, 65536, 131072][next(3)] ?? 0,
      offset: 0,
    };
    for (let i = 0; i < 40 && front.connected; i++) {
      const name = names[next(names.length)] ?? 'GET_FEATURES';
      const kind = FRONT_END_MESSAGES[name];
      const payload = payloadFor(kind.payload, next, number, address, region);
      const wanted = kind.fds === 'none' ? 0 : payload.form === 'regions' ? payload.regions.length : 1;
      const fds = Array.from({ length: payload.form === 'vring-fd' && !payload.hasFd ? 0 : wanted }, () => {
        return ['region', 'regions', 'inflight'].includes(kind.payload) ? ram.fd : front.eventFd();
      });
      front.tell(name, payload, fds, next(2) === 0 ? NEED_REPLY : 0);
      for (let reply = front.reply(); reply !== null; reply = front.reply()) {
        for (const fd of reply.fds) systemCalls.close(fd);
      }
      if (next(3) === 0) ram.mapping.region.view.setUint16(next(60000), next(65536), true);
      front.reactor.turn(20);
    }
    front.end();
    assert.equal(openDescriptors(), before, `seed ${seed}`);
    assert.equal(device.queues.size, 0, `seed ${seed}`);
  }
  stillServes(device);
});

function payloadFor(
  form: string,
  next: (below: number) => number,
  number: () => number,
  address: () => number,
  region: { guestAddress: number; userAddress: number; size: number; offset: number },
): Payload {
  switch (form) {
    case 'u64':
      return u64(
        [number(), protocolFeatureSet(['REPLY_ACK', 'STATUS', 'CONFIG', 'CONFIGURE_MEM_SLOTS'])][next(2)] ?? 0,
        next(4),
      );
    case 'vring':
      return vring(next(3), number());
    case 'vring-fd':
      return vringFd(next(3), next(2) === 0);
    case 'vring-address':
      return addressPayload(
        next(3),
        { descriptors: address(), driver: address() + 1024, device: address() + 2048 },
        next(8) === 0 ? 1 : 0,
      );
    case 'regions':
      return { form: 'regions', regions: Array.from({ length: next(3) }, () => region) };
    case 'region':
      return { form: 'region', region };
    case 'log':
      return { form: 'log', size: number(), offset: number() };
    case 'iotlb':
      return {
        form: 'iotlb',
        entry: { address: address(), size: number(), userAddress: address(), access: next(5), type: next(6) },
      };
    case 'config':
      return { form: 'config', span: { offset: next(16), flags: next(3), bytes: new Uint8Array(next(16)) } };
    case 'inflight':
      return { form: 'inflight', area: { size: 16384, offset: 0, queues: next(4), queueSize: number() & 0xffff } };
    default:
      return { form: 'none' };
  }
}

test('a kick of the real kernel reaches the queue', () => {
  offend((front) => {
    const features = front.negotiate();
    const ram = front.ram(2 * 65536);
    front.ack('ADD_MEM_REG', { form: 'region', region: ram.region }, [ram.fd]);
    const queue = startQueue(front, ram, 0, 8, features);
    assert.ok(front.reactor.trySleep());
    submit(ram, queue, 0, Uint8Array.of(1));
    queue.driver.publish();
    assert.ok(queue.driver.shouldNotify());
    assert.ok(signalEventFd(systemCalls, queue.kick));
    front.tellKick(READABLE);
    assert.equal(queue.driver.complete(), DONE);
    const spare = must(createEventFd(systemCalls));
    systemCalls.close(spare);
  });
});
