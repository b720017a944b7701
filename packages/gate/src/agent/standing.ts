/** How the machine stands when no agent runs: what the gate (or the last agent) decided, read back now. Changes nothing. */
import { asciiText } from '@airlock/core/bytes.ts';
import type { Decision } from '@airlock/core/decision.ts';
import { isConnected, levelRank } from '@airlock/core/level.ts';
import type { Enforcement } from '@airlock/core/plan.ts';
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import type { Files } from '@airlock/linux/files.ts';
import { readInventory } from '@airlock/linux/inventory.ts';
import { compilePolicy } from '@airlock/policy/compile.ts';
import { machineOutcomes } from '../kernel-abilities.ts';
import { readBack } from '../read-back.ts';
import { virtualFunctionOutcomes } from '../virtual-functions.ts';
import { judgeByFallback, readGatePolicy } from './agent-policy.ts';
import { readBootTime } from './clock.ts';
import { readEarlier } from './earlier.ts';
import { loadGrants } from './grant-store.ts';
import { endByTime } from './grants.ts';
import { loadHolds } from './hold-store.ts';
import { judgeBy } from './judge.ts';
import { unanswered } from './respond.ts';
import { STATE } from './state.ts';
import { deviceStatuses, grantStatuses, holdStatuses, type Status } from './status.ts';

/** Codes: `control-denied` (only root may read the state), those of readInventory. */
export async function readStanding(files: Files): Promise<Result<Status>> {
  const gate = await files.read(STATE.gate, 1024 * 1024);
  if (!gate.ok && gate.error.code === 'file-denied') {
    return fail('control-denied', gate.error.message, { hint: 'what is enforced is shown to root only' });
  }
  const seen = await readInventory(files);
  if (!seen.ok) return seen;
  const inventory = seen.value;
  const chosen = await readGatePolicy(files);
  const earlier = await readEarlier(files);
  const nobody: Status = {
    version: 1,
    from: 'none',
    mode: null,
    enforcing: false,
    policy: [],
    kernel: inventory.kernel.release,
    uevents: null,
    devices: [],
    machine: [],
    grants: [],
    holds: [],
    found: [],
    problems: [],
    lostEvents: 0,
  };
  if (!gate.ok && earlier.decisions.size === 0) return ok(nobody);

  const time = await readBootTime(files);
  const loaded = await loadGrants(files, time.ok ? time.value.boot : null);
  const uptime = time.ok ? time.value.uptime : null;
  const held = await loadHolds(files, time.ok ? time.value.boot : null, earlier.decisions);
  const problems: Problem[] = [
    ...loaded.problems,
    ...(held.problem === null ? [] : [held.problem]),
    ...(time.ok ? [] : [time.error]),
    ...(chosen.ok ? chosen.value.problems : []),
  ];
  const { live, ended } = endByTime(loaded.grants, uptime);
  for (const { device } of ended) {
    problems.push({
      code: 'agent-missing',
      message: `the grant for ${device} has ended, and without an agent nobody ends it`,
    });
  }
  const policy = chosen.ok ? chosen.value.policy : null;
  const judge = policy === null ? judgeByFallback('no usable policy') : judgeBy(compilePolicy(policy), {}, null);
  const fresh = await judge(inventory, live);
  const enforcements: Enforcement[] = [];
  for (const [i, device] of inventory.devices.entries()) {
    const decision = lesser(earlier.decisions.get(device.id), chosen.ok ? fresh.seen[i] : undefined) ?? fresh.seen[i];
    if (decision !== undefined) {
      enforcements.push(await readBack(decision, device, { files, kernel: inventory.kernel }));
    }
  }
  const drivers = await files.list('/sys/bus/pci/drivers');
  return ok({
    ...nobody,
    from: 'gate',
    mode: gate.ok ? modeOf(asciiText(gate.value)) : null,
    policy: policy?.files ?? [],
    devices: deviceStatuses(enforcements, inventory),
    machine: [
      ...machineOutcomes(inventory, {
        pciDrivers: drivers.ok ? drivers.value : [],
        disableModules: policy?.modules.disableLoading === 'after-gate',
      }),
      ...virtualFunctionOutcomes(
        inventory,
        enforcements.map(({ decision }) => decision),
      ),
      ...unanswered(policy?.on ?? {}),
    ],
    grants: grantStatuses(loaded.grants, inventory, uptime),
    holds: holdStatuses(held.holds, inventory, uptime),
    problems,
  });
}

/**
 * What was bound, looked at and refused is known only from then. What was let in then may be another device by now, or
 * have been let in for a time that is over.
 */
function lesser(then: Decision | undefined, now: Decision | undefined): Decision | undefined {
  if (then === undefined || now === undefined) return then ?? now;
  return isConnected(then.level) && levelRank(now.level) <= levelRank(then.level) ? now : then;
}

function modeOf(text: string): string | null {
  try {
    const value: unknown = JSON.parse(text);
    const mode: unknown = typeof value === 'object' && value !== null ? Reflect.get(value, 'mode') : null;
    return typeof mode === 'string' ? mode : null;
  } catch {
    return null;
  }
}
