import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Claim } from '@airlock/core/claim.ts';
import type { Device } from '@airlock/core/device.ts';
import { compilePolicy } from '@airlock/policy/compile.ts';
import type { Attest } from '../src/agent/attester.ts';
import type { Asked } from '../src/agent/proofs.ts';
import { givesLess, wantsProof } from '../src/agent/wants-proof.ts';
import { type FakeMachine, fakeMachine, NIC, NVME, ROOT_DISK } from './agent-fake-machine.ts';
import { levelOf, policyOf, startAgent } from './agent-harness.ts';

const ID = 'pci:0000:00:08.0';
const SECOND = { ...NVME, slot: '0000:00:09.0' };
const POLICY = `version: 1
mode: enforce
default: disconnected
rules:
  - id: nic
    match: { bus: virtio, type: net }
    level: limited
  - id: drive
    match: { bus: pci, class: nvme }
    require: { identity: attested, roots: [maker.pem] }
    level: limited
    otherwise: { level: disconnected }
`;
const compiled = compilePolicy(policyOf(POLICY));
const wants = (device: Device) => wantsProof(compiled, device);
const less = (device: Device, before: Claim, after: Claim) => givesLess(compiled, device, before, after);
const answer = (claim: Claim): Asked => ({ way: 'answered', claim });
const proof = (device: Device, roots = ['maker.pem']): Asked =>
  answer({ device: device.id, tier: 'attested', because: 'maker.pem vouches for it', roots });
const refusal = (device: Device, because: string): Asked => answer({ device: device.id, tier: 'claimed', because });

async function started(
  attest: Attest,
  {
    machine = fakeMachine([ROOT_DISK, NIC, NVME]),
    ...more
  }: {
    limit?: number;
    retry?: number;
    machine?: FakeMachine;
  } = {},
) {
  const attestation = { attest, wants, givesLess: less, ...more };
  return { machine, ...(await startAgent(machine, { policy: POLICY, attestation })) };
}

test('a drive is bound only after it proved who it is, and only such are asked', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC, NVME]);
  const asked: (string | null)[] = [];
  const { agent, settle, of } = await started(
    async (device) => {
      asked.push(device.id, machine.driverOf(NVME.slot));
      return proof(device);
    },
    { machine },
  );
  t.after(() => agent.close('test'));
  await agent.asked();
  assert.equal(levelOf(await settle(), ID), 'limited enforced');
  assert.equal(machine.driverOf(NVME.slot), 'nvme');
  assert.deepEqual(asked, [ID, null]);
  assert.deepEqual(
    of('attested').map(({ device, tier }) => [device, tier]),
    [[ID, 'attested']],
  );
});

const lies: readonly [string, Attest][] = [
  ['another root', async (device) => proof(device, ['other.pem'])],
  ['no root', async (device) => answer({ device: device.id, tier: 'attested', because: 'nobody' })],
  ['a claim of another device', async (device) => answer({ ...proof(device).claim, device: 'pci:0000:00:03.0' })],
  ['a lower tier', async (device) => answer({ ...proof(device).claim, tier: 'claimed' })],
  ['a throw', async () => Promise.reject(new Error('the device left'))],
];
for (const [name, attest] of lies) {
  test(`a drive that proves too little stays where otherwise puts it: ${name}`, async (t) => {
    const { machine, agent, settle, of } = await started(attest, { retry: 10 });
    t.after(() => agent.close('test'));
    await agent.asked();
    assert.equal(levelOf(await settle(), ID), 'disconnected enforced');
    assert.equal(machine.driverOf(NVME.slot), null);
    assert.equal(of('attested').length, name === 'a throw' ? 2 : 1);
  });
}

test('one that never answers holds up nobody else', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC, NVME, SECOND]);
  const { agent, settle, of } = await started(
    (device) => (device.id === ID ? new Promise(() => undefined) : Promise.resolve(proof(device))),
    { machine, limit: 20, retry: 10 },
  );
  t.after(() => agent.close('test'));
  assert.equal(machine.driverOf(NIC.slot), 'virtio_net', 'turns do not wait for it');
  await agent.asked();
  await settle();
  assert.equal(machine.driverOf(NVME.slot), null);
  assert.equal(machine.driverOf(SECOND.slot), 'nvme');
  const told = of('attested').find(({ device }) => device === ID);
  assert.equal(told?.way, 'silent');
  assert.match(told?.because ?? '', /no whole answer within/);
});

test('what takes the place of a proven drive has proven nothing', async (t) => {
  let honest = true;
  const { machine, agent, settle } = await started(async (device) =>
    honest ? proof(device) : refusal(device, 'replaced'),
  );
  t.after(() => agent.close('test'));
  await agent.asked();
  await settle();
  assert.equal(machine.driverOf(NVME.slot), 'nvme');
  honest = false;
  machine.unplug(NVME.slot);
  machine.plug(NVME);
  await settle();
  assert.equal(machine.driverOf(NVME.slot), null);
});

test('what is asked while it is replaced proves nothing', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC, NVME]);
  let times = 0;
  const { agent, settle } = await started(
    async (device) => {
      if (++times > 1) return refusal(device, 'another');
      machine.unplug(NVME.slot);
      machine.plug(NVME);
      return proof(device);
    },
    { machine },
  );
  t.after(() => agent.close('test'));
  await agent.asked();
  await settle();
  assert.equal(machine.driverOf(NVME.slot), null);
});

test('an agent that only watches asks nobody: asking writes to the device', async (t) => {
  let times = 0;
  const attest: Attest = async (device) => {
    times++;
    return proof(device);
  };
  const machine = fakeMachine([ROOT_DISK, NIC, NVME]);
  const { agent, settle } = await startAgent(machine, {
    policy: POLICY,
    enforcing: false,
    attestation: { attest, wants, givesLess: less },
  });
  t.after(() => agent.close('test'));
  await settle();
  await agent.asked();
  assert.equal(times, 0);
});
