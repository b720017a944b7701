import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  endByDeparture,
  endByTime,
  GRANTS_LIMIT,
  type GrantRecord,
  readGrants,
  writeGrants,
} from '../src/agent/grants.ts';
import { STATE } from '../src/agent/state.ts';
import { BALLOON, BOOT_ID, fakeMachine, NIC, NVME, ROOT_DISK } from './agent-fake-machine.ts';
import { levelOf, POLICY, startAgent } from './agent-harness.ts';

const ID = 'pci:0000:00:04.0';

test('a timed grant binds the device, ends by time since boot, and unbinds it', async (t) => {
  const machine = fakeMachine([ROOT_DISK, BALLOON]);
  const { agent, act, settle, of } = await startAgent(machine);
  t.after(() => agent.close('test'));
  const answer = await act({ verb: 'allow', device: ID, term: { kind: 'timed', lasts: 600_000 } });
  assert.ok(answer.ok, JSON.stringify(answer));
  assert.equal(answer.value.result, 'allowed');
  assert.equal(answer.value.decision?.reason, 'operator-granted');
  assert.equal(machine.driverOf(BALLOON.slot), 'virtio_balloon');
  machine.setUptime(699.99);
  const before = await settle();
  assert.equal(machine.driverOf(BALLOON.slot), 'virtio_balloon');
  assert.equal(before.grants[0]?.remaining, 10);
  machine.setUptime(700);
  await settle();
  assert.equal(machine.driverOf(BALLOON.slot), null);
  assert.deepEqual(
    of('operator').map(({ verb, until, result }) => [verb, until, result]),
    [
      ['allow', 'for 10m', 'allowed'],
      ['grant-ended', null, 'timed: its time is over'],
    ],
  );
  assert.deepEqual(of('violation'), [], "the end of a grant is nobody's violation");
});

test('a clock that cannot be read ends timed grants and lets none begin', async (t) => {
  const machine = fakeMachine([ROOT_DISK, BALLOON]);
  const { agent, act, settle } = await startAgent(machine);
  t.after(() => agent.close('test'));
  await act({ verb: 'allow', device: ID, term: { kind: 'timed', lasts: 600_000 } });
  machine.files.tree.set('/proc/uptime', 'soon\n');
  const status = await settle();
  assert.equal(machine.driverOf(BALLOON.slot), null);
  assert.deepEqual(
    status.problems.map(({ code }) => code),
    ['clock-unreadable'],
  );
  const again = await act({ verb: 'allow', device: ID, term: { kind: 'timed', lasts: 1000 } });
  assert.equal(again.ok ? 'allowed' : again.error.code, 'clock-unreadable');
});

test('a restart keeps timed and once grants and blocks; another boot drops them', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC, BALLOON]);
  const first = await startAgent(machine);
  await first.act({ verb: 'allow', device: ID, term: { kind: 'timed', lasts: 600_000 } });
  await first.act({ verb: 'block', device: 'pci:0000:00:03.0', permanent: false });
  await first.agent.close('test');
  machine.setUptime(400);
  const second = await startAgent(machine);
  const kept = await second.settle();
  assert.equal(machine.driverOf(BALLOON.slot), 'virtio_balloon');
  assert.equal(machine.driverOf(NIC.slot), null);
  assert.deepEqual(
    kept.grants.map(({ kind, remaining }) => [kind, remaining]),
    [
      ['timed', 300_000],
      ['block', null],
    ],
  );
  await second.agent.close('test');
  machine.reboot();
  const third = await startAgent(machine);
  t.after(() => third.agent.close('test'));
  const dropped = await third.settle();
  assert.deepEqual(dropped.grants, []);
  assert.equal(machine.driverOf(BALLOON.slot), null);
  assert.equal(machine.driverOf(NIC.slot), 'virtio_net');
});

test('a once ends when its device goes away, also while no agent runs', async (t) => {
  const machine = fakeMachine([ROOT_DISK, BALLOON]);
  const first = await startAgent(machine);
  await first.act({ verb: 'allow', device: ID, term: { kind: 'once' } });
  machine.unplug(BALLOON.slot);
  machine.plug(BALLOON);
  // Gone and back between two looks: only the event told.
  await first.settle();
  assert.equal(machine.driverOf(BALLOON.slot), null);
  await first.act({ verb: 'allow', device: ID, term: { kind: 'once' } });
  assert.equal(machine.driverOf(BALLOON.slot), 'virtio_balloon');
  await first.agent.close('test');
  machine.unplug(BALLOON.slot);
  machine.plug(BALLOON);
  const second = await startAgent(machine);
  t.after(() => second.agent.close('test'));
  assert.equal(machine.driverOf(BALLOON.slot), null);
  assert.match(second.of('operator')[0]?.result ?? '', /went away/);
});

