import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { answerDiscovery } from '@airlock/spdm/doe/discovery.ts';
import { decodeDoeObject, encodeDoeObject } from '@airlock/spdm/doe/object.ts';
import { MAILBOX_AT, type MailboxDevice, mailboxDevice } from '../../spdm/test/support/mailbox-device.ts';
import { doeCapabilities, findSpdmMailbox, openDoeMailboxes } from '../src/doe-mailbox.ts';
import { fakeFiles } from '../src/fake-files.ts';
import type { Files } from '../src/files.ts';

const FOLDER = '/sys/devices/pci0000:00/0000:00:04.0';
const PATH = `${FOLDER}/config`;
const LOCKDOWN = '/sys/kernel/security/lockdown';

const must = <T>(result: Result<T>): T => {
  if (result.ok) return result.value;
  throw new Error(`${result.error.code}: ${result.error.message}`);
};
const codeOf = (result: Result<unknown>): string => {
  assert.equal(result.ok, false);
  return result.ok ? '' : result.error.code;
};

/** Extended capabilities at these offsets, the first at 0x100. */
function config(places: readonly { id: number; at: number; version?: number }[], length = 4096): Uint8Array {
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x0010_1b36, true);
  view.setUint32(8, 0x010802_02, true);
  for (const [index, { id, at, version = 1 }] of places.entries()) {
    const next = places[index + 1]?.at ?? 0;
    if (at + 4 <= length) view.setUint32(at, (id | (version << 16) | (next << 20)) >>> 0, true);
  }
  return bytes;
}

/** The function’s file: mailbox registers go to the device, everything else is the bytes. */
function machine(bytes: Uint8Array, device: MailboxDevice, lockdown?: string): Files {
  const files = fakeFiles({
    [PATH]: bytes,
    ...(lockdown === undefined ? {} : { [LOCKDOWN]: lockdown }),
  });
  const inMailbox = (offset: number) => offset > MAILBOX_AT && offset < MAILBOX_AT + 24;
  return {
    ...files,
    async readAt(path, offset, length) {
      if (path !== PATH || length !== 4 || !inMailbox(offset)) return files.readAt(path, offset, length);
      const value = await device.read32(offset);
      if (!value.ok) return value;
      const dword = new Uint8Array(4);
      new DataView(dword.buffer).setUint32(0, value.value, true);
      return ok(dword);
    },
    async write(path, data, offset = 0) {
      if (path !== PATH || typeof data === 'string' || data.length !== 4) return fail('file-io', 'not a dword');
      return device.write32(offset, new DataView(data.buffer, data.byteOffset).getUint32(0, true));
    },
  };
}

const offering = (types: readonly number[]) =>
  mailboxDevice((object) => {
    const { vendor, type, payload } = must(decodeDoeObject(object));
    const features = types.map((one) => ({ vendor: 1, type: one }));
    return must(encodeDoeObject(vendor, type, type === 0 ? must(answerDiscovery(features, payload)) : payload));
  });

const doe = { id: 0x2e, at: MAILBOX_AT };
const nvme = config([{ id: 0x0b, at: 0x100 }, doe]);

test('the mailbox that speaks SPDM is found, and carries objects', async () => {
  const device = offering([0, 1, 2]);
  const found = must(await findSpdmMailbox(machine(nvme, device), device.clock, FOLDER));
  assert.equal(found.offset, MAILBOX_AT);
  assert.equal(found.secured, true);
  assert.deepEqual(must(await found.mailbox.exchange(1, 1, Uint8Array.of(1, 2, 3, 4))), Uint8Array.of(1, 2, 3, 4));
});

test('opening writes nothing', async () => {
  const device = offering([0, 1]);
  assert.equal(must(await openDoeMailboxes(machine(nvme, device), device.clock, FOLDER)).length, 1);
  assert.deepEqual(device.writes, []);
});

test('several mailboxes: all are seen, one that does not fit or a chain that turns back is not', () => {
  assert.deepEqual(
    doeCapabilities(config([{ id: 0x2e, at: 0x100, version: 2 }, { id: 1, at: 0x140 }, doe])).map(
      ({ offset, version }) => [offset, version],
    ),
    [
      [0x100, 2],
      [MAILBOX_AT, 1],
    ],
  );
  assert.deepEqual(
    doeCapabilities(
      config([
        { id: 1, at: 0x100 },
        { id: 0x2e, at: 0xff0 },
      ]),
    ),
    [],
  );
  assert.deepEqual(
    doeCapabilities(
      config([
        { id: 0x2e, at: 0x100 },
        { id: 0x2e, at: 0x100 },
      ]),
    ).length,
    1,
  );
  assert.deepEqual(doeCapabilities(new Uint8Array(10)), []);
  assert.deepEqual(doeCapabilities(new Uint8Array(4096).fill(0xff)), []);
});

test('a function without DOE, without extended space, or with a mailbox for something else, is said to be so', async () => {
  const device = offering([0, 5]);
  const open = (bytes: Uint8Array) => findSpdmMailbox(machine(bytes, device), device.clock, FOLDER);
  assert.equal(codeOf(await open(config([{ id: 1, at: 0x100 }]))), 'doe-absent');
  assert.equal(codeOf(await open(config([], 256))), 'doe-absent');
  assert.equal(codeOf(await open(config([], 64))), 'config-too-short');
  assert.equal(codeOf(await open(new Uint8Array(4096).fill(0xff))), 'doe-gone');
  assert.equal(codeOf(await open(nvme)), 'doe-unsupported');
  assert.equal(codeOf(await findSpdmMailbox(fakeFiles(), device.clock, FOLDER)), 'file-missing');
});

test('lockdown is told from other refusals', async () => {
  const device = offering([0, 1]);
  device.forbids = 'file-denied';
  const ask = (lockdown?: string) => findSpdmMailbox(machine(nvme, device, lockdown), device.clock, FOLDER);
  assert.equal(codeOf(await ask('none [integrity] confidentiality\n')), 'config-locked-down');
  assert.equal(codeOf(await ask('none integrity [confidentiality]\n')), 'config-locked-down');
  assert.equal(codeOf(await ask('[none] integrity confidentiality\n')), 'file-denied');
  // EPERM is what lockdown answers; a file that may not be opened gives EACCES.
  assert.equal(codeOf(await ask('what')), 'config-locked-down');
  assert.equal(codeOf(await ask()), 'config-locked-down');
  device.reason = 'EACCES';
  assert.equal(codeOf(await ask()), 'file-denied');
  device.forbids = 'write-forbidden';
  assert.equal(codeOf(await ask('none [integrity] confidentiality\n')), 'write-forbidden');
});

test('a mailbox that fails does not hide that nothing was found out', async () => {
  const mute = mailboxDevice(() => undefined);
  assert.equal(codeOf(await findSpdmMailbox(machine(nvme, mute), mute.clock, FOLDER)), 'doe-timeout');
});
