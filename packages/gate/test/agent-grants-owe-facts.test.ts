import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fail } from '@airlock/core/result.ts';
import { fakeMachine, ROOT_DISK } from './agent-fake-machine.ts';
import { levelOf, POLICY, startAgent } from './agent-harness.ts';

const POLICY_FOR_DISKS = `${POLICY}  - id: disks
    match: { bus: virtio, type: block }
    level: disconnected
    grant: limited
`;
const DISK = { ...ROOT_DISK, slot: '0000:00:09.0', serial: 'data' };
const ID = 'pci:0000:00:09.0';
const TERM = { kind: 'timed', lasts: 600_000 } as const;

test('a granted disk that hides its serial number once it is bound is let go, and stays so until it is allowed anew', async (t) => {
  const machine = fakeMachine([DISK]);
  const { agent, act, settle, events } = await startAgent(machine, { policy: POLICY_FOR_DISKS });
  t.after(() => agent.close('test'));
  const granted = await act({ verb: 'allow', device: ID, term: TERM });
  assert.equal(granted.ok && granted.value.result, 'allowed');
  machine.unplug(DISK.slot);
  const { read } = machine.files;
  Object.assign(machine.files, {
    read: async (path: string, limit: number) =>
      path.endsWith('/serial') ? fail('file-timeout', 'no answer in 1000 ms') : read(path, limit),
  });
  machine.plug(DISK);
  const status = await settle();
  assert.equal(levelOf(status, ID), 'disconnected enforced');
  assert.equal(machine.driverOf(DISK.slot), null);
  const bound = () => events.filter((event) => event.kind === 'step' && event.step.kind === 'bind').length;
  const before = bound();
  assert.equal(levelOf(await settle(), ID), 'disconnected enforced');
  assert.equal(bound(), before, 'it is not bound again to be looked at again');
  // It shows the number again: who asks for it anew gets it.
  Object.assign(machine.files, { read });
  assert.equal(levelOf(await settle(), ID), 'disconnected enforced');
  const again = await act({ verb: 'allow', device: ID, term: TERM });
  assert.equal(again.ok && again.value.result, 'allowed', JSON.stringify(again));
  assert.equal(machine.driverOf(DISK.slot), 'virtio_blk');
});

test('a granted disk that shows another serial number once it is bound is let go', async (t) => {
  const machine = fakeMachine([DISK]);
  const { agent, act, settle } = await startAgent(machine, { policy: POLICY_FOR_DISKS });
  t.after(() => agent.close('test'));
  await act({ verb: 'allow', device: ID, term: TERM });
  machine.unplug(DISK.slot);
  machine.plug({ ...DISK, serial: 'evil' });
  assert.equal(levelOf(await settle(), ID), 'disconnected enforced');
});
