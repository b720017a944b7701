import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fakeFiles } from '@airlock/linux/fake-files.ts';
import { packDocuments } from '@airlock/policy/document.ts';
import { parseSources } from '@airlock/policy/node-source.ts';
import { judgeByFallback, readGatePolicy } from '../src/agent/agent-policy.ts';
import { readStanding } from '../src/agent/standing.ts';
import { STATE } from '../src/agent/state.ts';
import { fakeMachine, NIC, NVME, ROOT_DISK } from './agent-fake-machine.ts';
import { levelOf, POLICY, startAgent } from './agent-harness.ts';

const packed = (text: string) => packDocuments(parseSources([{ file: 'policy.yaml', text }]).documents);

test('without a gate there is no policy', async () => {
  const chosen = await readGatePolicy(fakeFiles());
  assert.equal(chosen.ok ? 'found' : chosen.error.code, 'agent-without-policy');
});

test("the gate's policy counts in the mode that the gate ran in", async () => {
  const files = fakeFiles({ [STATE.policy]: packed(POLICY) });
  const own = await readGatePolicy(files);
  assert.ok(own.ok);
  assert.equal(own.value.mode, 'enforce');
  assert.equal(own.value.policy?.rules.length, 4);
  files.tree.set(STATE.gate, '{"version":1,"mode":"audit"}');
  const given = await readGatePolicy(files);
  assert.ok(given.ok);
  assert.equal(given.value.mode, 'audit');
});

const unusable: Record<string, string | Uint8Array> = {
  'the mark of a gate without a usable policy': '{"version":1,"documents":[]}',
  'no JSON': '{',
  'no UTF-8': new Uint8Array([0xff, 0xfe]),
  'another shape': '{"version":1,"documents":[{"kind":"scalar"}]}',
  'a rule that is none': packed(POLICY.replace('level: limited', 'levle: limited')),
};
for (const [name, content] of Object.entries(unusable)) {
  test(`${name}: the built-in fallback counts, and why is said`, async () => {
    const chosen = await readGatePolicy(fakeFiles({ [STATE.policy]: content }));
    assert.ok(chosen.ok);
    assert.equal(chosen.value.policy, null);
    assert.equal(chosen.value.mode, 'enforce');
    assert.ok(chosen.value.problems.length > 0);
  });
}

test('under the fallback only disks that were there at boot are let in, no grant raises anything, blocks hold', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  machine.files.tree.set('/run/airlock/boot-devices.json', '["pci:0000:00:02.0","pci:0000:00:03.0"]');
  const { agent, settle, act } = await startAgent(machine, { judge: judgeByFallback('no policy') });
  t.after(() => agent.close('test'));
  machine.plug(NVME);
  const status = await settle();
  assert.match(levelOf(status, 'pci:0000:00:02.0'), /^limited/);
  assert.equal(levelOf(status, 'pci:0000:00:03.0'), 'disconnected enforced');
  assert.equal(levelOf(status, 'pci:0000:00:08.0'), 'disconnected enforced', 'a disk, but plugged in later');
  const allowed = await act({ verb: 'allow', device: '00:03.0', term: { kind: 'once' } });
  assert.equal(allowed.ok ? 'allowed' : allowed.error.code, 'grant-exceeds-policy');
  const blocked = await act({ verb: 'block', device: '00:02.0', permanent: false });
  assert.ok(blocked.ok);
  assert.equal(machine.driverOf(ROOT_DISK.slot), null);
});

test('how it stands without an agent is read back, not remembered', async () => {
  const machine = fakeMachine([ROOT_DISK, NIC, NVME]);
  machine.files.tree.set(STATE.policy, packed(POLICY));
  machine.files.tree.set(STATE.gate, '{"version":1,"mode":"enforce"}');
  const { agent } = await startAgent(machine);
  await agent.close('test');
  const writes = machine.files.writes.length;
  machine.bind(NVME.slot);
  const standing = await readStanding(machine.files);
  assert.ok(standing.ok);
  assert.equal(standing.value.from, 'gate');
  assert.equal(standing.value.enforcing, false);
  assert.equal(levelOf(standing.value, 'pci:0000:00:08.0'), 'disconnected failed');
  assert.match(levelOf(standing.value, 'pci:0000:00:03.0'), /^limited/);
  assert.deepEqual(machine.files.writes.slice(writes), []);
});

test('where nobody ever enforced anything, that is the answer', async () => {
  const standing = await readStanding(fakeMachine([ROOT_DISK]).files);
  assert.ok(standing.ok);
  assert.equal(standing.value.from, 'none');
  assert.deepEqual(standing.value.devices, []);
});
