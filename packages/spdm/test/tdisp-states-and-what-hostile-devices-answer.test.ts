import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ok, type Result } from '@airlock/core/result.ts';
import fc from 'fast-check';
import { nextTdiState, TDI_STATES, type TdiState } from '../src/tdisp/interface.ts';
import {
  decodeTdispRequest,
  decodeTdispResponse,
  encodeTdispRequest,
  encodeTdispResponse,
  type LockParameters,
  TDISP_ERROR,
  type TdispErrorName,
  type TdispRequest,
  type TdispResponse,
} from '../src/tdisp/messages.ts';
import type { InterfaceReport } from '../src/tdisp/report.ts';
import { openTdispInterface, type TdispInterface } from '../src/tdisp/requester.ts';
import { createTdispResponder, type TdispResponder } from '../src/tdisp/responder.ts';
import { codeOf, must } from './support/must.ts';

const ID = 0x0100;
const report: InterfaceReport = {
  info: 3,
  msixControl: 0,
  lnrControl: 0,
  tphControl: 0,
  ranges: Array.from({ length: 100 }, (_, i) => ({ firstPage: BigInt(16 * i), pages: 4, attributes: 0, rangeId: i })),
  deviceSpecific: new Uint8Array(100).fill(3),
};
const parameters: LockParameters = { flags: 1, defaultStream: 0, mmioReportingOffset: 0n, p2pAddressMask: 0n };

let filled = 0;
const device = (): TdispResponder =>
  createTdispResponder({
    interfaces: new Map([[ID, () => report]]),
    random: (length) => new Uint8Array(length).fill(++filled),
    portion: 100,
  });

/** Changes answers to requests of one name; gives back nothing to leave it as it is. */
type Lie = (response: TdispResponse, count: number) => Uint8Array | TdispResponse | undefined;

function asker(responder: TdispResponder, lies: Partial<Record<TdispRequest['name'], Lie>> = {}) {
  const counts = new Map<string, number>();
  return async (bytes: Uint8Array): Promise<Result<Uint8Array>> => {
    const answer = must(responder.answer(1, bytes));
    const { name } = must(decodeTdispRequest(bytes)).message;
    const count = counts.get(name) ?? 0;
    counts.set(name, count + 1);
    const lie = lies[name]?.(must(decodeTdispResponse(answer)).message, count);
    if (lie === undefined) return ok(answer);
    return ok(lie instanceof Uint8Array ? lie : encodeTdispResponse(ID, lie));
  };
}

const open = async (
  responder: TdispResponder,
  lies: Partial<Record<TdispRequest['name'], Lie>> = {},
): Promise<TdispInterface> =>
  must(await openTdispInterface({ ask: asker(responder, lies), interfaceId: ID, portion: 64 }));

test('the way from unlocked to running and back', async () => {
  const responder = device();
  const tdi = await open(responder);
  assert.equal(tdi.expected, 'CONFIG_UNLOCKED');
  must(await tdi.lock(parameters));
  assert.deepEqual(must(await tdi.report()).report, report);
  must(await tdi.start());
  assert.equal(responder.state(ID), 'RUN');
  assert.deepEqual(must(await tdi.report()).report, report);
  must(await tdi.stop());
  assert.equal(must(await tdi.state()), 'CONFIG_UNLOCKED');
});

test('nothing is done in a state that does not permit it', async () => {
  const tdi = await open(device());
  assert.equal(codeOf(await tdi.report()), 'tdisp-state');
  assert.equal(codeOf(await tdi.start()), 'tdisp-state');
  assert.equal(codeOf(await tdi.bindP2p(1)), 'tdisp-state');
  must(await tdi.lock(parameters));
  assert.equal(codeOf(await tdi.lock(parameters)), 'tdisp-state');
  must(await tdi.start());
  assert.equal(codeOf(await tdi.start()), 'tdisp-state');
  assert.equal(codeOf(await tdi.lock(parameters)), 'tdisp-state');
});

test('an interface that fell out of its lock is not started', async () => {
  const responder = device();
  const tdi = await open(responder);
  must(await tdi.lock(parameters));
  responder.violate(ID);
  assert.equal(codeOf(await tdi.start()), 'tdisp-state');
  assert.equal(tdi.expected, 'ERROR');
  must(await tdi.stop());
  must(await tdi.lock(parameters));
  must(await tdi.start());
});