test('a timed grant waits for its device, and another one in its place does not inherit it', async (t) => {
  const machine = fakeMachine([ROOT_DISK, BALLOON]);
  const { agent, act, settle } = await startAgent(machine);
  t.after(() => agent.close('test'));
  await act({ verb: 'allow', device: ID, term: { kind: 'timed', lasts: 600_000 } });
  machine.unplug(BALLOON.slot);
  machine.plug({ ...BALLOON, revision: 2 });
  await settle();
  assert.equal(machine.driverOf(BALLOON.slot), null, 'another revision is another device');
  machine.unplug(BALLOON.slot);
  machine.plug(BALLOON);
  await settle();
  assert.equal(machine.driverOf(BALLOON.slot), 'virtio_balloon', 'the same device is back');
});

test('the serial number becomes part of the grant once it is seen', async (t) => {
  const policy = POLICY.replace('serial: root }', 'serial: root }').concat(`  - id: disks
    match: { bus: virtio, type: block }
    level: disconnected
    grant: limited
`);
  const disk = { ...ROOT_DISK, slot: '0000:00:09.0', serial: 'data' };
  const machine = fakeMachine([disk]);
  const { agent, act, settle, of } = await startAgent(machine, { policy });
  t.after(() => agent.close('test'));
  assert.equal(machine.driverOf(disk.slot), null, 'bound, looked at, refused');
  const answer = await act({ verb: 'allow', device: 'pci:0000:00:09.0', term: { kind: 'timed', lasts: 600_000 } });
  assert.ok(answer.ok, JSON.stringify(answer));
  assert.equal(answer.value.result, 'allowed', JSON.stringify(answer.value));
  assert.match(String(machine.files.tree.get(STATE.grants)), /"serial": "data"/);
  machine.unplug(disk.slot);
  machine.plug({ ...disk, serial: 'evil' });
  await settle();
  assert.equal(machine.driverOf(disk.slot), null, 'same ids, another serial number');
  assert.ok(of('operator').every(({ verb }) => verb !== 'grant-ended'));
});

const refusals: Record<string, { device: string; message: RegExp; hint: RegExp }> = {
  'a rule without grant': {
    device: 'pci:0000:00:08.0',
    message: /rule nvme \(policy\.yaml:\d+\) lets an operator raise .* to disconnected at most/,
    hint: /"grant: limited" in that rule/,
  },
  'no rule': { device: 'pci:0000:00:0a.0', message: /no rule matches/, hint: /default-grant/ },
};
for (const [name, { device, message, hint }] of Object.entries(refusals)) {
  test(`${name}: the grant is refused with the reason and what it would need`, async (t) => {
    const gpu = {
      ...BALLOON,
      slot: '0000:00:0a.0',
      device: 0x1050,
      virtio: { id: 16, driver: 'virtio_gpu', bits: [] },
    };
    const machine = fakeMachine([ROOT_DISK, NVME, gpu]);
    const { agent, act, of } = await startAgent(machine);
    t.after(() => agent.close('test'));
    const answer = await act({ verb: 'allow', device, term: { kind: 'permanent' } });
    assert.equal(answer.ok, false);
    if (!answer.ok) {
      assert.equal(answer.error.code, 'grant-exceeds-policy');
      assert.match(answer.error.message, message);
      assert.match(answer.error.hint ?? '', hint);
    }
    assert.match(of('operator').at(-1)?.result ?? '', /^refused/);
    assert.equal(machine.files.tree.has(STATE.permanentGrants), false);
  });
}

test('a grant does not lift what a feature forbids', async (t) => {
  const policy = POLICY.replace(
    'level: disconnected\n    grant: limited',
    'level: disconnected\n    grant: limited\n    features: { forbid: [RING_PACKED] }',
  );
  const packed = { ...BALLOON, virtio: { id: 5, driver: 'virtio_balloon', bits: [32, 33, 34] } };
  const machine = fakeMachine([ROOT_DISK, packed]);
  const { agent, act } = await startAgent(machine, { policy });
  t.after(() => agent.close('test'));
  const answer = await act({ verb: 'allow', device: ID, term: { kind: 'once' } });
  assert.ok(answer.ok);
  assert.equal(answer.value.result, 'not-enforced');
  assert.equal(machine.driverOf(BALLOON.slot), null);
});

