/** Sound (§5.14), memory (§5.15), persistent memory (§5.19) and input (§5.8) against drivers that keep to no rule. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { keyboardModel } from '@airlock/device/input/device.ts';
import { memoryModel } from '@airlock/device/memory/device.ts';
import { ModelDevice } from '@airlock/device/model/device.ts';
import { memorySectors } from '@airlock/device/model/sector-file.ts';
import { pmemModel } from '@airlock/device/pmem/device.ts';
import { virtioPciFunction } from '@airlock/device/register/virtio-pci.ts';
import { soundModel } from '@airlock/device/sound/device.ts';
import { wavSink } from '@airlock/device/sound/wav.ts';
import { must } from './support/in-memory-driver.ts';
import { driveModel, words } from './support/model-driver.ts';

const [CONTROL, TX, RX] = [0, 2, 3];
const OK = 0x8000;
const BAD = 0x8001;

/** A card whose time passes when the test says so. */
function card() {
  const timers: { readonly milliseconds: number; readonly call: () => void }[] = [];
  const heard: number[] = [];
  let format = '';
  const one = driveModel(
    soundModel(
      {
        format(rate, channels) {
          format = `${rate}x${channels}`;
        },
        samples: (bytes) => void heard.push(...bytes),
      },
      (milliseconds, call) => {
        const timer = { milliseconds, call };
        timers.push(timer);
        return () => void timers.splice(timers.indexOf(timer), 1);
      },
    ),
  );
  const control = (code: number, more: readonly number[] = [0], room = 4) =>
    one.ask(CONTROL, words([code, ...more]), room)?.view.getUint32(0, true);
  // 16 bits, stereo, 48 kHz, periods of 1920 bytes: 10 ms.
  const set = (stream = 0, shape = 2 | (5 << 8) | (7 << 16)) => control(0x101, [stream, 3840, 1920, 0, shape]);
  const pass = () => timers.shift()?.call();
  return { one, control, set, pass, timers, heard, format: () => format };
}

test('sound: what is played before the start waits for it, and each message takes the time that it lasts', () => {
  const { one, control, set, pass, timers, heard, format } = card();
  assert.deepEqual([set(), control(0x102)], [OK, OK]);
  const period = new Uint8Array(1920).fill(7);
  assert.equal(one.ask(TX, words([0], period), 8), null);
  assert.equal(timers.length, 0);
  assert.equal(control(0x104), OK);
  assert.equal(timers[0]?.milliseconds, 10);
  assert.equal(heard.length, 0);
  pass();
  assert.equal(one.next(TX)?.view.getUint32(0, true), OK);
  assert.deepEqual([heard.length, format()], [1920, '48000x2']);
  // Stopped in the middle: nothing more is heard, and the release gives everything back.
  one.ask(TX, words([0], period), 8);
  one.ask(TX, words([0], period), 8);
  assert.equal(control(0x105), OK);
  assert.equal(timers.length, 0);
  assert.equal(control(0x103), OK);
  assert.deepEqual([one.next(TX)?.written, one.next(TX)?.written, one.next(TX)], [8, 8, null]);
  assert.equal(heard.length, 1920);
});

test('sound: what is recorded is silence with its status behind it', () => {
  const { one, control, set, pass } = card();
  set(1);
  control(0x102, [1]);
  control(0x104, [1]);
  assert.equal(one.ask(RX, words([1]), 1928), null);
  pass();
  const reply = one.next(RX);
  assert.ok(reply?.bytes.subarray(0, 1920).every((byte) => byte === 0));
  assert.equal(reply?.view.getUint32(1920, true), OK);
});