test('flags that the device does not have are not asked for', async () => {
  const tdi = await open(device());
  assert.equal(codeOf(await tdi.lock({ ...parameters, flags: 0x10 })), 'tdisp-unexpected');
});

const refusal = (error: number): TdispResponse => ({ name: 'ERROR', error, data: 0, extended: new Uint8Array() });

const lies: readonly {
  readonly what: string;
  readonly at: TdispRequest['name'];
  readonly lie: Lie;
  readonly code: string;
  readonly does: (tdi: TdispInterface) => Promise<Result<unknown>>;
}[] = [
  {
    what: 'says that it is locked and is not',
    at: 'GET_DEVICE_INTERFACE_STATE',
    lie: (_, count) => (count < 2 ? undefined : { name: 'GET_DEVICE_INTERFACE_STATE', state: 'CONFIG_UNLOCKED' }),
    code: 'tdisp-state',
    does: (tdi) => tdi.lock(parameters),
  },
  {
    what: 'answers another request',
    at: 'LOCK_INTERFACE',
    lie: () => ({ name: 'START_INTERFACE' }),
    code: 'tdisp-unexpected',
    does: (tdi) => tdi.lock(parameters),
  },
  {
    what: 'answers for another interface',
    at: 'LOCK_INTERFACE',
    lie: (response) => encodeTdispResponse(ID + 1, response),
    code: 'tdisp-unexpected',
    does: (tdi) => tdi.lock(parameters),
  },
  {
    what: 'answers in another version',
    at: 'LOCK_INTERFACE',
    lie: (response) => encodeTdispResponse(ID, response, 0x11),
    code: 'tdisp-version-unsupported',
    does: (tdi) => tdi.lock(parameters),
  },
  {
    what: 'refuses',
    at: 'LOCK_INTERFACE',
    lie: () => refusal(TDISP_ERROR.INVALID_DEVICE_CONFIGURATION),
    code: 'tdisp-refused',
    does: (tdi) => tdi.lock(parameters),
  },
  {
    what: 'is busy without end',
    at: 'LOCK_INTERFACE',
    lie: () => refusal(TDISP_ERROR.BUSY),
    code: 'tdisp-refused',
    does: (tdi) => tdi.lock(parameters),
  },
  {
    what: 'gives an empty portion',
    at: 'GET_DEVICE_INTERFACE_REPORT',
    lie: () => ({ name: 'GET_DEVICE_INTERFACE_REPORT', remainder: 5, portion: new Uint8Array() }),
    code: 'tdisp-report-invalid',
    does: (tdi) => tdi.report(),
  },
  {
    what: 'gives a portion that is larger than asked',
    at: 'GET_DEVICE_INTERFACE_REPORT',
    lie: () => ({ name: 'GET_DEVICE_INTERFACE_REPORT', remainder: 0, portion: new Uint8Array(65) }),
    code: 'tdisp-report-invalid',
    does: (tdi) => tdi.report(),
  },
  {
    what: 'never comes to the report’s end',
    at: 'GET_DEVICE_INTERFACE_REPORT',
    lie: () => ({ name: 'GET_DEVICE_INTERFACE_REPORT', remainder: 1000, portion: new Uint8Array(1) }),
    code: 'tdisp-report-invalid',
    does: (tdi) => tdi.report(),
  },
  {
    what: 'states a report beyond what offsets reach',
    at: 'GET_DEVICE_INTERFACE_REPORT',
    lie: () => ({ name: 'GET_DEVICE_INTERFACE_REPORT', remainder: 0xffff, portion: new Uint8Array(1) }),
    code: 'tdisp-report-invalid',
    does: (tdi) => tdi.report(),
  },
  {
    what: 'gives another report the second time',
    at: 'GET_DEVICE_INTERFACE_REPORT',
    lie: (response, count) =>
      response.name === 'GET_DEVICE_INTERFACE_REPORT' && count > 30
        ? { ...response, portion: response.portion.map((byte) => byte ^ 1) }
        : undefined,
    code: 'tdisp-report-invalid',
    does: (tdi) => tdi.report(),
  },
];