test('a permanent grant outlives the boot, and is refused where it cannot be written down', async (t) => {
  const machine = fakeMachine([ROOT_DISK, BALLOON]);
  const first = await startAgent(machine);
  const save = machine.files.save;
  Object.assign(machine.files, {
    save: async (path: string, data: string, mode?: number) =>
      path.startsWith('/var/')
        ? { ok: false, error: { code: 'file-io', message: `${path}: EROFS` } }
        : save(path, data, mode),
  });
  const refused = await first.act({ verb: 'allow', device: ID, term: { kind: 'permanent' } });
  assert.equal(refused.ok ? 'made' : refused.error.code, 'grant-not-kept');
  assert.equal(machine.driverOf(BALLOON.slot), null);
  Object.assign(machine.files, { save });
  const made = await first.act({ verb: 'allow', device: ID, term: { kind: 'permanent' } });
  assert.ok(made.ok);
  await first.agent.close('test');
  machine.reboot();
  const second = await startAgent(machine);
  t.after(() => second.agent.close('test'));
  assert.equal(machine.driverOf(BALLOON.slot), 'virtio_balloon');
});

test('block works on what a rule allows; allow lifts it again', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  const { agent, act, settle } = await startAgent(machine);
  t.after(() => agent.close('test'));
  const blocked = await act({ verb: 'block', device: '00:03.0', permanent: false });
  assert.ok(blocked.ok);
  assert.equal(blocked.value.result, 'blocked');
  assert.equal(machine.driverOf(NIC.slot), null);
  // Whatever comes into its place is blocked too.
  machine.unplug(NIC.slot);
  machine.plug({ ...NIC, revision: 7 });
  assert.equal(levelOf(await settle(), 'pci:0000:00:03.0'), 'disconnected enforced');
  const allowed = await act({ verb: 'allow', device: '00:03.0', term: { kind: 'once' } });
  assert.ok(allowed.ok);
  assert.equal(allowed.value.result, 'already-allowed');
  assert.match(allowed.value.notes.join(), /block is lifted/);
  assert.equal(machine.driverOf(NIC.slot), 'virtio_net');
});

test('a block that cannot be written down holds all the same, and says so', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  const { agent, act } = await startAgent(machine);
  t.after(() => agent.close('test'));
  Object.assign(machine.files, {
    save: async (path: string) => ({ ok: false, error: { code: 'file-io', message: `${path}: ENOSPC` } }),
  });
  const answer = await act({ verb: 'block', device: 'virtio1', permanent: true });
  assert.ok(answer.ok);
  assert.equal(answer.value.result, 'blocked');
  assert.match(answer.value.notes.join(), /will not survive a reboot: .*ENOSPC/);
  assert.equal(machine.driverOf(NIC.slot), null);
});

test('reject takes the function off its bus, and a rescan does not let it back in', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  const { agent, act, settle } = await startAgent(machine);
  t.after(() => agent.close('test'));
  const answer = await act({ verb: 'reject', device: 'pci:0000:00:03.0' });
  assert.ok(answer.ok, JSON.stringify(answer));
  assert.equal(answer.value.result, 'rejected');
  assert.equal(machine.files.tree.has('/sys/bus/pci/devices/0000:00:03.0'), false);
  machine.plug(NIC);
  assert.equal(levelOf(await settle(), 'pci:0000:00:03.0'), 'disconnected enforced');
});

test('nothing is done to another device than the one that was asked for', async (t) => {
  const machine = fakeMachine([ROOT_DISK, BALLOON]);
  const { agent, act } = await startAgent(machine);
  t.after(() => agent.close('test'));
  const identity = await agent.answer({ verb: 'identify', device: '00:04.0' });
  assert.ok(identity.ok);
  const { fingerprint: expect } = identity.value as { fingerprint: never };
  machine.unplug(BALLOON.slot);
  machine.plug({ ...BALLOON, revision: 9 });
  for (const request of [
    { verb: 'allow', device: ID, term: { kind: 'once' }, expect },
    { verb: 'block', device: ID, permanent: false, expect },
    { verb: 'reject', device: ID, expect },
  ] as const) {
    const answer = await act(request);
    assert.equal(answer.ok ? 'done' : answer.error.code, 'device-changed', request.verb);
    if (!answer.ok) assert.match(answer.error.message, /revision was 0x01, is 0x09/);
  }
  assert.ok(machine.files.tree.has('/sys/bus/pci/devices/0000:00:04.0'));
});

test('a device is named whole or not at all', async (t) => {
  const machine = fakeMachine([ROOT_DISK, BALLOON]);
  const { agent, act } = await startAgent(machine);
  t.after(() => agent.close('test'));
  for (const device of ['pci:0000:00:0', '4.0', '', 'virtio', '../..']) {
    const answer = await act({ verb: 'block', device, permanent: false });
    assert.equal(answer.ok ? answer.value.device : answer.error.code, 'device-unknown', device);
  }
});

