import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ok } from '@airlock/core/result.ts';
import type { SpdmVersion } from '../src/algorithms.ts';
import { gatherEvidence } from '../src/attest/gather.ts';
import { gatherInterface } from '../src/attest/gather-interface.ts';
import { answerDiscoveryObject } from '../src/doe/discovery.ts';
import { decodePciMessage, encodePciMessage } from '../src/doe/pci-protocol.ts';
import { pciSessionAsk } from '../src/doe/pci-session.ts';
import { decodeIdeMessage } from '../src/ide-km/messages.ts';
import { queryPort, startKeySet, stopKeySet } from '../src/ide-km/requester.ts';
import { createIdeResponder } from '../src/ide-km/responder.ts';
import { DEFAULT_PREFERENCES } from '../src/negotiate.ts';
import { nodeSpdmCrypto } from '../src/node-crypto.ts';
import { getCertificate, getDigests } from '../src/requester/certificates.ts';
import { Connection } from '../src/requester/connection.ts';
import { drive } from '../src/requester/procedure.ts';
import { endSession, establishSession, updateKeys } from '../src/requester/session.ts';
import { start } from '../src/requester/start.ts';
import { serveSocket } from '../src/tcp/node-server.ts';
import { decodeTdispRequest } from '../src/tdisp/messages.ts';
import { decodeInterfaceReport } from '../src/tdisp/report.ts';
import { openTdispInterface } from '../src/tdisp/requester.ts';
import { createTdispResponder } from '../src/tdisp/responder.ts';
import { makeDevice, sequence } from './support/device-chain.ts';
import { EMULATOR, startResponder, withoutEmulator } from './support/emulator.ts';
import { must } from './support/must.ts';
import { responderOf } from './support/responder.ts';

const crypto = nodeSpdmCrypto();
/** The interface that DMTF’s sample device has. */
const INTERFACE = 0xbeef;
/** DMTF’s library wants basicConstraints said, also where they say nothing. */
const NO_AUTHORITY = { oid: '2.5.29.19', critical: true, value: sequence() };
const REPORT = {
  info: 3,
  msixControl: 0,
  lnrControl: 0,
  tphControl: 0,
  ranges: [{ firstPage: 0n, pages: 1, attributes: 0, rangeId: 0 }],
  deviceSpecific: new Uint8Array(),
};

for (const version of ['1.1', '1.2', '1.3', '1.4'] as readonly SpdmVersion[]) {
  test(`SPDM ${version}: keys of an IDE stream, and an interface locked, started and stopped, in a session`, {
    skip: withoutEmulator,
  }, async () => {
    const emulator = await startResponder('PCI_DOE', ['--mut_auth', 'NO', '--basic_mut_auth', 'NO']);
    try {
      const { link, binding } = emulator;
      const connection = new Connection({
        crypto,
        binding,
        trust: () => ok(null),
        preferences: { ...DEFAULT_PREFERENCES, versions: [version] },
      });
      must(await drive(start(connection), link));
      must(await drive(getDigests(connection, null), link));
      must(await drive(getCertificate(connection, 0, null), link));
      const { session } = must(await drive(establishSession(connection, { slot: 0 }), link));

      const ide = pciSessionAsk(connection, session, link, 'ide-km');
      const port = must(await queryPort(ide, 1));
      assert.equal(port.maxPort, 7);
      must(await startKeySet(ide, 0, 0, 1, () => ({ key: crypto.random(32), iv: crypto.random(8) })));

      const tdisp = pciSessionAsk(connection, session, link, 'tdisp');
      const tdi = must(await openTdispInterface({ ask: tdisp, interfaceId: INTERFACE, portion: 64 }));
      assert.equal(tdi.capabilities.addressWidth, 48);
      must(await tdi.lock({ flags: 7, defaultStream: 0, mmioReportingOffset: 0n, p2pAddressMask: 0n }));
      const { report } = must(await tdi.report());
      assert.equal(report.ranges.length, 4);
      must(await drive(updateKeys(connection, session, false), link));
      must(await drive(updateKeys(connection, session, true), link));
      must(await tdi.start());
      assert.equal(must(await tdi.state()), 'RUN');
      must(await tdi.stop());

      must(await stopKeySet(ide, 0, 0, 1));
      must(await drive(endSession(connection, session), link));
    } finally {
      await emulator.stop();
    }
  });
}

