/** Waiting for the agent in the guest: until it is there, has decided, and is done with what it decided. */
import type { Enforcement } from '@airlock/core/plan.ts';
import { ok, type Result } from '@airlock/core/result.ts';
import { readEnforcement } from './airlock-state.ts';
import type { Guest } from './guest.ts';
import { lookInto, type View } from './view.ts';

/**
 * Waits until the agent answers on its socket. Gives `null` when it does, else what it said last; not an error of the
 * run, but a finding.
 */
export async function agentIsUp(guest: Guest, seconds = 30): Promise<Result<string | null>> {
  const answer = await guest.run(
    `tries=0
until [ -S /run/airlock/control.sock ]; do
  tries=$((tries + 1)); [ $tries -lt ${seconds * 10} ] && [ ! -e /run/agent.exit ] || { tail -n 1 /run/agent.log; exit 1; }
  sleep 0.1
done`,
    seconds + 10,
  );
  if (!answer.ok) return answer;
  return ok(answer.value.status === 0 ? null : answer.value.stdout.trim() || 'it said nothing');
}

/** Waits until the agent has decided about each of these ids. `false` when it has not within the time. */
export async function agentKnows(guest: Guest, ids: readonly string[], seconds = 20): Promise<Result<boolean>> {
  const all = ids.map((id) => `grep -q '"${id}"' /run/airlock/enforcement.json`).join(' && ');
  const answer = await guest.run(
    `tries=0
until ${all === '' ? 'true' : all}; do
  tries=$((tries + 1)); [ $tries -lt ${seconds * 10} ] || exit 1; sleep 0.1
done 2>/dev/null`,
    seconds + 10,
  );
  return answer.ok ? ok(answer.value.status === 0) : answer;
}

/**
 * What sysfs and Airlock say once the agent is done with what it heard last: it may be in the middle of a turn. What
 * has not settled within the time is reported as it is.
 */
export async function settledState(guest: Guest): Promise<Result<{ view: View; enforcement: readonly Enforcement[] }>> {
  for (let looks = 1; ; looks++) {
    const [before, view, enforcement] = [
      await readEnforcement(guest),
      await lookInto(guest),
      await readEnforcement(guest),
    ];
    if (!before.ok) return before;
    if (!view.ok) return view;
    if (!enforcement.ok) return enforcement;
    const decided = new Set(enforcement.value.map(({ decision }) => decision.device));
    const settled =
      // What is decided and done between two looks is seen by one of them only.
      JSON.stringify(before.value) === JSON.stringify(enforcement.value) &&
      enforcement.value.every(({ status }) => status !== 'failed') &&
      view.value.pci.every((device) => decided.has(device.id));
    if (settled || looks >= 20) return ok({ view: view.value, enforcement: enforcement.value });
    await guest.run('sleep 0.5');
  }
}