test('revoke gives the policy its word back', async (t) => {
  const machine = fakeMachine([ROOT_DISK, BALLOON]);
  const { agent, act } = await startAgent(machine);
  t.after(() => agent.close('test'));
  await act({ verb: 'allow', device: ID, term: { kind: 'once' } });
  assert.equal(machine.driverOf(BALLOON.slot), 'virtio_balloon');
  const answer = await act({ verb: 'revoke', device: ID });
  assert.ok(answer.ok);
  assert.equal(answer.value.result, 'revoked');
  assert.equal(machine.driverOf(BALLOON.slot), null);
  const again = await act({ verb: 'revoke', device: ID });
  assert.equal(again.ok ? 'done' : again.error.code, 'grant-missing');
});

const grant: GrantRecord = {
  device: ID,
  fingerprint: { bus: 'virtio', location: '0000:00:04.0', vendor: 0x1af4 },
  level: 'limited',
  kind: 'timed',
  made: 5,
  until: 10,
};

test('grants are read back as they were written, for their own boot only', () => {
  const text = writeGrants([grant], 'this');
  assert.deepEqual(readGrants(text, 'this'), { ok: true, value: [grant] });
  assert.deepEqual(readGrants(text, 'that'), { ok: true, value: [] });
  assert.equal(readGrants(text, null).ok, false, 'a grant of one boot is not a permanent one');
});

const file = (change: object) => JSON.stringify({ version: 1, boot: 'b', grants: [{ ...grant, ...change }] });
const malformed: Record<string, string> = {
  'no JSON': '{',
  'a list': '[]',
  'another version': JSON.stringify({ version: 2, boot: 'b', grants: [] }),
  'an unknown key': JSON.stringify({ version: 1, boot: 'b', grants: [], more: 1 }),
  'no boot': JSON.stringify({ version: 1, grants: [] }),
  'an unknown key in a grant': file({ more: 1 }),
  'an unknown level': file({ level: 'root' }),
  'an unknown kind': file({ kind: 'forever' }),
  'no end for a timed one': file({ until: undefined }),
  'an end for a once': file({ kind: 'once' }),
  'a fraction for an end': file({ until: 1.5 }),
  'an endless number': file({ until: 1e300 }),
  'a device that is a path': file({ device: 'pci:../../etc' }),
  'a fingerprint of nothing': file({ fingerprint: {} }),
  'a fingerprint with an unknown field': file({ fingerprint: { bus: 'pci', location: 'x', colour: 'red' } }),
  'a block that raises': file({ kind: 'block', until: undefined }),
  'a grant that lowers': file({ level: 'disconnected' }),
  'a permanent one among those of this boot': file({ kind: 'permanent', until: undefined }),
  'two for one device': JSON.stringify({ version: 1, boot: 'b', grants: [grant, grant] }),
  'too many': JSON.stringify({ version: 1, boot: 'b', grants: Array(GRANTS_LIMIT + 1).fill(grant) }),
  'a prototype': '{"version":1,"boot":"b","grants":[],"__proto__":{}}',
};
for (const [name, text] of Object.entries(malformed)) {
  test(`a file of grants with ${name} does not count`, () => {
    const result = readGrants(text, 'b');
    assert.equal(result.ok ? JSON.stringify(result.value) : result.error.code, 'grant-malformed');
  });
}

test('arbitrary JSON is grants or an error', () => {
  fc.assert(
    fc.property(fc.json(), (text) => {
      readGrants(text, 'b');
      return true;
    }),
  );
});

test('a grants file that does not count is told, and the agent starts without', async (t) => {
  const machine = fakeMachine([ROOT_DISK, BALLOON]);
  machine.files.tree.set(STATE.grants, `{"version":1,"boot":"${BOOT_ID}","grants":[{}]}`);
  const { agent, of } = await startAgent(machine);
  t.after(() => agent.close('test'));
  assert.equal(of('policy-problem')[0]?.problem.code, 'grant-malformed');
  assert.equal(machine.driverOf(ROOT_DISK.slot), 'virtio_blk');
});

test('ends are told apart', () => {
  const once: GrantRecord = {
    device: 'pci:1',
    fingerprint: grant.fingerprint,
    level: 'limited',
    kind: 'once',
    made: 0,
    incarnation: 'a',
  };
  assert.deepEqual(endByTime([grant, once], 9).ended, []);
  assert.deepEqual(endByTime([grant, once], 10).ended, [grant]);
  assert.deepEqual(endByDeparture([grant, once], new Set(['pci:1', ID]), new Map()).ended, [once]);
  assert.deepEqual(endByDeparture([once], new Set(), new Map([['pci:1', 'a']])).ended, []);
  assert.deepEqual(endByDeparture([once], new Set(), new Map([['pci:1', 'b']])).ended, [once]);
});
