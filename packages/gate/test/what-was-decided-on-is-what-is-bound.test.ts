/**
 * A decision is on what stood there when it was looked at. While it is carried out (which a host can make last, with a
 * device that is slow to probe) another one can come in its place, before the kernel's events are read.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compilePolicy } from '@airlock/policy/compile.ts';
import { givesLess, wantsProof } from '../src/agent/wants-proof.ts';
import { fakeMachine, NVME, ROOT_DISK } from './agent-fake-machine.ts';
import { levelOf, policyOf, startAgent } from './agent-harness.ts';

const POLICY = `version: 1
mode: enforce
default: disconnected
rules:
  - id: root-disk
    match: { bus: virtio, type: block }
    level: limited
  - id: drive
    match: { bus: pci, class: nvme }
    require: { identity: attested, roots: [maker.pem] }
    level: limited
    otherwise: { level: disconnected }
`;
const SLOW = NVME;
const OTHER = { ...NVME, slot: '0000:00:09.0' };
const folder = (slot: string) => `/sys/devices/pci0000:00/${slot}`;

test('what came in the place of an attested drive while another one was bound gets no driver on its proof', async (t) => {
  const machine = fakeMachine([ROOT_DISK, SLOW, OTHER]);
  const genuine = machine.incarnations.get(folder(OTHER.slot));
  let swapped = false;
  // The slow one is about to be bound.
  machine.files.onWrite(`${folder(SLOW.slot)}/driver_override`, (data) => {
    if (data.trim() !== '' || swapped) return undefined;
    swapped = true;
    machine.unplug(OTHER.slot);
    machine.plug(OTHER);
    return undefined;
  });
  const policy = compilePolicy(policyOf(POLICY));
  let asked = 0;
  let both = () => {};
  const together = new Promise<void>((resolve) => {
    both = resolve;
  });
  const harness = await startAgent(machine, {
    policy: POLICY,
    attestation: {
      attest: async ({ id, path }) => {
        if (++asked === 2) both();
        await together;
        const honest = id !== `pci:${OTHER.slot}` || machine.incarnations.get(path) === genuine;
        return honest
          ? {
              way: 'answered',
              claim: { device: id, tier: 'attested', because: 'vouched for', roots: ['maker.pem'], measurements: [] },
            }
          : { way: 'answered', claim: { device: id, tier: 'claimed', because: 'nobody vouches for it' } };
      },
      wants: (device) => wantsProof(policy, device),
      givesLess: (device, before, after) => givesLess(policy, device, before, after),
    },
  });
  t.after(() => harness.agent.close('test'));
  await harness.agent.asked();
  const status = await harness.settle();
  assert.equal(swapped, true);
  assert.equal(levelOf(status, `pci:${SLOW.slot}`), 'limited enforced');
  assert.equal(levelOf(status, `pci:${OTHER.slot}`), 'disconnected enforced');
  const bound = machine.files.writes.filter(
    ({ path, data }) => path === '/sys/bus/pci/drivers/nvme/bind' && data === OTHER.slot,
  );
  assert.deepEqual(bound, [], 'it was never bound, not even for a moment');
  assert.equal(machine.driverOf(OTHER.slot), null);
});
