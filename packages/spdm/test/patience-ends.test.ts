import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ok } from '@airlock/core/result.ts';
import { encodeCertificate } from '../src/messages/certificate.ts';
import { encodeChunk } from '../src/messages/chunk.ts';
import { ERROR_CODE, RESPONSE } from '../src/messages/codes.ts';
import { encodeEncapsulatedAck, encodeEncapsulatedRequest } from '../src/messages/encapsulated.ts';
import { encodeError, encodeNotReady } from '../src/messages/error.ts';
import { encodeMeasurementLog } from '../src/messages/measurement-log.ts';
import { initialContext } from '../src/messages/reader.ts';
import { getCertificate } from '../src/requester/certificates.ts';
import type { Connection } from '../src/requester/connection.ts';
import { serveEncapsulated } from '../src/requester/encapsulated.ts';
import { getMeasurements } from '../src/requester/measurements.ts';
import { type Link, limitTime, type Procedure } from '../src/requester/procedure.ts';
import { getMeasurementLog } from '../src/requester/requests.ts';
import { start } from '../src/requester/start.ts';
import { codeOf, must } from './support/must.ts';
import { makePair } from './support/pair.ts';

const STEP_LIMIT = 20_000;

/** Runs with answers of plain messages; counts what it sent and waited. */
function run<T>(connection: Connection, procedure: Procedure<T>, answer: (request: Uint8Array) => Uint8Array) {
  const { binding } = connection.options;
  let sent = 0;
  let waited = 0;
  let next = procedure.next();
  while (!next.done) {
    assert.ok(sent < STEP_LIMIT, 'it does not end');
    if (next.value.kind === 'wait') {
      waited += next.value.milliseconds;
      next = procedure.next(new Uint8Array());
    } else {
      sent++;
      const request = must(binding.unwrap(next.value.bytes)).message;
      next = procedure.next(must(binding.wrap('plain', answer(request))));
    }
  }
  return { result: next.value, sent, waited };
}

function started(version: '1.1' | '1.2' | '1.3' | '1.4', more: Parameters<typeof makePair>[0]['requester'] = {}) {
  const pair = makePair({
    version,
    binding: 'mctp',
    requester: more,
    responder: { measurementLog: new Uint8Array(16) },
  });
  must(pair.run(start(pair.connection)));
  return pair;
}

test('a responder that is always busy is asked so often and no more', () => {
  const { connection } = started('1.2', { busyLimit: 5 });
  const busy = encodeError('1.2', ERROR_CODE.Busy);
  const { result, sent, waited } = run(connection, getCertificate(connection, 0, null), () => busy);
  assert.equal(codeOf(result), 'peer-busy');
  assert.equal(sent, 6);
  assert.ok(waited < 2000);
});

test('a responder that is busy before a version is agreed on, in 1.0', () => {
  const { connection } = makePair({ version: '1.2' });
  const { result } = run(connection, start(connection), () => encodeError(null, ERROR_CODE.Busy));
  assert.equal(codeOf(result), 'peer-busy');
});

test('a responder that is never ready gets the patience that it gets', () => {
  for (const exponent of [0, 10, 20, 23, 63, 255]) {
    const { connection } = started('1.3', { patience: 3000 });
    const { result, sent, waited } = run(connection, getMeasurements(connection, { operation: 'all' }), () =>
      encodeError(
        '1.3',
        ERROR_CODE.ResponseNotReady,
        0,
        encodeNotReady({ exponent, request: 0xe0, token: 1, multiplier: 1 }),
      ),
    );
    assert.equal(codeOf(result), 'peer-not-ready');
    assert.ok(waited <= 3000, `${waited} ms`);
    assert.ok(sent <= 3001);
  }
});

test('ResponseNotReady for another request, or without its data', () => {
  const { connection } = started('1.3');
  const other = encodeNotReady({ exponent: 1, request: 0x82, token: 1, multiplier: 1 });
  for (const [data, code] of [
    [other, 'message-unexpected'],
    [new Uint8Array(), 'peer-error'],
    [other.slice(0, 3), 'peer-error'],
  ] as const) {
    const { result } = run(connection, getMeasurements(connection, { operation: 'all' }), () =>
      encodeError('1.3', ERROR_CODE.ResponseNotReady, 0, data),
    );
    assert.equal(codeOf(result), code);
  }
});

test('a chain that never ends, changes its size, or comes in empty portions', () => {
  const context = initialContext('1.2', 3);
  const portion = (length: number, remainder: number) =>
    encodeCertificate(context, { slot: 0, large: false, model: 0, portion: new Uint8Array(length).fill(1), remainder });
  for (const [name, answer] of [
    ['endless', () => portion(200, 60_000)],
    ['empty', () => portion(0, 60_000)],
    ['more than asked', () => portion(60_000, 0)],
    ['growing', (count: number) => portion(10, 100 + count)],
  ] as const) {
    const { connection } = started('1.2', { transferSize: 1000 });
    let count = 0;
    const { result, sent } = run(connection, getCertificate(connection, 0, null), () => answer(count++));
    assert.ok(['certificate-chain-invalid', 'message-too-large'].includes(codeOf(result)), name);
    assert.ok(sent < 10, `${name}: ${sent}`);
  }
});

