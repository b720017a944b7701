import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { nodeCrypto } from '@airlock/evidence/node-crypto.ts';
import type { FakeFiles } from '@airlock/linux/fake-files.ts';
import { SPDM_VERSIONS, type SpdmVersion } from '@airlock/spdm/algorithms.ts';
import { appraiseDevice } from '@airlock/spdm/attest/appraise.ts';
import type { DeviceEvidence } from '@airlock/spdm/attest/evidence.ts';
import { gatherEvidence } from '@airlock/spdm/attest/gather.ts';
import { doeBinding } from '@airlock/spdm/doe/binding.ts';
import { DEFAULT_PREFERENCES } from '@airlock/spdm/negotiate.ts';
import { Connection } from '@airlock/spdm/requester/connection.ts';
import { runAtOnce } from '@airlock/spdm/requester/procedure.ts';
import { encodeInterfaceReport } from '@airlock/spdm/tdisp/report.ts';
import { cmaName, dmtf, makeDevice, spdmCrypto } from '../../spdm/test/support/device-chain.ts';
import { must } from '../../spdm/test/support/must.ts';
import { responderOf } from '../../spdm/test/support/responder.ts';
import { type AskTsm, askTsm } from '../src/ask-tsm.ts';
import { judgeInterface } from '../src/bundle-devices.ts';
import {
  ADDRESS,
  attribute,
  end,
  FAMILY_ID,
  FOLDER,
  fakeTsm,
  message,
  objectsOf,
  stateOf,
  tsmMachine,
} from './fake-tsm.ts';

const NONCE = new Uint8Array(32).fill(0x5a);
const NAME = 'Vendor=1b36:Device=0010:CC=010802:REV=02:SSVID=1af4:SSID=1100';
const device = makeDevice({ leaf: [cmaName(NAME), dmtf('1.3.6.1.4.1.412.274.2')] });
const REPORT = encodeInterfaceReport({
  ...{ info: 0b11, msixControl: 0, lnrControl: 0, tphControl: 0, deviceSpecific: new Uint8Array() },
  ranges: [{ firstPage: 0x77n, pages: 4, attributes: 0, rangeId: 0 }],
});

/** What a TSM's requester has heard, as the kernel gives it. */
function heard(version: SpdmVersion = '1.3', nonce = NONCE): Map<number, Uint8Array> {
  const responder = responderOf(device);
  const preferences = { ...DEFAULT_PREFERENCES, versions: [version] };
  const connection = new Connection({ crypto: spdmCrypto, binding: doeBinding, trust: () => ok(null), preferences });
  const evidence = must(
    runAtOnce(gatherEvidence(connection, { device: 'tsm', nonce }), (bytes) => must(responder.answer(bytes))),
  );
  return objectsOf(evidence, REPORT);
}
const objects = heard();

function appraise(evidence: DeviceEvidence) {
  return must(
    appraiseDevice(evidence, {
      ...{ x509: nodeCrypto(), spdm: spdmCrypto, roots: [device.rootCertificate], asOf: Date.parse('2026-06-01') },
      ...{ revocation: { lists: [], required: false }, function: null, references: [], nonce: NONCE },
    }),
  );
}
const isGood = (evidence: DeviceEvidence) => {
  const record = evidence.interface;
  const its = record && judgeInterface(record, evidence.chain, { function: ADDRESS, compare: true });
  return appraise(evidence).tier === 'attested' && its?.verdict === 'accepted';
};

function ask(files: FakeFiles, more: Partial<AskTsm> = {}) {
  return askTsm({
    ...{ files, netlink: fakeTsm({ objects: () => objects }), slot: 0, nonce: NONCE, step: 'start', tsm: 'tsm0' },
    ...{ device: { id: `pci:${ADDRESS}`, location: ADDRESS, path: FOLDER }, judge: isGood },
    ...more,
  });
}
const codeOf = async (result: ReturnType<typeof askTsm>) => {
  const done = await result;
  return done.ok ? 'ok' : done.error.code;
};