test('sound: commands in the wrong order, of the wrong stream, and what was not offered', () => {
  const { one, control, set } = card();
  for (const code of [0x102, 0x104, 0x105, 0x103]) assert.equal(control(code), BAD, code.toString(16));
  assert.equal(set(2), BAD);
  assert.equal(set(0, 3 | (5 << 8) | (7 << 16)), 0x8002);
  assert.equal(set(0, 2 | (6 << 8) | (7 << 16)), 0x8002);
  assert.equal(control(0x101, [0, 1920, 0, 0, 2 | (5 << 8) | (7 << 16)]), BAD);
  assert.equal(control(0x101, [0, 2 ** 31, 1920, 0, 2 | (5 << 8) | (7 << 16)]), BAD);
  assert.equal(control(0x99), 0x8002);
  assert.equal(one.ask(TX, words([0], new Uint8Array(64)), 8)?.view.getUint32(0, true), 0x8003);
  assert.equal(one.ask(TX, words([9], new Uint8Array(64)), 8)?.view.getUint32(0, true), BAD);
  assert.equal(one.ask(TX, words([0], new Uint8Array(64)), 7)?.written, 0);
  // Items that are not there, of another size, or more than there is room for.
  for (const [first, count, size, room] of [
    [0, 3, 32, 200],
    [2, 1, 32, 200],
    [0xffff_ffff, 1, 32, 200],
    [0, 2, 31, 200],
    [0, 2, 32, 67],
  ]) {
    assert.equal(control(0x100, [first ?? 0, count ?? 0, size ?? 0], room), BAD);
  }
  assert.equal(control(0x100, [0, 2, 32], 68), OK);
});

test('sound: a driver that plays and never starts is held to a limit', () => {
  const { one, control, set } = card();
  set();
  control(0x102);
  const long = words([0], new Uint8Array(256 * 1024));
  for (let i = 0; i < 8; i++) assert.equal(one.ask(TX, long, 8), null);
  assert.equal(one.ask(TX, long, 8)?.view.getUint32(0, true), 0x8003);
});

test('sound: a WAV file says how long it is, and ends at its limit', () => {
  const file = new Uint8Array(64);
  const sink = wavSink((at, bytes) => file.set(bytes, at), 16);
  sink.format(44_100, 1);
  sink.samples(new Uint8Array(10).fill(1));
  sink.samples(new Uint8Array(10).fill(2));
  const view = new DataView(file.buffer);
  assert.deepEqual([view.getUint32(40, true), view.getUint32(4, true), view.getUint32(24, true)], [16, 52, 44_100]);
  assert.deepEqual([file[53], file[54], file[59], file[60]], [1, 2, 2, 0]);
});

const MIB = 2 ** 20;

function blocks() {
  const model = memoryModel({ address: 512 * MIB, size: 16 * MIB, blockSize: 2 * MIB, requested: 8 * MIB });
  const one = driveModel(model);
  const ask = (type: number, block: number, count: number, offset = 0) =>
    one.ask(0, words([type, 0, (512 + 2 * block) * MIB + offset, 0, count, 0]), 10);
  const outcome = (type: number, block: number, count: number, offset = 0) =>
    ask(type, block, count, offset)?.view.getUint16(0, true);
  return { model, one, ask, outcome };
}

test('memory: blocks are plugged once, up to what is asked for, and unplugged once', () => {
  const { model, one, ask, outcome } = blocks();
  assert.equal(outcome(0, 0, 3), 0);
  assert.equal(outcome(0, 2, 1), 3);
  assert.equal(outcome(0, 3, 2), 1); // above what is asked for: not now
  assert.equal(ask(3, 0, 3)?.view.getUint16(8, true), 0);
  assert.equal(ask(3, 3, 1)?.view.getUint16(8, true), 1);
  assert.equal(ask(3, 2, 2)?.view.getUint16(8, true), 2);
  assert.equal(outcome(1, 2, 2), 3);
  assert.equal(outcome(1, 1, 2), 0);
  assert.equal(one.facts()['plugged'], 2 * MIB);
  assert.equal(outcome(2, 0, 0), 0);
  assert.equal(one.facts()['plugged'], 0);
  assert.equal(model.commands?.['request']?.('3').ok, false);
  assert.equal(model.commands?.['request']?.('18').ok, false);
  assert.equal(model.commands?.['request']?.('16').ok, true);
  assert.equal(one.driven.configChanges.length, 1);
});

test('memory: ranges that are not whole blocks of the region are refused', () => {
  const { one, outcome } = blocks();
  for (const [block, count, offset] of [
    [8, 1, 0],
    [7, 2, 0],
    [-1, 1, 0],
    [0, 0, 0],
    [0, 0xffff, 0],
    [0, 1, 4096],
  ]) {
    for (const type of [0, 1, 3]) assert.equal(outcome(type, block ?? 0, count ?? 0, offset), 3);
  }
  assert.equal(outcome(9, 0, 1), 3);
  assert.equal(one.ask(0, new Uint8Array(7), 10)?.view.getUint16(0, true), 3);
  assert.equal(one.ask(0, new Uint8Array(24), 9)?.written, 0);
  assert.equal(one.facts()['plugged'], 0);
});

