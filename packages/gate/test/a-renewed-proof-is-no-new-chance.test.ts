/**
 * A device that was bound, looked at and refused is refused as long as it stands there, unless it proves something else
 * than it had proven then: its driver is not given to it once more each time that it is asked who it is.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Device } from '@airlock/core/device.ts';
import { compilePolicy } from '@airlock/policy/compile.ts';
import type { Asked } from '../src/agent/proofs.ts';
import { givesLess, wantsProof } from '../src/agent/wants-proof.ts';
import { fakeMachine, NIC, ROOT_DISK } from './agent-fake-machine.ts';
import { levelOf, policyOf, startAgent } from './agent-harness.ts';

const ID = 'pci:0000:00:03.0';
const POLICY = `version: 1
mode: enforce
default: disconnected
rules:
  - id: root-disk
    match: { bus: virtio, type: block }
    level: limited
  - id: nic
    match: { bus: virtio, type: net }
    require: { identity: attested, roots: [maker.pem] }
    level: limited
    features: { forbid: [RING_PACKED] }
`;
/** VERSION_1, ACCESS_PLATFORM, and what is forbidden. */
const PACKED = { ...NIC, virtio: { id: 1, driver: 'virtio_net', bits: [32, 33, 34] } };

async function boundHowOften(times: number, answer: (at: number, device: Device) => Asked) {
  const machine = fakeMachine([ROOT_DISK, PACKED]);
  const policy = compilePolicy(policyOf(POLICY));
  let at = 0;
  const { agent, of, settle } = await startAgent(machine, {
    policy: POLICY,
    attestation: {
      attest: async (device) => answer(at++, device),
      wants: (device) => wantsProof(policy, device),
      givesLess: (device, before, after) => givesLess(policy, device, before, after),
      every: 40,
      retry: 10,
    },
  });
  while (of('attested').length < times) await new Promise((go) => setTimeout(go, 5));
  const status = await settle();
  await agent.close('test');
  assert.equal(levelOf(status, ID), 'disconnected enforced');
  return machine.files.writes.filter(({ path }) => path === '/sys/bus/virtio/drivers/virtio_net/bind').length;
}

const proof = ({ id }: Device, measurements: readonly string[] = []): Asked => ({
  way: 'answered',
  claim: { device: id, tier: 'attested', because: `vouched for ${Math.random()}`, roots: ['maker.pem'], measurements },
});
const mute = ({ id }: Device): Asked => ({
  way: 'silent',
  claim: { device: id, tier: 'claimed', because: 'no answer' },
});

test('one that proves the same again and again is bound once', async () => {
  assert.equal(await boundHowOften(4, (_, device) => proof(device)), 1);
});

test('nor is falling silent once in a while a new chance', async () => {
  assert.equal(await boundHowOften(6, (at, device) => (at % 2 === 0 ? proof(device) : mute(device))), 1);
});

test('one that proves something else is judged by that', async () => {
  assert.equal(await boundHowOften(2, (at, device) => proof(device, at === 0 ? [] : ['v2.yaml'])), 2);
});
