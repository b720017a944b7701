/** Types that no kernel of Debian's has a driver for: I2C (§5.16), GPIO (§5.18), CAN (§5.20), SPI (§5.21), RTC (§5.23), SCMI (§5.17). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { canModel } from '@airlock/device/can/device.ts';
import { gpioModel } from '@airlock/device/gpio/device.ts';
import { i2cModel } from '@airlock/device/i2c/device.ts';
import { rtcModel } from '@airlock/device/rtc/device.ts';
import { scmiModel } from '@airlock/device/scmi/device.ts';
import { spiModel } from '@airlock/device/spi/device.ts';
import { driveModel, words } from './support/model-driver.ts';

const bytes = (...values: number[]) => Uint8Array.from(values);
const last = (reply: { readonly bytes: Uint8Array } | null) => reply?.bytes.at(-1);

test('i2c: an EEPROM keeps what is written, from the address on that the first byte says', () => {
  const one = driveModel(i2cModel());
  const write = (address: number, data: readonly number[], flags = 0) =>
    last(one.ask(0, words([address << 1, flags], bytes(...data)), 1));
  const read = (length: number, flags = 2) => one.ask(0, words([0x50 << 1, flags]), length + 1);
  assert.equal(write(0x50, [254, 1, 2, 3]), 0);
  assert.equal(write(0x50, [254]), 0);
  assert.deepEqual([...(read(3)?.bytes ?? [])], [1, 2, 3, 0]);
  assert.equal(write(0x50, []), 0); // zero length: is it there?
  assert.equal(write(0x51, []), 1);
  assert.equal(last(one.ask(0, words([0xa0, 0], bytes(1)), 3)), 1); // neither read nor write
  assert.equal(last(one.ask(0, words([0xa1, 0], bytes(1)), 1)), 1); // no address has bit 0
  assert.equal(last(one.ask(0, bytes(1, 2, 3), 1)), 1);
  assert.equal(one.ask(0, words([0xa0, 0]), 0)?.written, 0);
});

test('i2c: when one of a group fails, so does the rest of it, and the next group is none of it', () => {
  const one = driveModel(i2cModel());
  const write = (address: number, flags: number) => last(one.ask(0, words([address << 1, flags], bytes(0)), 1));
  assert.equal(write(0x11, 1), 1);
  assert.equal(write(0x50, 1), 1);
  assert.equal(write(0x50, 0), 1);
  assert.equal(write(0x50, 0), 0);
});

function lines() {
  const model = gpioModel(['red', '', 'key']);
  const one = driveModel(model);
  const ask = (type: number, line: number, value = 0, room = 2) =>
    [...(one.ask(0, words([type | (line << 16), value]), room)?.bytes ?? [])].join(' ');
  const set = (text: string) => model.commands?.['set']?.(text).ok;
  return { one, ask, set };
}

test('gpio: names, directions, values', () => {
  const { ask } = lines();
  assert.equal(ask(1, 0, 0, 10), `0 ${[...Buffer.from('red\0\0key\0')].join(' ')}`);
  assert.equal(ask(1, 0, 0, 9), '1 0 0 0 0 0 0 0 0');
  assert.equal(ask(4, 0), '1 0'); // no direction yet
  assert.equal(ask(5, 0, 1), '0 0');
  assert.equal(ask(3, 0, 1), '0 0');
  assert.equal(ask(4, 0), '0 1');
  assert.equal(ask(2, 0), '0 1');
  // An output later: what it is to show is said while it is an input still (§5.18.6.5), as Linux does.
  assert.deepEqual(
    [ask(3, 1, 2), ask(5, 1, 1), ask(4, 1), ask(3, 1, 1), ask(4, 1)],
    ['0 0', '0 0', '0 0', '0 0', '0 1'],
  );
  // Let go: nothing of it is kept.
  assert.deepEqual([ask(3, 1, 0), ask(2, 1), ask(3, 1, 1), ask(4, 1)], ['0 0', '0 0', '0 0', '0 0']);
  for (const wrong of [ask(2, 3), ask(3, 0, 3), ask(5, 0, 2), ask(99, 0), ask(6, 0, 1), ask(6, 0, 5)])
    assert.equal(wrong, '1 0');
});

test('gpio: an interrupt comes once for each buffer, is kept when nobody waits, and ends when it is turned off', () => {
  const { one, ask, set } = lines();
  const wait = () => one.ask(1, bytes(2, 0), 1);
  assert.equal(wait()?.bytes[0], 0); // not on
  ask(3, 2, 2);
  assert.equal(ask(6, 2, 1), '0 0');
  assert.equal(wait(), null);
  assert.equal(wait()?.bytes[0], 0); // one buffer a line
  assert.equal(set('2 1'), true);
  assert.equal(one.next(1)?.bytes[0], 1);
  set('2 0');
  set('2 1');
  assert.equal(wait()?.bytes[0], 1);
  assert.equal(wait(), null);
  ask(6, 2, 0);
  assert.equal(one.next(1)?.bytes[0], 0);
  assert.equal(one.ask(1, bytes(9, 9), 1)?.bytes[0], 0);
  assert.deepEqual([set('0 2'), set('9 1'), set('')], [false, false, false]);
});

test('gpio: a level that passed while nobody waited is none; one that stands is', () => {
  const { one, ask, set } = lines();
  const wait = () => one.ask(1, bytes(2, 0), 1)?.bytes[0];
  ask(3, 2, 2);
  assert.equal(ask(6, 2, 4), '0 0');
  set('2 1');
  set('2 0');
  assert.equal(wait(), undefined); // waits
  set('2 1');
  assert.equal(one.next(1)?.bytes[0], 1);
  assert.equal(wait(), 1); // it stands still
});

test('gpio: a line that is let go gives its buffer back, and keeps no interrupt', () => {
  const { one, ask, set } = lines();
  ask(3, 2, 2);
  ask(6, 2, 3);
  assert.equal(one.ask(1, bytes(2, 0), 1), null);
  assert.equal(ask(3, 2, 1), '1 0'); // an output has no interrupt
  assert.equal(ask(3, 2, 0), '0 0');
  assert.equal(one.next(1)?.bytes[0], 0);
  ask(3, 2, 2);
  set('2 1');
  assert.equal(one.ask(1, bytes(2, 0), 1)?.bytes[0], 0); // off
});

test('gpio: without VIRTIO_GPIO_F_IRQ there are no interrupts to ask for', () => {
  const one = driveModel(gpioModel(['a']), { bits: [] });
  const ask = (type: number, value: number) => one.ask(0, words([type, value]), 2)?.bytes[0];
  assert.deepEqual([ask(3, 2), ask(6, 1)], [0, 1]);
});

test('can: started, a frame is sent and heard; wrong ids, lengths and flags are not sent', () => {
  const model = canModel();
  const one = driveModel(model);
  const control = (type: number) => one.ask(2, bytes(type & 0xff, type >> 8), 1)?.bytes[0];
  const frame = (flags: number, id: number, data: readonly number[], length = data.length) =>
    one.ask(0, words([1 | (length << 16), 0, flags, id], bytes(...data)), 1)?.bytes[0];
  assert.equal(frame(0, 1, []), 1); // stopped
  assert.equal(control(0x0202), 1);
  assert.equal(control(0x0201), 0);
  assert.equal(control(0x0201), 1);
  assert.equal(one.ask(1, new Uint8Array(0), 80), null);
  assert.equal(frame(0, 0x123, [1, 2, 3]), 0);
  const heard = one.next(1);
  assert.equal(heard?.written, 19);
  assert.equal(heard?.view.getUint16(0, true), 0x0101);
  assert.equal(frame(0x4000, 0x7ff, new Array(64).fill(7)), 0);
  assert.equal(frame(0x8000, 0x1fff_ffff, []), 0);
  // Remote frames: a length, with or without that many bytes (Linux sends them).
  assert.deepEqual([frame(0x2000, 1, [], 4), frame(0x2000, 1, [0, 0, 0, 0])], [0, 0]);
  for (const wrong of [
    frame(0, 0x800, []),
    frame(0, 1, new Array(9).fill(0)),
    frame(0x4000, 1, new Array(13).fill(0)),
    frame(0, 1, [1, 2], 3),
    frame(0x6000, 1, []),
    frame(0x2000, 1, [], 9),
    frame(0x2000, 1, [0], 4),
    frame(1, 1, []),
    one.ask(0, bytes(1, 0), 1)?.bytes[0],
  ]) {
    assert.equal(wrong, 1);
  }
  assert.equal(model.commands?.['hear']?.('7ff 00ff').ok, true);
  assert.equal(model.commands?.['hear']?.('800 00').ok, false);
});

test('can: a bus that is louder than the driver listens loses frames, not memory', () => {
  const one = driveModel(canModel());
  one.ask(2, bytes(1, 2), 1);
  for (let i = 0; i < 300; i++) one.ask(0, words([1, 0, 0, i]), 1);
  assert.deepEqual([one.facts()['heard'], one.facts()['lost']], [256, 44]);
});

test('spi: what goes out comes back; parameters beyond what the configuration says are refused', () => {
  const one = driveModel(spiModel());
  const transfer = (head: readonly number[], more: readonly number[], data: readonly number[], into: number) => {
    const header = new Uint8Array(32);
    header.set(head);
    new DataView(header.buffer).setUint32(12, more[0] ?? 1000, true);
    new DataView(header.buffer).setUint32(16, more[1] ?? 0, true);
    const request = new Uint8Array(32 + data.length);
    request.set(header);
    request.set(data, 32);
    return [...(one.ask(0, request, into + 1)?.bytes ?? [])].join(' ');
  };
  assert.equal(transfer([0, 8], [], [1, 2, 3], 3), '1 2 3 0');
  assert.equal(transfer([1, 16], [], [], 2), '255 255 0');
  assert.equal(transfer([1, 8], [], [5], 0), '0');
  for (const [head, more, data] of [
    [[2, 8], [], [1]],
    [[0, 7], [], [1]],
    [[0, 8, 2], [], [1]],
    [[0, 8, 0, 4], [], [1]],
    [[0, 16], [], [1]],
    [[0, 8], [50_000_001], [1]],
    [[0, 8], [1, 1_000_001], [1]],
    [[0, 8], [], []],
  ] as const) {
    assert.equal(transfer(head, more, data, 0), '1', JSON.stringify([head, more]));
  }
  assert.equal(transfer([0, 8], [], [1, 2], 3), '0 0 0 1');
  assert.equal(last(one.ask(0, new Uint8Array(31), 1)), 1);
});

test('rtc: two clocks, what they are, and what they show', () => {
  const one = driveModel(rtcModel({ utc: () => 1_700_000_000_000_000_000n, monotonic: () => 42n }));
  const ask = (type: number, clock = 0, room = 16) => one.ask(0, words([type, 0, clock, 0]), room);
  assert.equal(ask(0x1000)?.view.getUint16(8, true), 2);
  assert.equal(ask(1, 0)?.view.getBigUint64(8, true), 1_700_000_000_000_000_000n);
  assert.equal(ask(1, 1)?.view.getBigUint64(8, true), 42n);
  // It is not known whether leap seconds are smeared; and the second clock only goes forward.
  assert.deepEqual([ask(0x1001, 0)?.bytes[8], ask(0x1001, 1)?.bytes[8]], [4, 2]);
  assert.equal(ask(1, 2)?.bytes[0], 3);
  assert.equal(ask(0x77)?.bytes[0], 2);
  assert.equal(ask(2, 0, 24)?.bytes[0], 2);
  assert.equal(ask(2, 7, 24)?.bytes[0], 3);
  assert.equal(ask(1, 0, 8)?.bytes[0], 4);
  assert.equal(one.ask(0, bytes(1, 0), 16)?.bytes[0], 4);
});

test('rtc: whose reply has room for the status alone gets that; without room for it there is nothing', () => {
  const one = driveModel(rtcModel({ utc: () => 1n, monotonic: () => 1n }));
  const read = words([1, 0, 0, 0]);
  assert.deepEqual([one.ask(0, read, 1)?.bytes[0], one.ask(0, read, 1)?.written], [4, 1]);
  assert.deepEqual([one.ask(0, read, 7)?.bytes[0], one.ask(0, read, 15)?.written], [4, 8]);
  assert.equal(one.ask(0, read, 0)?.written, 0);
  // Cross timestamps have a longer reply (§5.23.6.5).
  assert.equal(one.ask(0, words([2, 0, 0, 0]), 16)?.bytes[0], 4);
});

test('rtc: of counters that nobody knows, alarms that were not agreed on, and reserved bytes that are not zero', () => {
  const one = driveModel(rtcModel({ utc: () => 1n, monotonic: () => 1n }));
  const status = (request: Uint8Array) => one.ask(0, request, 24)?.bytes[0];
  const cross = (counter: number) => status(words([0x1002, 0, counter << 16, 0]));
  assert.deepEqual([cross(0), cross(1), cross(2), cross(0xff)], [0, 0, 2, 2]);
  assert.equal(one.ask(0, words([0x1002, 0, 1 << 16, 0]), 16)?.bytes[8], 0); // no such stamps
  for (const alarm of [0x1003, 0x1004, 0x1005]) assert.equal(status(words([alarm, 0, 0, 0, 0, 0])), 3);
  for (const strange of [words([1 | (1 << 16), 0, 0, 0]), words([1, 1, 0, 0]), words([1, 0, 1 << 16, 0])]) {
    assert.equal(status(strange), 4);
  }
  // What stands behind a request is none of it.
  assert.equal(status(words([1, 0, 0, 0, 5, 5])), 0);
});

test('scmi: protocols, names and the clock’s rate; wrong lengths and unknown messages are told apart', () => {
  const one = driveModel(scmiModel());
  const ask = (protocol: number, message: number, parameters: readonly number[] = [], room = 128) => {
    const reply = one.ask(0, words([message | (protocol << 10) | (5 << 18), ...parameters]), room);
    if (room < 8) return { status: 0, header: 0, reply };
    return { status: reply?.view.getInt32(4, true), header: reply?.view.getUint32(0, true), reply };
  };
  assert.equal(ask(0x10, 0).reply?.view.getUint32(8, true), 0x20000);
  assert.equal(ask(0x10, 0).header, (0x10 << 10) | (5 << 18));
  assert.equal(ask(0x10, 6, [0]).reply?.bytes[12], 0x14);
  assert.equal(Buffer.from(ask(0x10, 3).reply?.bytes.subarray(8, 15) ?? []).toString(), 'Airlock');
  assert.equal(ask(0x14, 5, [0, 0, 250_000, 0]).status, 0);
  assert.equal(ask(0x14, 6, [0]).reply?.view.getUint32(8, true), 250_000);
  assert.equal(ask(0x14, 5, [0, 0, 0, 1]).status, -2);
  // Later, by a message of its own: there is no queue for it. Later without one is now.
  assert.deepEqual([ask(0x14, 5, [1, 0, 5, 0]).status, ask(0x14, 5, [3, 0, 250_000, 0]).status], [-1, 0]);
  assert.equal(ask(0x14, 6, [1]).status, -4);
  assert.equal(ask(0x14, 6, []).status, -10);
  assert.equal(ask(0x10, 99).status, -1);
  assert.equal(ask(0x55, 0).status, -1);
  assert.equal(ask(0x10, 2, [0xffff_ffff]).status, -4);
  assert.equal(ask(0x10, 3, [], 12).status, -10);
  assert.equal(ask(0x10, 0, [], 7).reply?.written, 0);
});