test('pmem: the window is the file, bytes beyond it are ones, a flush reaches the medium', () => {
  const file = memorySectors(new Uint8Array(4096));
  const model = pmemModel(file);
  const one = driveModel(model);
  const bank = model.sharedMemory?.[0]?.bank;
  assert.ok(bank !== undefined);
  bank.write(100, Uint8Array.of(1, 2, 3));
  const into = new Uint8Array(4);
  bank.read(99, into);
  assert.deepEqual([...into], [0, 1, 2, 3]);
  bank.read(4094, into);
  assert.deepEqual([...into], [255, 255, 255, 255]);
  bank.write(4094, into);
  assert.equal(one.facts()['failed'], 2);
  assert.equal(one.ask(0, words([0]), 4)?.view.getInt32(0, true), 0);
  assert.equal(file.flushes, 1);
  assert.equal(one.ask(0, words([1]), 4)?.view.getInt32(0, true), -1);
  assert.equal(one.ask(0, new Uint8Array(3), 4)?.view.getInt32(0, true), -1);
  assert.equal(one.ask(0, words([0]), 3)?.written, 0);
});

test('pmem: a driver that knows no region is told where the BAR is', () => {
  const device = new ModelDevice(pmemModel(memorySectors(new Uint8Array(2 * MIB))));
  const card = must(virtioPciFunction(device, { sharedMemory: device.sharedMemory }));
  const config = () => new DataView(device.readConfig().slice().buffer);
  assert.equal(config().getUint32(0, true), 0);
  card.pci.writeRegion(7, 0x20, Uint8Array.of(0x0c, 0, 0, 0xf0));
  card.pci.writeRegion(7, 0x24, Uint8Array.of(3, 0, 0, 0));
  assert.deepEqual([config().getUint32(0, true), config().getUint32(4, true)], [0xf000_0000, 3]);
  assert.equal(config().getUint32(8, true), 2 * MIB);
});

test('input: the selectors choose what is told; only they are written', () => {
  const one = driveModel(keyboardModel({ name: 'keys', serial: '7' }));
  const select = (select: number, subselect: number) => {
    assert.equal(one.device.writeConfig(0, Uint8Array.of(select)), true);
    assert.equal(one.device.writeConfig(1, Uint8Array.of(subselect)), true);
    const config = one.device.readConfig();
    return [...config.subarray(8, 8 + (config[2] ?? 0))];
  };
  assert.equal(Buffer.from(select(1, 0)).toString(), 'keys');
  assert.equal(select(3, 0).length, 8);
  const keys = select(0x11, 1);
  assert.equal((keys[30 >> 3] ?? 0) & (1 << (30 & 7)), 1 << 6);
  assert.equal((keys[0] ?? 0) & 1, 0);
  for (const [a, b] of [
    [1, 1],
    [0x11, 2],
    [0x12, 0],
    [255, 255],
  ] as const)
    assert.deepEqual(select(a, b), []);
  assert.equal(one.device.writeConfig(2, Uint8Array.of(9)), false);
  assert.equal(one.device.writeConfig(0, new Uint8Array(3)), false);
});

test('input: keys that nobody reads are dropped at a limit; lights are kept, other events counted', () => {
  const model = keyboardModel({ name: 'keys', serial: '7' });
  const one = driveModel(model);
  for (let i = 0; i < 100; i++) model.commands?.['key']?.('30');
  assert.deepEqual([one.facts()['sent'], one.facts()['dropped']], [256, 144]);
  assert.deepEqual([...(one.ask(0, new Uint8Array(0), 8)?.bytes ?? [])], [1, 0, 30, 0, 1, 0, 0, 0]);
  for (const wrong of ['', '0', '249', '1e2', '-1']) assert.equal(model.commands?.['key']?.(wrong).ok, false);
  one.ask(1, Uint8Array.of(0x11, 0, 1, 0, 1, 0, 0, 0), 0);
  one.ask(1, Uint8Array.of(0xff, 0, 1, 0, 1, 0, 0, 0), 0);
  one.ask(1, Uint8Array.of(1), 0);
  assert.deepEqual([one.facts()['lights'], one.facts()['malformed']], [{ 1: 1 }, 2]);
});