test('a TSM locks, the evidence is good, and the function runs for this VM', async () => {
  const files = tsmMachine();
  const evidence = must(await ask(files));
  assert.equal(stateOf(files), 'tsm0,1');
  const { by, tsm, found, reached, left } = evidence.interface ?? {};
  assert.deepEqual([by, tsm, found, reached, left], ['tsm', 'tsm0', 'CONFIG_UNLOCKED', 'RUN', 'RUN']);
  assert.ok(isGood(evidence));
  assert.deepEqual(
    files.writes.map(({ path, data }) => [path.replace(`${FOLDER}/`, ''), data]),
    [
      ['tsm/lock', 'tsm0'],
      ['tsm/accept', '1'],
    ],
  );
  // What it holds is looked at without a write.
  const looked = must(await ask(files, { step: 'look' }));
  assert.equal(looked.interface?.left, 'RUN');
  assert.equal(files.writes.length, 2);
});

test('to look at it only it is unlocked again, and nothing is accepted', async () => {
  const files = tsmMachine();
  const evidence = must(await ask(files, { step: 'lock' }));
  assert.deepEqual(
    [stateOf(files), evidence.interface?.reached, evidence.interface?.left],
    [',0', 'CONFIG_LOCKED', 'CONFIG_UNLOCKED'],
  );
  assert.equal(await codeOf(ask(files, { step: 'look' })), 'tsm-no-evidence');
});

test('a device that is not good enough is unlocked and never runs', async () => {
  const worse: readonly (readonly [string, Map<number, Uint8Array>])[] = [
    ['a stale nonce', heard('1.3', new Uint8Array(32))],
    [
      'a report of another function',
      new Map(objects).set(
        10,
        REPORT.map((byte, i) => (i === 24 ? 9 : byte)),
      ),
    ],
    ['no report', new Map([...objects].filter(([type]) => type !== 10))],
  ];
  for (const [name, given] of worse) {
    const files = tsmMachine();
    const evidence = must(await ask(files, { netlink: fakeTsm({ objects: () => given }) }));
    assert.deepEqual([stateOf(files), evidence.interface?.left], [',0', 'CONFIG_UNLOCKED'], name);
    assert.ok(
      files.writes.every(({ path }) => !path.endsWith('accept')),
      name,
    );
  }
});

test('evidence that cannot be read is none, and the lock is taken back', async () => {
  const cut = (type: number, by: number) =>
    new Map(objects).set(type, (objects.get(type) ?? new Uint8Array()).slice(0, -by));
  const bad: readonly (readonly [Parameters<typeof fakeTsm>[0], string])[] = [
    [{ objects: () => objects, family: false }, 'tsm-absent'],
    [{ objects: () => objects, errno: () => 6 }, 'tsm-no-evidence'],
    [{ objects: () => objects, errno: () => 1 }, 'tsm-no-evidence'],
    [{ objects: () => objects, errno: () => 11 }, 'tsm-raced'],
    [{ objects: () => cut(8, 1) }, 'device-evidence-invalid'],
    [
      { objects: () => new Map(objects).set(8, concat(objects.get(8) ?? new Uint8Array(), Uint8Array.of(0))) },
      'device-evidence-invalid',
    ],
    [{ objects: () => new Map(objects).set(9, new Uint8Array(10)) }, 'device-evidence-invalid'],
    [{ objects: () => new Map() }, 'device-evidence-invalid'],
    [{ objects: () => new Map(objects).set(7, Uint8Array.of(1)) }, 'netlink-invalid'],
    [
      { objects: () => objects, answer: (sequence) => [message(0x30, sequence, new Uint8Array(8)), end(sequence)] },
      'netlink-invalid',
    ],
    [
      {
        objects: () => objects,
        answer: (sequence) => [message(FAMILY_ID, sequence, Uint8Array.of(1, 1, 0, 0, 9, 0, 1, 0)), end(sequence)],
      },
      'netlink-invalid',
    ],
    [
      {
        objects: () => objects,
        answer: (sequence) => {
          const value = concat(
            Uint8Array.of(1, 1, 0, 0),
            attribute(1, Uint8Array.of(10, 0, 0, 0)),
            attribute(6, new Uint8Array(60_000)),
          );
          return [...Array.from({ length: 20 }, () => message(FAMILY_ID, sequence, value)), end(sequence)];
        },
      },
      'netlink-invalid',
    ],
  ];
  for (const [given, code] of bad) {
    const files = tsmMachine();
    assert.equal(await codeOf(ask(files, { netlink: fakeTsm(given) })), code);
    assert.equal(stateOf(files), ',0', code);
  }
});