for (const version of ['1.1', '1.2', '1.3', '1.4'] as readonly SpdmVersion[]) {
  test(`SPDM ${version}: after it said who it is, its interface is locked twice, reported, started and stopped`, {
    skip: withoutEmulator,
  }, async () => {
    const emulator = await startResponder('PCI_DOE', ['--mut_auth', 'NO', '--basic_mut_auth', 'NO']);
    try {
      const { link, binding } = emulator;
      const preferences = { ...DEFAULT_PREFERENCES, versions: [version] };
      const connection = new Connection({ crypto, binding, trust: () => ok(null), preferences });
      const evidence = must(await drive(gatherEvidence(connection, { device: 'emulator' }), link));
      const record = await gatherInterface({
        ...{ connection, link, slot: evidence.slot, functionId: INTERFACE, step: 'start', readFacts: null },
        chainDigest: crypto.hash('sha384', evidence.chain),
      });
      assert.deepEqual(
        [record.problem, record.found, record.reached, record.left, record.lock?.nonces.length],
        [null, 'CONFIG_UNLOCKED', 'RUN', 'CONFIG_UNLOCKED', 2],
      );
      assert.equal(must(decodeInterfaceReport(record.report ?? new Uint8Array())).ranges.length, 4);
    } finally {
      await emulator.stop();
    }
  });
}

/** What DMTF’s requester asks of the PCI-SIG’s protocols in one session, in order; it ends with one of CXL’s. */
async function askedBy(version: SpdmVersion): Promise<readonly string[]> {
  const asked: string[] = [];
  const tdisp = createTdispResponder({ interfaces: new Map([[INTERFACE, () => REPORT]]), random: crypto.random });
  const port = { devfn: 0, bus: 0, segment: 0, registers: [0x42, 0] };
  const ide = createIdeResponder(Array.from({ length: 8 }, () => port));
  const responder = responderOf(makeDevice({ leaf: [NO_AUTHORITY] }), {
    vendor: (request, session) => {
      if (session === null || request.standard !== 3 || request.vendor[0] !== 1 || request.vendor[1] !== 0) return null;
      const read = must(decodePciMessage(request.payload));
      const { protocol, message } = read;
      asked.push(
        protocol === 'tdisp' ? must(decodeTdispRequest(message)).message.name : must(decodeIdeMessage(message)).name,
      );
      const answer = must(protocol === 'tdisp' ? tdisp.answer(session, message) : ide.answer(message));
      return { ...request, payload: encodePciMessage({ protocol, message: answer }) };
    },
  });
  const server = must(
    await serveSocket({
      listen: { host: '127.0.0.1', port: 0 },
      form: 'emulator-doe',
      open: () => (message) => answerDiscoveryObject(message) ?? responder.answer(message),
    }),
  );
  const folder = mkdtempSync(join(tmpdir(), 'airlock-spdm-'));
  for (const name of readdirSync(EMULATOR)) symlinkSync(join(EMULATOR, name), join(folder, name));
  const args = ['--trans', 'PCI_DOE', '--ip', '127.0.0.1', '--port', String(server.port), '--ver', version];
  const program = join(EMULATOR, 'spdm_requester_emu');
  const child = spawn(program, [...args, '--meas_op', 'ALL', '--exe_session', 'KEY_EX,APP'], {
    cwd: folder,
    stdio: 'ignore',
  });
  await new Promise((resolve) => child.once('exit', resolve));
  await server.close();
  rmSync(folder, { recursive: true, force: true });
  assert.equal(tdisp.state(INTERFACE), 'CONFIG_UNLOCKED');
  return asked;
}

for (const version of ['1.1', '1.2', '1.3', '1.4'] as readonly SpdmVersion[]) {
  test(`SPDM ${version}: DMTF’s requester sets the keys of our port, and takes our interface through its states`, {
    skip: withoutEmulator,
  }, async () => {
    const asked = await askedBy(version);
    const count = (name: string) => asked.filter((one) => one === name).length;
    assert.deepEqual(['QUERY', 'KEY_PROG', 'K_SET_GO', 'K_SET_STOP'].map(count), [1, 6, 6, 6]);
    assert.deepEqual(
      asked.filter((name) => name.includes('_INTERFACE') || name.startsWith('GET_')),
      [
        ...['GET_VERSION', 'GET_CAPABILITIES', 'GET_DEVICE_INTERFACE_STATE', 'LOCK_INTERFACE'],
        ...['GET_DEVICE_INTERFACE_STATE', 'GET_DEVICE_INTERFACE_REPORT', 'START_INTERFACE'],
        ...['GET_DEVICE_INTERFACE_STATE', 'STOP_INTERFACE', 'GET_DEVICE_INTERFACE_STATE'],
      ],
    );
  });
}
