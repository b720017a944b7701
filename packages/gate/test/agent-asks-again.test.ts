import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Claim } from '@airlock/core/claim.ts';
import type { Device } from '@airlock/core/device.ts';
import { compilePolicy } from '@airlock/policy/compile.ts';
import type { Attest, Attestation } from '../src/agent/attester.ts';
import type { Asked } from '../src/agent/proofs.ts';
import { givesLess, wantsProof } from '../src/agent/wants-proof.ts';
import { type FakeMachine, fakeMachine, NVME, ROOT_DISK } from './agent-fake-machine.ts';
import { levelOf, policyOf, startAgent } from './agent-harness.ts';

const ID = 'pci:0000:00:08.0';
const FOLDER = '/sys/devices/pci0000:00/0000:00:08.0';
const PROOFS = '/run/airlock/proofs.json';
const POLICY = `version: 1
mode: enforce
default: disconnected
rules:
  - id: root-disk
    match: { bus: virtio, type: block }
    level: limited
  - id: drive
    match: { bus: pci, class: nvme }
    require: { identity: attested, roots: [maker.pem, other.pem], measurements: [v1.yaml, v2.yaml], spdm: ">=1.2" }
    level: limited
    otherwise: { level: disconnected }
`;
const GOOD = { roots: ['maker.pem'], measurements: ['v1.yaml'], spdm: '1.3' };

const proof = ({ id }: Device, more: Partial<Claim> = {}): Asked => ({
  way: 'answered',
  claim: { device: id, tier: 'attested', because: 'vouched for', ...GOOD, ...more },
});
const unproven = ({ id }: Device, way: Asked['way'], because: string): Asked => ({
  way,
  claim: { device: id, tier: 'claimed', because },
});
const never = () => new Promise<Asked>(() => undefined);
/** Until it is told that the time is over. */
const hang: Attest = async (device, signal) => {
  await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()));
  return unproven(device, 'silent', 'no answer');
};
const pause = (milliseconds: number) => new Promise((go) => setTimeout(go, milliseconds));

interface More extends Partial<Attestation> {
  readonly on?: string;
  readonly machine?: FakeMachine;
}

async function started(attest: Attest, { on = '', machine = fakeMachine([ROOT_DISK, NVME]), ...more }: More = {}) {
  const text = `${POLICY}${on}`;
  const policy = compilePolicy(policyOf(text));
  const harness = await startAgent(machine, {
    policy: text,
    attestation: {
      attest,
      wants: (device) => wantsProof(policy, device),
      givesLess: (device, before, after) => givesLess(policy, device, before, after),
      ...more,
    },
  });
  const violations = () => harness.of('violation').map(({ violation, detail }) => `${violation}: ${detail}`);
  /** Until it was asked so often, and what was found out is done. */
  const asked = async (times: number) => {
    while (harness.of('attested').filter(({ device }) => device === ID).length < times) await pause(5);
    return harness.settle();
  };
  return { ...harness, machine, violations, asked };
}

/** Answers in turn; the last one for ever. */
function inTurn(...answers: readonly ((device: Device) => Asked | Promise<Asked>)[]): Attest {
  let at = 0;
  return async (device) => {
    const answer = answers[Math.min(at++, answers.length - 1)];
    return answer === undefined ? never() : answer(device);
  };
}

test('a device that fails is taken down, and why is a violation; one that proves itself again is let in again', async (t) => {
  const attest = inTurn(proof, (device) => unproven(device, 'answered', 'measurement 2 differs'), proof);
  const { machine, agent, asked, violations } = await started(attest, { every: 40 });
  t.after(() => agent.close('test'));
  assert.equal(levelOf(await asked(1), ID), 'limited enforced');
  assert.equal(levelOf(await asked(2), ID), 'disconnected enforced');
  assert.equal(machine.driverOf(NVME.slot), null);
  assert.deepEqual(violations(), ['attestation-failure: it does not prove any more who it is: measurement 2 differs']);
  assert.equal(levelOf(await asked(3), ID), 'limited enforced');
  assert.equal(violations().length, 1);
});

test('one that is mute once stays in use and is asked once more soon; mute twice it is down, as a device that does not answer', async (t) => {
  const mute = (device: Device) => unproven(device, 'silent', 'no answer');
  const attest = inTurn(proof, mute, proof, mute, mute);
  const { machine, agent, asked, violations, of } = await started(attest, { every: 60, retry: 10 });
  t.after(() => agent.close('test'));
  await asked(2);
  assert.equal(machine.driverOf(NVME.slot), 'nvme');
  assert.match(of('attested').at(-1)?.because ?? '', /once more/);
  await asked(4);
  assert.equal(machine.driverOf(NVME.slot), 'nvme');
  assert.deepEqual(violations(), []);
  await asked(5);
  assert.equal(machine.driverOf(NVME.slot), null);
  assert.deepEqual(violations(), ['device-timeout: it does not say any more who it is: no answer']);
});