test('what changed while it was read is read again; a kernel that takes no nonce has nothing fresh', async () => {
  const once = fakeTsm({ objects: () => objects, errno: (question) => (question === 0 ? 11 : 0) });
  const files = tsmMachine();
  assert.equal(await codeOf(ask(files, { netlink: once })), 'ok');
  assert.equal(stateOf(files), 'tsm0,1');
  const old = heard('1.3', new Uint8Array(32).fill(9));
  const silent = tsmMachine();
  const netlink = fakeTsm({ objects: () => old, errno: (_, hasNonce) => (hasNonce ? 95 : 0) });
  const evidence = must(await ask(silent, { netlink }));
  assert.deepEqual([stateOf(silent), appraise(evidence).tier], [',0', 'claimed']);
});

test('a state that changes meanwhile, a kernel that takes and does nothing, and what others hold', async () => {
  const stolen = tsmMachine();
  const meanwhile = fakeTsm({
    objects: () => {
      stolen.tree.set(`${FOLDER}/tsm/lock`, '\n');
      return objects;
    },
  });
  assert.equal(await codeOf(ask(stolen, { netlink: meanwhile })), 'tsm-raced');
  const idle = tsmMachine();
  idle.tree.set(`${FOLDER}/tsm/lock`, 'tsm0\n');
  assert.equal(await codeOf(ask(idle)), 'tsm-held');
  assert.equal(stateOf(idle), 'tsm0,0', 'another’s lock is left alone');
  assert.equal(idle.writes.length, 0);
  const other = tsmMachine();
  other.tree.set(`${FOLDER}/tsm/lock`, '../../x\n');
  assert.equal(await codeOf(ask(other)), 'attribute-malformed');
  const none = tsmMachine();
  none.tree.delete(`${FOLDER}/tsm/lock`);
  assert.equal(await codeOf(ask(none)), 'tsm-absent');
  const deafTo = (files: FakeFiles, answer: Result<void>): FakeFiles => ({ ...files, write: async () => answer });
  const lazy = tsmMachine();
  assert.equal(await codeOf(ask(lazy, { files: deafTo(lazy, ok(undefined)) })), 'tsm-refused');
  const busy = tsmMachine();
  const refused = fail('file-refused', 'tsm/lock: EBUSY');
  assert.equal(await codeOf(ask(busy, { files: deafTo(busy, refused) })), 'file-refused');
});

test('an accept that the kernel does not carry out ends in an unlocked function', async () => {
  const files = tsmMachine();
  const write = files.write;
  const deaf = {
    ...files,
    write: async (path: string, data: string | Uint8Array, offset?: number) =>
      path.endsWith('/accept') ? ok(undefined) : write(path, data, offset),
  };
  assert.equal(await codeOf(ask(files, { files: deaf })), 'tsm-refused');
  assert.equal(stateOf(files), ',0');
});

test('transcripts of every version are put together and verify', async () => {
  for (const version of SPDM_VERSIONS) {
    const given = heard(version);
    const evidence = must(await ask(tsmMachine(), { netlink: fakeTsm({ objects: () => given }) }));
    assert.equal(appraise(evidence).tier, 'attested', version);
    assert.equal(evidence.version, version);
    // With the agreement in front of them, as a TSM may keep them.
    const whole = new Map(given).set(9, concat(given.get(8) ?? new Uint8Array(), given.get(9) ?? new Uint8Array()));
    const same = must(await ask(tsmMachine(), { netlink: fakeTsm({ objects: () => whole }) }));
    assert.equal(appraise(same).tier, 'attested', version);
  }
});