test('a chain, a log or a message that comes byte by byte is given up', () => {
  const context = initialContext('1.3', 3);
  let left = 0xffff;
  const chain = started('1.3').connection;
  const slow = run(chain, getCertificate(chain, 0, null), () =>
    encodeCertificate(context, { slot: 0, large: false, model: 0, portion: Uint8Array.of(1), remainder: --left }),
  );
  assert.equal(codeOf(slow.result), 'certificate-chain-invalid');
  assert.ok(slow.sent < 300, `${slow.sent}`);

  left = 0x3f_ffff;
  const log = started('1.3').connection;
  const drip = run(log, getMeasurementLog(log, null), () =>
    encodeMeasurementLog(context, { portion: Uint8Array.of(1), remainder: --left }),
  );
  assert.equal(codeOf(drip.result), 'measurements-invalid');
  assert.ok(drip.sent < 5000, `${drip.sent}`);

  const large = encodeError('1.3', ERROR_CODE.LargeResponse, 0, Uint8Array.of(9));
  const chunks = started('1.3').connection;
  let sequence = 0;
  const crumbs = run(chunks, getMeasurements(chunks, { operation: 'all' }), (request) => {
    if (request[1] !== 0x86) return large;
    const size = sequence === 0 ? 1_000_000 : null;
    return encodeChunk(context, RESPONSE.CHUNK_RESPONSE, {
      ...{ handle: 9, sequence: sequence++, last: false, size, data: Uint8Array.of(1) },
    });
  });
  assert.equal(codeOf(crumbs.result), 'chunk-invalid');
  assert.ok(crumbs.sent < 5, `${crumbs.sent}`);
});

test('a link has as much time as it is given, and no answer gets more', async () => {
  let now = 0;
  const given: number[] = [];
  const link: Link = {
    exchange: async (bytes, within) => {
      given.push(within);
      now += Math.min(within, 400);
      return ok(bytes);
    },
    wait: async (milliseconds) => {
      now += milliseconds;
    },
  };
  const limited = limitTime(link, 1000, () => now);
  assert.ok((await limited.exchange(Uint8Array.of(1), 2 ** 40)).ok);
  await limited.wait(500);
  assert.ok((await limited.exchange(Uint8Array.of(1), 2 ** 40)).ok);
  await limited.wait(2 ** 40);
  assert.equal(codeOf(await limited.exchange(Uint8Array.of(1), 5)), 'link-timeout');
  assert.deepEqual(given, [1000, 100]);
  assert.equal(now, 1000);
});

test('a log that never ends', () => {
  const { connection } = started('1.3');
  const context = initialContext('1.3', 3);
  const { result, sent } = run(connection, getMeasurementLog(connection, null), () =>
    encodeMeasurementLog(context, { portion: new Uint8Array(100), remainder: 0xffff_0000 }),
  );
  assert.equal(codeOf(result), 'measurements-invalid');
  assert.equal(sent, 1);
});

test('chunks: too large, too many bytes, no end, another handle, another order, an error at the end', () => {
  for (const version of ['1.2', '1.4'] as const) {
    const context = initialContext(version, 3);
    const large = encodeError(version, ERROR_CODE.LargeResponse, 0, Uint8Array.of(9));
    const base = { handle: 9, sequence: 0, last: false, size: 1000, data: new Uint8Array(100) };
    type Chunk = Parameters<typeof encodeChunk>[2];
    const cases: readonly [string, string, (count: number) => Chunk][] = [
      ['too large', 'message-too-large', () => ({ ...base, size: 0xffff_ffff })],
      ['more than announced', 'chunk-invalid', () => ({ ...base, size: 99 })],
      ['no end', 'chunk-invalid', (n) => ({ ...base, size: n === 0 ? 100 : null, sequence: n })],
      ['an early end', 'chunk-invalid', () => ({ ...base, last: true })],
      ['another handle', 'chunk-invalid', () => ({ ...base, handle: 8 })],
      ['another order', 'chunk-invalid', (n) => ({ ...base, sequence: n === 0 ? 0 : 2, size: n === 0 ? 1000 : null })],
      ['a byte at a time', 'chunk-invalid', () => ({ ...base, sequence: 0, size: 0, data: new Uint8Array(1) })],
      ['no message', 'message-unexpected', () => ({ ...base, size: 100, last: true })],
    ];
    for (const [name, code, chunk] of cases) {
      const { connection } = started(version);
      let count = 0;
      const { result } = run(connection, getMeasurements(connection, { operation: 'all' }), (request) =>
        request[1] === 0x86 ? encodeChunk(context, RESPONSE.CHUNK_RESPONSE, chunk(count++)) : large,
      );
      assert.equal(codeOf(result), code, `${version}: ${name}`);
    }
    // LargeResponse within chunks, for ever.
    const { connection } = started(version);
    const { result } = run(connection, getMeasurements(connection, { operation: 'all' }), (request) =>
      request[1] === 0x86
        ? encodeChunk(context, RESPONSE.CHUNK_RESPONSE, { ...base, size: large.length, last: true, data: large })
        : large,
    );
    assert.equal(codeOf(result), 'peer-error');
  }
});

test('a responder that never stops asking', () => {
  const pair = makePair({ version: '1.2', mutual: 'encapsulated' });
  const { connection } = pair;
  must(pair.run(start(connection)));
  const { context } = connection;
  const message = Uint8Array.of(0x12, 0x81, 0, 0);
  const { result, sent } = run(connection, serveEncapsulated(connection, null, false), (request) =>
    request[1] === 0xea
      ? encodeEncapsulatedRequest(context, { requestId: 1, message })
      : encodeEncapsulatedAck(context, { requestId: 1, answered: 1, payload: { kind: 'request', message } }),
  );
  assert.equal(codeOf(result), 'session-refused');
  assert.ok(sent < 70);
});