test('one that was too late the first time is asked once more, though nobody asks again and again', async (t) => {
  const attest = inTurn((device) => unproven(device, 'silent', 'no answer'), proof);
  const { machine, agent, of, settle } = await started(attest, { retry: 10 });
  t.after(() => agent.close('test'));
  await agent.asked();
  await settle();
  assert.equal(machine.driverOf(NVME.slot), 'nvme');
  assert.equal(of('attested').length, 2);
});

test('where this machine cannot ask any more the proof ends, and nobody is to blame', async (t) => {
  const attest = inTurn(proof, (device) => unproven(device, 'unasked', 'locked down'));
  const { machine, agent, asked, violations } = await started(attest, { every: 20, retry: 5 });
  t.after(() => agent.close('test'));
  await asked(3);
  assert.equal(machine.driverOf(NVME.slot), null);
  assert.deepEqual(violations(), []);
});

const changes: readonly [string, Partial<Claim>, RegExp | null][] = [
  ['firmware that the policy knows as well', { measurements: ['v2.yaml'] }, null],
  ['another root that the policy knows as well', { roots: ['other.pem'] }, null],
  ['firmware that nobody knows', { measurements: [] }, /not as in v1\.yaml now/],
  ['a root that is not the policy’s', { roots: ['third.pem'] }, /maker\.pem does not vouch for it now/],
  ['an older SPDM that is good enough', { spdm: '1.2' }, null],
  ['an older SPDM that is not', { spdm: '1.1' }, /it spoke SPDM 1\.3, speaks 1\.1 now/],
];
for (const [name, more, words] of changes) {
  test(`still attested, with ${name}`, async (t) => {
    const attest = inTurn(proof, (device) => proof(device, more));
    const { machine, agent, asked, violations } = await started(attest, { every: 20 });
    t.after(() => agent.close('test'));
    await asked(2);
    assert.equal(machine.driverOf(NVME.slot), words === null ? 'nvme' : null);
    assert.equal(violations().length, words === null ? 0 : 1);
    if (words !== null) assert.match(violations()[0] ?? '', words);
  });
}

test('in quarantine it stays out and is not asked; once an operator revokes that it is asked anew', async (t) => {
  let honest = true;
  let times = 0;
  const { machine, agent, asked, settle, act, of } = await started(
    async (device) => {
      times++;
      return honest ? proof(device) : unproven(device, 'answered', 'wrong');
    },
    { every: 20, on: 'on: { attestation-failure: [log, quarantine] }\n' },
  );
  t.after(() => agent.close('test'));
  await asked(1);
  honest = false;
  while (of('response').length === 0) await pause(5);
  honest = true;
  await settle();
  assert.deepEqual(
    of('response').map(({ violation, action, outcome }) => `${violation} ${action} ${outcome.status}`),
    ['attestation-failure quarantine enforced'],
  );
  const before = times;
  await pause(100);
  await settle();
  assert.equal(machine.driverOf(NVME.slot), null);
  assert.ok(times <= before + 1, `${times - before} times`);
  assert.ok((await act({ verb: 'revoke', device: ID })).ok);
  await settle();
  await agent.asked();
  await settle();
  assert.equal(machine.driverOf(NVME.slot), 'nvme');
});

test('a reset ends what was proven before it: it is bound again only after it answered anew', async (t) => {
  const seen: (string | null)[] = [];
  const machine = fakeMachine([ROOT_DISK, NVME]);
  let times = 0;
  const { agent, asked, of } = await started(
    async (device) => {
      seen.push(machine.driverOf(NVME.slot));
      return ++times === 2 ? unproven(device, 'answered', 'wrong') : proof(device);
    },
    { machine, every: 60, on: 'on: { attestation-failure: [reset] }\n' },
  );
  t.after(() => agent.close('test'));
  await asked(3);
  assert.deepEqual(
    of('response').map(({ action, outcome }) => `${action} ${outcome.status}`),
    ['reset enforced'],
  );
  assert.deepEqual(seen.slice(0, 3), [null, 'nvme', null]);
  assert.equal(machine.driverOf(NVME.slot), 'nvme');
});

test('one whose ids change in place has proven nothing as what it is now', async (t) => {
  const attest = inTurn(proof, (device) => unproven(device, 'answered', 'another name'));
  const { machine, agent, asked, settle } = await started(attest);
  t.after(() => agent.close('test'));
  await asked(1);
  assert.equal(machine.driverOf(NVME.slot), 'nvme');
  machine.files.tree.set(`${FOLDER}/revision`, '0x07\n');
  await settle();
  assert.equal(machine.driverOf(NVME.slot), null);
  await asked(2);
  assert.equal(machine.driverOf(NVME.slot), null);
});

