import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fail, ok } from '@airlock/core/result.ts';
import fc from 'fast-check';
import { appraiseInterface } from '../src/attest/appraise-interface.ts';
import { decodeEvidence, encodeEvidence } from '../src/attest/evidence.ts';
import { gatherEvidence } from '../src/attest/gather.ts';
import { gatherInterface, type InterfaceStep } from '../src/attest/gather-interface.ts';
import { doeBinding } from '../src/doe/binding.ts';
import { decodePciMessage, encodePciMessage } from '../src/doe/pci-protocol.ts';
import { nodeSpdmCrypto } from '../src/node-crypto.ts';
import { makeProfileDevice } from '../src/profile/node-device.ts';
import { readProfile } from '../src/profile/profile.ts';
import { Connection } from '../src/requester/connection.ts';
import { drive, type Link } from '../src/requester/procedure.ts';
import { encodeTdispRequest } from '../src/tdisp/messages.ts';
import { decodeRecord, encodeRecord, type FunctionFacts, type InterfaceRecord } from '../src/tdisp/record.ts';
import { createTdispResponder } from '../src/tdisp/responder.ts';
import { makeDevice } from './support/device-chain.ts';
import { must } from './support/must.ts';
import { responderOf } from './support/responder.ts';

const crypto = nodeSpdmCrypto();
const ID = 0xbeef;
const profile = must(readProfile({ version: 1, tdisp: [ID] }, 'test'));
const device = must(makeProfileDevice(profile, Date.parse('2026-06-01'), null));
const FACTS: FunctionFacts = {
  ...{ function: '0000:01:00.0', virtual: true, before: new Uint8Array(64), config: new Uint8Array(256) },
  bars: [{ index: 0, start: 0xfe00_0000n, size: 0x4000n }],
};

/**
 * Messages from the `silent`th of the interface's on are lost; how many there were. After the `last`th the time is over;
 * `mute`: what is said after that is lost.
 */
async function learn(
  step: InterfaceStep,
  silent = Number.POSITIVE_INFINITY,
  from = 0,
  last = Number.POSITIVE_INFINITY,
  mute = false,
) {
  const answer = device.open(doeBinding);
  let sent = Number.NEGATIVE_INFINITY;
  const link: Link = {
    exchange: async (bytes) => {
      sent++;
      return sent > silent && sent - silent > from ? fail('link-timeout', 'lost') : answer(bytes);
    },
    wait: async () => undefined,
  };
  const connection = new Connection({ crypto, binding: doeBinding, trust: () => ok(null) });
  const evidence = must(await drive(gatherEvidence(connection, { device: 'made up' }), link));
  sent = 0;
  const chainDigest = crypto.hash('sha384', evidence.chain);
  const record = await gatherInterface({
    ...{ connection, link, slot: evidence.slot, chainDigest, functionId: ID, step },
    readFacts: async () => ok(FACTS),
    end: {
      reached: () => (sent > last ? fail('link-timeout', 'the time is over') : ok(undefined)),
      closing: () => (mute ? { ...link, exchange: async () => fail('link-timeout', 'lost') } : link),
    },
  });
  return { record, evidence, chainDigest, sent };
}

const appraise = (record: InterfaceRecord, chainDigest: Uint8Array) =>
  appraiseInterface(record, { chainDigest, function: '0000:01:00.0', layout: null, compare: false });

test('whenever the device falls silent, the record ends with why, and is unlocked only where that was answered', async () => {
  for (const step of ['lock', 'start'] as const) {
    const whole = await learn(step);
    assert.deepEqual([whole.record.left, whole.record.problem], ['CONFIG_UNLOCKED', null]);
    assert.equal(appraise(whole.record, whole.chainDigest).verdict, 'accepted');
    // The last is END_SESSION, whose loss changes nothing.
    for (let silent = 0; silent < whole.sent - 1; silent++) {
      const { record, chainDigest } = await learn(step, silent);
      assert.equal(record.problem?.code, 'link-timeout', `${silent}`);
      const { verdict, checks } = appraise(record, chainDigest);
      assert.equal(verdict, 'rejected', `${silent}`);
      const stopped = checks.find(({ id }) => id === 'tdisp.stopped');
      if (record.lock === null) assert.ok(record.left === null || record.left === 'CONFIG_UNLOCKED');
      else assert.deepEqual([record.left, stopped?.status], [null, 'failed'], `${silent}`);
    }
  }
});

test('when the time is over between two messages, whichever they are, the lock is taken back within a time of its own', async () => {
  for (const step of ['lock', 'start'] as const) {
    const { sent } = await learn(step);
    let locks = 0;
    for (let last = 0; last < sent; last++) {
      const { record } = await learn(step, Number.POSITIVE_INFINITY, 0, last);
      if (record.problem === null) continue;
      assert.equal(record.problem.code, 'link-timeout', `${last}`);
      if (record.lock !== null) locks++;
      // Null: the device had not been asked for its state.
      if (record.lock !== null || record.found !== null) assert.equal(record.left, 'CONFIG_UNLOCKED', `${last}`);
    }
    assert.ok(locks > 8, `${locks} of ${sent}`);
  }
});

