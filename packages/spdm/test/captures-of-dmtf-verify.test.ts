import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { hex } from '@airlock/core/bytes.ts';
import { evidencePath, missing, readDump } from './support/dump.ts';
import { observe } from './support/observer.ts';

/** The pre-shared key of DMTF’s sample, its zero included. */
const PSK = new TextEncoder().encode('TestPskData\0');

interface Packet {
  readonly bytes: Uint8Array;
  readonly up: boolean;
}

/** DOE objects of a pcap, discovery left out; which way they went is their order. */
function readPackets(name: string): Packet[] {
  const file = readFileSync(evidencePath(`spdm-captures/${name}.pcap`));
  const packets: Packet[] = [];
  for (let at = 24, count = 0; at < file.length; count++) {
    const length = file.readUInt32LE(at + 8);
    const bytes = new Uint8Array(file.subarray(at + 16, at + 16 + length));
    at += 16 + length;
    if (bytes[2] !== 0) packets.push({ bytes, up: count % 2 === 0 });
  }
  return packets;
}

function readSecrets(name: string): Uint8Array[] {
  const text = readFileSync(evidencePath(`spdm-captures/${name}.dhe_secrets.txt`), 'utf8');
  return text
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => new Uint8Array(Buffer.from(line.trim(), 'hex')));
}

for (const version of ['11', '12', '13', '14']) {
  const name = `v${version}-p384`;
  test(`${name}: every signature and MAC verifies, every record opens`, { skip: missing }, () => {
    const packets = readPackets(name);
    const seen = observe(packets, readSecrets(name), PSK);
    assert.equal(seen.names.length, packets.length);
    const { signatures, macs, records } = seen;
    assert.deepEqual({ signatures, macs, records }, { signatures: 9, macs: 6, records: 200 });
  });

  test(`${name}: our names and DMTF’s, our plain text and DMTF’s`, { skip: missing }, () => {
    const packets = readPackets(name);
    const seen = observe(packets, readSecrets(name), PSK);
    const dumped = readDump(name).filter(({ line }) => !line.includes('DOE_DISCOVERY'));
    const names = dumped.map(({ line }) => /SPDM\([0-9a-f]+, 0x[0-9a-f]+\) SPDM_([A-Z_]+)/.exec(line)?.[1] ?? '');
    assert.equal(names.length, seen.names.length);
    // DMTF's program does not open every record; ours does.
    const ours = seen.names.map((one, index) => (names[index] === '' ? '' : one));
    assert.deepEqual(ours, names);
    assert.ok(names.filter((one) => one !== '').length > 40);
    const plain = dumped
      .filter(({ line }) => line.includes('SecuredSPDM'))
      .map(({ parts }) => hex(parts.get('SPDM') ?? new Uint8Array()));
    let compared = 0;
    for (const [index, text] of plain.entries()) {
      if (text === '') continue;
      assert.equal(hex(seen.decrypted[index] ?? new Uint8Array()), text, `record ${index}`);
      compared++;
    }
    assert.ok(version === '14' || compared > 0, 'nothing was compared');
  });

  test(`${name}: a byte of what is covered, changed, is noticed`, { skip: missing }, () => {
    const packets = readPackets(name);
    const secrets = readSecrets(name);
    const sent = new Set([0x84, 0x04, 0xe1, 0x61, 0xe3, 0x63, 0x83, 0x03, 0xe0, 0x60, 0xe4, 0x64, 0xe5, 0x65]);
    for (const [index, { bytes, up }] of packets.entries()) {
      const secured = bytes[2] === 2;
      if (!secured && !sent.has(bytes[9] ?? 0)) continue;
      if (secured ? index % 29 !== 0 : index > 60) continue;
      for (const at of [9, bytes.length - 5, Math.floor(bytes.length / 2) + 4]) {
        if (at >= bytes.length) continue;
        const changed = bytes.slice();
        changed[at] = (changed[at] ?? 0) ^ 0x04;
        const copy = [...packets];
        copy[index] = { bytes: changed, up };
        assert.throws(() => observe(copy, secrets, PSK), `message ${index}, byte ${at}`);
      }
    }
  });
}
