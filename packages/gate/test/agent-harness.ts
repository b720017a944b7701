/** An agent over a fake machine: real policy, real loop, no clock and no socket. */

import assert from 'node:assert/strict';
import type { Event, EventBody } from '@airlock/core/event.ts';
import type { Result } from '@airlock/core/result.ts';
import { type FakeCommands, fakeCommands } from '@airlock/linux/fake-commands.ts';
import { compilePolicy } from '@airlock/policy/compile.ts';
import { decodePolicy } from '@airlock/policy/decode.ts';
import { parseSources } from '@airlock/policy/node-source.ts';
import type { Policy } from '@airlock/policy/policy.ts';
import { type Agent, makeAgent } from '../src/agent/agent.ts';
import type { Attestation } from '../src/agent/attester.ts';
import { type Conduct, conductAs } from '../src/agent/conduct.ts';
import type { Answer } from '../src/agent/control-protocol.ts';
import { openDecisionLog } from '../src/agent/decision-log.ts';
import { readEarlier } from '../src/agent/earlier.ts';
import { type Judge, judgeBy } from '../src/agent/judge.ts';
import { POWER_OFF } from '../src/agent/power.ts';
import type { Status } from '../src/agent/status.ts';
import type { FakeMachine } from './agent-fake-machine.ts';

export const POLICY = `version: 1
mode: enforce
default: disconnected
rules:
  - id: root-disk
    match: { bus: virtio, type: block, serial: root }
    level: limited
  - id: nic
    match: { bus: virtio, type: net }
    level: limited
    features: { forbid: [RING_PACKED] }
  - id: balloon
    match: { bus: virtio, type: balloon }
    level: disconnected
    grant: limited
  - id: nvme
    match: { bus: pci, class: nvme }
    level: disconnected
`;

export function judgeOf(text: string): Judge {
  return judgeBy(compilePolicy(policyOf(text)), {}, null);
}

export function policyOf(text: string): Policy {
  const { policy, problems } = decodePolicy(parseSources([{ file: 'policy.yaml', text }]).documents);
  assert.deepEqual(problems, []);
  assert.ok(policy);
  return policy;
}

export interface Harness {
  readonly agent: Agent;
  readonly events: Event[];
  readonly commands: FakeCommands;
  /** Events of one kind since the start. */
  of<K extends EventBody['kind']>(kind: K): (Event & { kind: K })[];
  /** Waits for the turns that events have set off. */
  settle(): Promise<Status>;
  act(request: Parameters<Agent['answer']>[0]): Promise<Result<Answer>>;
}

export async function startAgent(
  machine: FakeMachine,
  options: {
    policy?: string;
    judge?: Judge;
    enforcing?: boolean;
    conduct?: Conduct;
    gap?: number;
    poll?: number;
    attestation?: Attestation;
  } = {},
): Promise<Harness> {
  const enforcing = options.enforcing ?? true;
  const log = await openDecisionLog(machine.files, () => 1_700_000_000_000);
  const events: Event[] = [];
  log.listen((event) => void events.push(event));
  const commands = fakeCommands({ modprobe: () => ({}), poweroff: () => ({ status: 1, stderr: 'a fake' }) });
  const text = options.policy ?? POLICY;
  const agent = makeAgent({
    hands: { files: machine.files, commands, modprobe: ['modprobe'] },
    judge: options.judge ?? judgeOf(text),
    conduct: options.conduct ?? conductAs({ mode: 'enforce', enforce: enforcing }, 0),
    on: policyOf(text).on,
    powerOff: POWER_OFF,
    wait: async () => undefined,
    incarnation: async (device) => {
      const inode = machine.incarnations.get(device.path);
      return inode === undefined ? undefined : String(inode);
    },
    disableModules: false,
    earlier: await readEarlier(machine.files),
    log,
    source: machine.uevents,
    policy: ['policy.yaml'],
    attestation: options.attestation,
    gap: options.gap ?? 1,
    // Where a test does not ask for polls there are none within its time.
    poll: options.poll ?? 60_000,
  });
  await agent.start();
  return {
    agent,
    events,
    commands,
    of: <K extends EventBody['kind']>(kind: K) =>
      events.filter((event): event is Event & { kind: K } => event.kind === kind),
    async settle() {
      // A turn that events set off, and what that turn itself set off, run before this one or are part of it.
      for (let i = 0; i < 3; i++) await agent.status();
      const status = await agent.status();
      assert.ok(status.ok);
      return status.value;
    },
    act: (request) => agent.answer(request) as Promise<Result<Answer>>,
  };
}

export function levelOf(status: Status, device: string): string {
  const one = status.devices.find((each) => each.device === device);
  return one === undefined ? 'absent' : `${one.level} ${one.status}`;
}
