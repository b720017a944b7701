import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ok } from '@airlock/core/result.ts';
import type { SpdmVersion } from '../src/algorithms.ts';
import { pciSessionAsk } from '../src/doe/pci-session.ts';
import { queryPort, startKeySet, stopKeySet } from '../src/ide-km/requester.ts';
import { DEFAULT_PREFERENCES } from '../src/negotiate.ts';
import { nodeSpdmCrypto } from '../src/node-crypto.ts';
import { getCertificate, getDigests } from '../src/requester/certificates.ts';
import { Connection } from '../src/requester/connection.ts';
import { drive } from '../src/requester/procedure.ts';
import { endSession, establishSession, updateKeys } from '../src/requester/session.ts';
import { start } from '../src/requester/start.ts';
import { openTdispInterface } from '../src/tdisp/requester.ts';
import { startResponder, withoutEmulator } from './support/emulator.ts';
import { must } from './support/must.ts';

const crypto = nodeSpdmCrypto();
/** The interface that DMTF’s sample device has. */
const INTERFACE = 0xbeef;

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