test('one that takes its place just before it is bound is taken off again, and has to prove itself', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NVME]);
  const write = machine.files.write.bind(machine.files);
  let swapped = 0;
  const files: { write: typeof write } = machine.files;
  files.write = async (path, data, offset) => {
    if (path.endsWith('/nvme/bind') && swapped === 0) {
      swapped = 1;
      machine.unplug(NVME.slot);
      machine.plug(NVME);
    }
    return write(path, data, offset);
  };
  const attest = inTurn(proof, (device) => unproven(device, 'answered', 'a stranger'));
  const { agent, asked } = await started(attest, { machine });
  t.after(() => agent.close('test'));
  const status = await asked(2);
  assert.equal(swapped, 1);
  assert.equal(machine.driverOf(NVME.slot), null);
  assert.equal(levelOf(status, ID), 'disconnected enforced');
});

test('so has one whose configuration space says something else than the kernel remembers', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NVME]);
  const text = POLICY;
  const policy = compilePolicy(policyOf(text));
  let times = 0;
  const { agent, of, settle } = await startAgent(machine, {
    policy: text,
    poll: 10,
    attestation: {
      attest: async (device) => (++times === 1 ? proof(device) : unproven(device, 'answered', 'another name')),
      wants: (device) => wantsProof(policy, device),
      givesLess: () => true,
    },
  });
  t.after(() => agent.close('test'));
  await agent.asked();
  await settle();
  await pause(50);
  const config = Uint8Array.from(machine.files.tree.get(`${FOLDER}/config`) as Uint8Array);
  config[2] = 0x77;
  machine.files.tree.set(`${FOLDER}/config`, config);
  while (!of('violation').some(({ violation }) => violation === 'identity-change')) await pause(5);
  await settle();
  await agent.asked();
  await settle();
  assert.equal(times, 2);
  assert.equal(machine.driverOf(NVME.slot), null);
});

test('an event that says it left, of a device that did not, costs it nothing', async (t) => {
  const { machine, agent, asked, settle, of } = await started(async (device) => proof(device));
  t.after(() => agent.close('test'));
  await asked(1);
  machine.uevents.sendUevent('remove', FOLDER.slice('/sys'.length), 'pci');
  await settle();
  assert.equal(machine.driverOf(NVME.slot), 'nvme');
  assert.equal(of('attested').length, 1);
});

test('a host that plugs devices in all the time keeps nobody from being asked again', async (t) => {
  let mine = 0;
  const { machine, agent, settle } = await started(
    async (device) => {
      if (device.id === ID) mine++;
      return device.id === ID ? proof(device) : unproven(device, 'answered', 'nobody');
    },
    { every: 200 },
  );
  t.after(() => agent.close('test'));
  await agent.asked();
  const end = performance.now() + 1000;
  for (let i = 0; performance.now() < end; i++) {
    machine.plug({ ...NVME, slot: `0000:00:1${i % 2}.0` });
    await settle();
    machine.unplug(`0000:00:1${i % 2}.0`);
    await settle();
    await pause(2);
  }
  assert.ok(mine >= 3, `${mine} times`);
});

test('sixty mute ones do not keep the one in use from being asked again, nor a new one for longer than those before it take', async (t) => {
  let mine = 0;
  let hostile = 0;
  const machine = fakeMachine([ROOT_DISK, NVME]);
  const { agent, settle, of } = await started(
    async (device, signal) => {
      if (device.id === ID) {
        mine++;
        return proof(device);
      }
      hostile++;
      return hang(device, signal);
    },
    { machine, every: 50, limit: 100 },
  );
  t.after(() => agent.close('test'));
  await agent.asked();
  for (let i = 0; i < 60; i++) {
    machine.plug({ ...NVME, slot: `00${(i + 16).toString(16)}:00:00.0` });
  }
  await settle();
  const before = mine;
  while (hostile < 12) await pause(5);
  assert.ok(mine >= before + 3, `${mine - before} times`);
  assert.equal(machine.driverOf(NVME.slot), 'nvme');
  assert.deepEqual(of('violation'), []);
});

test('nobody is asked twice at once, and the next asking begins after the one before was left', async (t) => {
  let under = 0;
  let most = 0;
  let left = 0;
  const { agent, asked } = await started(
    async (device, signal) => {
      most = Math.max(most, ++under);
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()));
      // An exchange that was told to end takes a while to.
      await pause(15);
      under--;
      left++;
      return unproven(device, 'silent', 'no answer');
    },
    { every: 10, limit: 20 },
  );
  t.after(() => agent.close('test'));
  await asked(4);
  assert.equal(most, 1);
  assert.ok(left >= 4);
});

