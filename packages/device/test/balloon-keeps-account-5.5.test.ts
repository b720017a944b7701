import assert from 'node:assert/strict';
import { test } from 'node:test';
import { balloonModel } from '@airlock/device/balloon/device.ts';
import { driveModel, words } from './support/model-driver.ts';

const INFLATE = 0;
const DEFLATE = 1;
const STATS = 2;
const REPORTING = 3;

test('pages are counted in and out, each once; a page twice or not there is strange', () => {
  const one = driveModel(balloonModel(10));
  one.ask(INFLATE, words([1, 2, 0xffff_ffff]), 0);
  assert.equal(one.facts()['pages'], 3);
  one.ask(INFLATE, words([2]), 0);
  one.ask(DEFLATE, words([2, 7]), 0);
  assert.equal(one.facts()['pages'], 2);
  assert.equal(one.facts()['strange'], 2);
  one.driven.stop();
  assert.equal(one.facts()['pages'], 0);
});

test('a driver that spreads its pages over all addresses costs bounded memory', () => {
  const one = driveModel(balloonModel(), { memory: 64 << 20 });
  for (let i = 0; i < 8; i++) {
    one.ask(INFLATE, words(Array.from({ length: 1024 }, (_, at) => ((i * 1024 + at) * 32_768) >>> 0)), 0);
  }
  assert.equal(one.facts()['pages'], 1024);
  assert.equal(one.facts()['strange'], 7 * 1024);
});

test('a list that is cut within a number, or too long, is told', () => {
  const one = driveModel(balloonModel());
  one.ask(INFLATE, new Uint8Array(7).fill(1), 0);
  assert.equal(one.facts()['pages'], 1);
  assert.equal(one.facts()['strange'], 1);
  one.ask(INFLATE, new Uint8Array(9000), 0);
  assert.equal(one.facts()['pages'], 2);
});

test('the statistics buffer stays until it is asked for; a second one goes back', () => {
  const model = balloonModel();
  const one = driveModel(model);
  assert.equal(model.commands?.['refresh-stats']?.('').ok, false);
  const stat = new Uint8Array(10);
  stat.set([4, 0, 0, 16]);
  assert.equal(one.ask(STATS, stat, 0), null);
  assert.deepEqual(one.facts()['stats'], { 'free-memory': 4096 });
  assert.equal(one.ask(STATS, stat, 0)?.written, 0);
  assert.equal(model.commands?.['refresh-stats']?.('').ok, true);
  assert.equal(one.next(STATS)?.written, 0);
});

test('reported pages are counted and not touched; the target is the device’s, the count the driver’s', () => {
  const model = balloonModel();
  const one = driveModel(model);
  const reply = one.ask(REPORTING, new Uint8Array(0), 8192);
  assert.equal(one.facts()['reportedBytes'], 8192);
  assert.ok(reply?.bytes.every((byte) => byte === 0xaa));
  assert.equal(one.device.writeConfig(0, new Uint8Array(4)), false);
  assert.equal(one.device.writeConfig(4, Uint8Array.of(1, 0, 0, 0)), true);
  assert.equal(one.facts()['actual'], 1);
  assert.equal(model.commands?.['target']?.('2').ok, true);
  assert.equal(one.driven.configChanges.length, 1);
  for (const wrong of ['', '-1', '1e9', '99999999']) assert.equal(model.commands?.['target']?.(wrong).ok, false);
});
