import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Device } from '@airlock/core/device.ts';
import { ok } from '@airlock/core/result.ts';
import fc from 'fast-check';
import { deviceReader } from '../src/device-reader.ts';
import { type FakeNode, fakeFiles } from '../src/fake-files.ts';
import { isTsmName, readTsmDevices, readTsmState } from '../src/tsm.ts';

const FUNCTION = '/sys/devices/pci0000:00/0000:00:01.0';

async function stateOf(attributes: Readonly<Record<string, FakeNode>>, tsms = true) {
  const tree = Object.fromEntries(Object.entries(attributes).map(([name, node]) => [`${FUNCTION}/${name}`, node]));
  const reader = deviceReader(fakeFiles(tree), FUNCTION, { hung: 0 });
  return {
    state: await readTsmState(reader, tsms),
    faults: reader.faults.map(({ attribute, code }) => [attribute, code]),
  };
}

/** What a host's kernel of 6.19 shows, and what a guest's would. */
const HOST = { 'tsm/connect': 'tsm0\n', 'tsm/bound': 'tsm0\n', 'tsm/dsm': '0000:00:01.0\n', authenticated: 'tsm0\n' };
const GUEST = { 'tsm/lock': 'tsm1\n', 'tsm/accept': '1\n' };

test('a host’s function is connected and bound, a guest’s locked and accepted', async () => {
  assert.deepEqual(await stateOf(HOST), {
    state: { connected: 'tsm0', bound: 'tsm0', authenticated: 'tsm0', dsm: 'pci:0000:00:01.0' },
    faults: [],
  });
  assert.deepEqual((await stateOf(GUEST)).state, { locked: 'tsm1', accepted: true });
  const idle = { 'tsm/connect': '\n', 'tsm/bound': '\n', 'tsm/lock': '\n', 'tsm/accept': '0\n', authenticated: '\n' };
  assert.deepEqual((await stateOf(idle)).state, {
    ...{ connected: null, bound: null, locked: null },
    ...{ accepted: false, authenticated: null },
  });
  assert.equal((await stateOf({})).state, undefined);
});

test('a kernel that authenticates by itself says 1 or 0, without a TSM', async () => {
  for (const value of ['0', '1'])
    assert.deepEqual((await stateOf({ authenticated: `${value}\n` }, false)).state, { authenticated: value });
  // Beside a TSM too: then it is not the name of one.
  assert.deepEqual((await stateOf({ ...HOST, authenticated: '1\n' })).faults, []);
});

test('values that the kernel does not write are faults, and nothing is made of them', async () => {
  for (const value of [
    'tsm',
    'tsm-1',
    'tsm0 tsm1',
    '../tsm0',
    'tsm0\ntsm1',
    '\x1b[2J',
    'TSM0',
    'tsm1234567890',
    '\0',
  ]) {
    const { state, faults } = await stateOf({ 'tsm/lock': value, 'tsm/accept': '0\n' });
    assert.deepEqual(state, { accepted: false }, JSON.stringify(value));
    assert.ok(faults.every(([attribute, code]) => attribute === 'tsm/lock' && code === 'attribute-malformed'));
  }
  for (const value of ['2', 'yes', '', '1 1'])
    assert.equal((await stateOf({ ...GUEST, 'tsm/accept': value })).state?.accepted, undefined, value);
  assert.equal((await stateOf({ ...HOST, 'tsm/dsm': '../../etc' })).state?.dsm, undefined);
  assert.deepEqual((await stateOf({ ...GUEST, 'tsm/lock': { fails: 'file-denied' } })).state, { accepted: true });
});

test('two values that cannot both be true are both not believed', async () => {
  for (const wrong of [
    { 'tsm/lock': '\n', 'tsm/accept': '1\n' },
    { ...HOST, 'tsm/bound': 'tsm1\n' },
    { ...HOST, 'tsm/connect': '\n', authenticated: '\n' },
    { ...HOST, authenticated: 'tsm1\n' },
    { ...HOST, 'tsm/bound': '\n', authenticated: '\n' },
  ]) {
    const { state, faults } = await stateOf(wrong);
    assert.deepEqual(state, {}, JSON.stringify(wrong));
    assert.deepEqual(faults, [['tsm', 'attribute-contradiction']]);
  }
});

test('what changes between two reads is read again', async () => {
  const files = fakeFiles({ [`${FUNCTION}/tsm/lock`]: '\n', [`${FUNCTION}/tsm/accept`]: '1\n' });
  const read = files.read;
  let reads = 0;
  const changing = {
    ...files,
    read: async (path: string, limit?: number) => {
      const bytes = await read(path, limit);
      reads++;
      // It was locked and accepted right after the first look at `lock`.
      files.tree.set(`${FUNCTION}/tsm/lock`, 'tsm0\n');
      return bytes;
    },
  };
  const reader = deviceReader(changing, FUNCTION, { hung: 0 });
  assert.deepEqual(await readTsmState(reader, true), { locked: 'tsm0', accepted: true });
  assert.deepEqual(reader.faults, []);
  assert.ok(reads > 3);
});

test('links out of the tree bring no state', async () => {
  const files = fakeFiles({
    '/etc/passwd': 'root:x:0:0::/root:/bin/sh\n',
    '/etc/lock': 'root:x:0:0::/root:/bin/sh\n',
    [`${FUNCTION}/tsm`]: { link: '/etc' },
    [`${FUNCTION}/authenticated`]: { link: '/etc/passwd' },
  });
  const reader = deviceReader(files, FUNCTION, { hung: 0 });
  assert.deepEqual((await readTsmState(reader, true)) ?? {}, {});
  assert.ok(reader.faults.every(({ code }) => code === 'attribute-malformed'));
});

test('the machine’s TSMs are those with a TSM’s name, and say what they do where the kernel tells', async () => {
  const files = fakeFiles({
    '/sys/class/tsm/tsm0/uevent': '',
    '/sys/class/tsm/tsm0/pci_mode': 'link\n',
    '/sys/class/tsm/tsm1/pci_mode': 'devsec\n',
    '/sys/class/tsm/tsm2/pci_mode': 'anything\n',
    '/sys/class/tsm/..%2f/uevent': '',
    '/sys/class/tsm/tsm/uevent': '',
  });
  assert.deepEqual(await readTsmDevices(files), [
    { name: 'tsm0', mode: 'link' },
    { name: 'tsm1', mode: 'devsec' },
    { name: 'tsm2' },
  ]);
  assert.deepEqual(await readTsmDevices(fakeFiles()), []);
});

test('any text gives a state or a fault, and no name that is none', async () => {
  await fc.assert(
    fc.asyncProperty(fc.string(), fc.string(), fc.string(), async (connect, lock, authenticated) => {
      const { state } = await stateOf({ 'tsm/connect': connect, 'tsm/lock': lock, authenticated });
      const names: readonly (keyof NonNullable<Device['tsm']>)[] = ['connected', 'locked'];
      for (const name of names) {
        const value = state?.[name];
        assert.ok(value === undefined || value === null || isTsmName(String(value)));
      }
      return ok(undefined).ok;
    }),
    { numRuns: 300 },
  );
});