for (const { what, at, lie, code, does } of lies) {
  test(`a device that ${what} is refused`, async () => {
    const responder = device();
    const tdi = await open(responder, { [at]: lie });
    if (at === 'GET_DEVICE_INTERFACE_REPORT') must(await tdi.lock(parameters));
    assert.equal(codeOf(await does(tdi)), code);
  });
}

test('a device that is busy for a while is asked again', async () => {
  const responder = device();
  let first = true;
  const busy: Lie = () => {
    if (!first) return undefined;
    first = false;
    return refusal(TDISP_ERROR.BUSY);
  };
  const tdi = await open(responder, { STOP_INTERFACE: busy });
  must(await tdi.stop());
});

test('a device without the requests that are needed, or without version 1.0, is no TDISP device', async () => {
  const without = await openTdispInterface({
    ask: asker(device(), {
      GET_CAPABILITIES: (response) =>
        response.name === 'GET_CAPABILITIES'
          ? { ...response, capabilities: { ...response.capabilities, requests: new Uint8Array(16) } }
          : undefined,
    }),
    interfaceId: ID,
  });
  assert.equal(codeOf(without), 'tdisp-unexpected');
  const newer = await openTdispInterface({
    ask: asker(device(), { GET_VERSION: () => ({ name: 'GET_VERSION', versions: [0x20] }) }),
    interfaceId: ID,
  });
  assert.equal(codeOf(newer), 'tdisp-version-unsupported');
  const none = await openTdispInterface({ ask: asker(device()), interfaceId: ID + 1 });
  assert.equal(codeOf(none), 'tdisp-refused');
});

// The responder.

const errorOf = (bytes: Uint8Array): TdispErrorName | null => {
  const { message } = must(decodeTdispResponse(bytes));
  if (message.name !== 'ERROR') return null;
  return (Object.entries(TDISP_ERROR).find(([, code]) => code === message.error)?.[0] ?? null) as TdispErrorName;
};
const ask = (responder: TdispResponder, request: TdispRequest, session = 1): Uint8Array =>
  must(responder.answer(session, encodeTdispRequest(ID, request)));
const lock: TdispRequest = { name: 'LOCK_INTERFACE', ...parameters };
const nonceOf = (bytes: Uint8Array): Uint8Array => {
  const { message } = must(decodeTdispResponse(bytes));
  return message.name === 'LOCK_INTERFACE' ? message.nonce : new Uint8Array();
};

test('a wrong nonce, an old nonce and a nonce used twice start nothing', () => {
  const responder = device();
  const old = nonceOf(ask(responder, lock));
  assert.equal(errorOf(ask(responder, { name: 'START_INTERFACE', nonce: new Uint8Array(32) })), 'INVALID_NONCE');
  ask(responder, { name: 'STOP_INTERFACE' });
  const fresh = nonceOf(ask(responder, lock));
  assert.equal(errorOf(ask(responder, { name: 'START_INTERFACE', nonce: old })), 'INVALID_NONCE');
  assert.equal(errorOf(ask(responder, { name: 'START_INTERFACE', nonce: fresh })), null);
  assert.equal(errorOf(ask(responder, { name: 'START_INTERFACE', nonce: fresh })), 'INVALID_INTERFACE_STATE');
});

test('an interface that is locked in one session answers no other, until it is stopped there', () => {
  const responder = device();
  ask(responder, lock);
  for (const name of ['STOP_INTERFACE', 'GET_DEVICE_INTERFACE_STATE'] as const)
    assert.equal(errorOf(ask(responder, { name }, 2)), 'INVALID_INTERFACE');
  assert.equal(responder.state(ID), 'CONFIG_LOCKED');
  responder.endSession(1);
  assert.equal(responder.state(ID), 'ERROR');
  assert.equal(errorOf(ask(responder, { name: 'STOP_INTERFACE' }, 2)), null);
  assert.equal(errorOf(ask(responder, lock, 2)), null);
});