test('where the lock cannot be taken back in that time either, it is said', async () => {
  const { sent } = await learn('lock');
  for (let last = 0; last < sent; last++) {
    const { record, chainDigest } = await learn('lock', Number.POSITIVE_INFINITY, 0, last, true);
    if (record.lock === null) continue;
    const { checks } = appraise(record, chainDigest);
    const stopped = checks.find(({ id }) => id === 'tdisp.stopped');
    if (record.problem !== null) assert.deepEqual([record.left, stopped?.status], [null, 'failed'], `${last}`);
  }
});

test('an interface that somebody else locked, or that stands in ERROR, is left alone', async () => {
  const report = profile.tdisp[0]?.report;
  assert.ok(report !== undefined);
  const tdisp = createTdispResponder({ interfaces: new Map([[ID, () => report]]), random: crypto.random });
  const responder = responderOf(makeDevice(), {
    vendor: (request, session) => {
      const { message } = must(decodePciMessage(request.payload));
      const answer = must(tdisp.answer(session ?? 0, message));
      return { ...request, payload: encodePciMessage({ protocol: 'tdisp', message: answer }) };
    },
  });
  const link: Link = { exchange: async (bytes) => responder.answer(bytes), wait: async () => undefined };
  const ask = async (step: InterfaceStep) => {
    const connection = new Connection({ crypto, binding: doeBinding, trust: () => ok(null) });
    const evidence = must(await drive(gatherEvidence(connection, { device: 'made up' }), link));
    const chainDigest = crypto.hash('sha384', evidence.chain);
    const asked = { connection, link, slot: 0, chainDigest, functionId: ID, readFacts: null };
    return gatherInterface({ ...asked, step });
  };
  const parameters = { flags: 0, defaultStream: 0, mmioReportingOffset: 0n, p2pAddressMask: 0n };
  must(tdisp.answer(99, encodeTdispRequest(ID, { name: 'LOCK_INTERFACE', ...parameters })));
  assert.deepEqual([(await ask('start')).problem?.code, tdisp.state(ID)], ['tdisp-refused', 'CONFIG_LOCKED']);
  tdisp.endSession(99);
  const error = await ask('start');
  assert.deepEqual([error.problem?.code, error.found, error.lock], ['tdisp-state', 'ERROR', null]);
  assert.equal(tdisp.state(ID), 'ERROR');
  const looked = await ask('look');
  assert.equal(appraise(looked, looked.chainDigest ?? new Uint8Array()).verdict, 'rejected');
});

test('facts that cannot be read end it before a lock, and after one it is taken back', async () => {
  const answer = device.open(doeBinding);
  const link: Link = { exchange: async (bytes) => answer(bytes), wait: async () => undefined };
  for (const good of [0, 1]) {
    const connection = new Connection({ crypto, binding: doeBinding, trust: () => ok(null) });
    const evidence = must(await drive(gatherEvidence(connection, { device: 'made up' }), link));
    const chainDigest = crypto.hash('sha384', evidence.chain);
    let reads = 0;
    const record = await gatherInterface({
      ...{ connection, link, slot: 0, chainDigest, functionId: ID, step: 'lock' },
      readFacts: async () => (reads++ < good ? ok(FACTS) : fail('file-missing', 'it has gone')),
    });
    assert.equal(record.problem?.code, 'file-missing');
    assert.deepEqual([record.lock === null, record.left], [good === 0, 'CONFIG_UNLOCKED']);
  }
});

test('a record is written and read without loss, and anything else is refused with a code', async () => {
  const { record, evidence } = await learn('start');
  const whole = { ...evidence, interface: record };
  assert.deepEqual(must(decodeEvidence(encodeEvidence(whole))), whole);
  assert.deepEqual(must(decodeRecord(JSON.parse(JSON.stringify(encodeRecord(record))))), record);
  const plain = encodeRecord(record);
  const wrong: readonly Readonly<Record<string, unknown>>[] = [
    ...Object.keys(plain).map((name) => ({ ...plain, [name]: 7.5 })),
    ...Object.keys(plain).map((name) => ({ ...plain, [name]: undefined, more: null })),
    { ...plain, more: null },
    { ...plain, by: 'tsm' },
    { ...plain, by: 'tsm', tsm: '../tsm0' },
    { ...plain, tsm: 'tsm0' },
    { ...plain, reached: 'run' },
    { ...plain, chain: '00' },
    { ...plain, report: 'AB' },
    { ...plain, report: '00'.repeat(70_000) },
    { ...plain, lock: { flags: 7, offset: '0x0', nonces: Array.from({ length: 9 }, () => '00'.repeat(32)) } },
    { ...plain, lock: { flags: 7, offset: '0', nonces: [] } },
    { ...plain, facts: { ...(plain['facts'] as object), config: '00' } },
    { ...plain, facts: { ...(plain['facts'] as object), function: 'a b' } },
    { ...plain, facts: { ...(plain['facts'] as object), bars: [{ index: 0, start: '0x0', size: '0x0' }] } },
    { ...plain, problem: { code: 'x y', message: '' } },
  ];
  for (const one of wrong) {
    const read = decodeRecord(one);
    assert.equal(read.ok ? 'ok' : read.error.code, 'device-evidence-invalid', JSON.stringify(one).slice(0, 200));
  }
  fc.assert(fc.property(fc.jsonValue(), (value) => void decodeRecord(value)));
});