test('a proof that nobody can renew ends in time, though the one who asks hangs', async (t) => {
  const attest = inTurn(proof, never);
  const { machine, agent, of, settle } = await started(attest, { every: 20, limit: 20, retry: 10 });
  t.after(() => agent.close('test'));
  await agent.asked();
  await settle();
  assert.equal(machine.driverOf(NVME.slot), 'nvme');
  while (!of('attested').some(({ because }) => /too old/.test(because))) await pause(50);
  await settle();
  assert.equal(machine.driverOf(NVME.slot), null);
});

test('who ends leaves devices alone first', async () => {
  let ended = false;
  const { agent } = await started(async (device, signal) => {
    await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()));
    await pause(30);
    ended = true;
    return unproven(device, 'silent', 'left');
  });
  await pause(10);
  await agent.close('test');
  assert.ok(ended);
});

/** An agent that was shown a proof, and is gone; the machine as it left it. */
async function shown(): Promise<FakeMachine> {
  const machine = fakeMachine([ROOT_DISK, NVME]);
  const { agent, asked } = await started(async (device) => proof(device), { machine });
  await asked(1);
  assert.equal(machine.driverOf(NVME.slot), 'nvme');
  await agent.close('test');
  return machine;
}

test('a new agent leaves in use what was in use while it asks anew, and asks at once', async (t) => {
  const machine = await shown();
  let answer: (asked: Asked) => void = () => undefined;
  const asking: (string | null)[] = [];
  const { agent, asked, settle, violations } = await started(
    (device) => {
      asking.push(machine.driverOf(NVME.slot));
      return new Promise((resolve) => {
        answer = resolve;
        void device;
      });
    },
    { machine },
  );
  t.after(() => agent.close('test'));
  assert.deepEqual(asking, ['nvme']);
  assert.equal(levelOf(await settle(), ID), 'limited enforced');
  assert.equal(machine.files.writes.filter(({ path }) => path.endsWith('/unbind')).length, 0);
  answer({ way: 'answered', claim: { device: ID, tier: 'attested', because: 'again', ...GOOD } });
  assert.equal(levelOf(await asked(1), ID), 'limited enforced');
  assert.deepEqual(violations(), []);
});

test('and takes it down when it fails, as one that had proven who it is', async (t) => {
  const machine = await shown();
  const { agent, asked, violations } = await started(async (device) => unproven(device, 'answered', 'wrong root'), {
    machine,
  });
  t.after(() => agent.close('test'));
  await asked(1);
  assert.equal(machine.driverOf(NVME.slot), null);
  assert.deepEqual(violations(), ['attestation-failure: it does not prove any more who it is: wrong root']);
});

const notInherited: readonly [string, (machine: FakeMachine) => void][] = [
  [
    'what was replaced meanwhile',
    (machine) => {
      machine.unplug(NVME.slot);
      machine.plug(NVME);
      machine.bind(NVME.slot);
    },
  ],
  ['what is of another boot', (machine) => machine.reboot()],
  ['a file that is broken', (machine) => void machine.files.tree.set(PROOFS, '{"version":1')],
  ['no file', (machine) => void machine.files.tree.delete(PROOFS)],
  ['what is not bound any more', (machine) => void machine.files.tree.delete(`${FOLDER}/driver`)],
];
for (const [name, change] of notInherited) {
  test(`no word of the agent before counts for ${name}`, async (t) => {
    const machine = await shown();
    change(machine);
    const { agent, settle } = await started(hang, { machine });
    t.after(() => agent.close('test'));
    await settle();
    assert.equal(machine.driverOf(NVME.slot), null);
  });
}

test('what the agent before said is not passed on by one that was shown nothing', async (t) => {
  const machine = await shown();
  const second = await started(hang, { machine });
  assert.equal(machine.driverOf(NVME.slot), 'nvme');
  await second.agent.close('test');
  const third = await started(hang, { machine });
  t.after(() => third.agent.close('test'));
  await third.settle();
  assert.equal(machine.driverOf(NVME.slot), null);
});

test('nor does it count under a policy that asks for more', async (t) => {
  const machine = await shown();
  const on = POLICY.replace('v1.yaml, v2.yaml', 'v3.yaml');
  const policy = compilePolicy(policyOf(on));
  const { agent, settle } = await startAgent(machine, {
    policy: on,
    attestation: { attest: hang, wants: (device) => wantsProof(policy, device), givesLess: () => true },
  });
  t.after(() => agent.close('test'));
  await settle();
  assert.equal(machine.driverOf(NVME.slot), null);
});