test('what the responder refuses', () => {
  const responder = device();
  assert.equal(errorOf(must(responder.answer(1, encodeTdispRequest(7, lock)))), 'INVALID_INTERFACE');
  assert.equal(errorOf(ask(responder, { ...lock, flags: 0x10 } as TdispRequest)), 'INVALID_REQUEST');
  assert.equal(errorOf(ask(responder, { ...lock, mmioReportingOffset: 5n } as TdispRequest)), 'INVALID_REQUEST');
  assert.equal(
    errorOf(ask(responder, { name: 'GET_DEVICE_INTERFACE_REPORT', offset: 0, length: 64 })),
    'INVALID_INTERFACE_STATE',
  );
  const range = { firstPage: 0n, pages: 1, attributes: 0, rangeId: 0 };
  assert.equal(errorOf(ask(responder, { name: 'SET_MMIO_ATTRIBUTE', range })), 'UNSUPPORTED_REQUEST');
  ask(responder, lock);
  assert.equal(
    errorOf(ask(responder, { name: 'GET_DEVICE_INTERFACE_REPORT', offset: 0, length: 0 })),
    'INVALID_REQUEST',
  );
  assert.equal(
    errorOf(ask(responder, { name: 'GET_DEVICE_INTERFACE_REPORT', offset: 0xffff, length: 1 })),
    'INVALID_REQUEST',
  );
  assert.equal(errorOf(ask(responder, { name: 'BIND_P2P_STREAM', stream: 1 })), 'INVALID_INTERFACE_STATE');
  const version = encodeTdispRequest(ID, { name: 'GET_VERSION' });
  version[0] = 0x20;
  assert.equal(errorOf(must(responder.answer(1, version))), 'VERSION_MISMATCH');
  const unknown = encodeTdispRequest(ID, { name: 'GET_VERSION' });
  unknown[1] = 0x90;
  assert.equal(errorOf(must(responder.answer(1, unknown))), 'UNSUPPORTED_REQUEST');
  assert.equal(
    errorOf(must(responder.answer(1, Uint8Array.of(...encodeTdispRequest(ID, lock), 1)))),
    'INVALID_REQUEST',
  );
  assert.equal(codeOf(responder.answer(1, new Uint8Array(4))), 'tdisp-message-invalid');
});

const events = ['lock', 'start', 'stop', 'violation', 'report'] as const;

test('any order of requests: the state is what the machine says, and RUN comes only after a lock with its nonce', () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...events), { maxLength: 40 }), (steps) => {
      const responder = device();
      let expected = 'CONFIG_UNLOCKED' as TdiState;
      let nonce = new Uint8Array(32);
      for (const step of steps) {
        if (step === 'violation') {
          responder.violate(ID);
          expected = nextTdiState(expected, step) ?? expected;
        } else if (step === 'report') {
          const answer = ask(responder, { name: 'GET_DEVICE_INTERFACE_REPORT', offset: 0, length: 8 });
          assert.equal(errorOf(answer) === null, expected === 'CONFIG_LOCKED' || expected === 'RUN');
        } else {
          const answer = ask(
            responder,
            step === 'lock' ? lock : step === 'start' ? { name: 'START_INTERFACE', nonce } : { name: 'STOP_INTERFACE' },
          );
          const next = nextTdiState(expected, step);
          assert.equal(errorOf(answer) === null, next !== undefined, `${step} in ${expected}`);
          if (step === 'lock' && next !== undefined) nonce = Uint8Array.from(nonceOf(answer));
          expected = next ?? expected;
        }
        assert.equal(responder.state(ID), expected);
      }
    }),
    { numRuns: 300 },
  );
});

test('the only way into RUN is start out of CONFIG_LOCKED, and out of ERROR is stop', () => {
  for (const state of TDI_STATES) {
    assert.equal(nextTdiState(state, 'start'), state === 'CONFIG_LOCKED' ? 'RUN' : undefined);
    assert.equal(nextTdiState(state, 'stop'), 'CONFIG_UNLOCKED');
    assert.equal(nextTdiState(state, 'lock'), state === 'CONFIG_UNLOCKED' ? 'CONFIG_LOCKED' : undefined);
    assert.notEqual(nextTdiState(state, 'violation'), 'RUN');
  }
});
