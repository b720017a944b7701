/**
 * The main job: a guest behind a policy, told what happens to it as it happens, and read back at the end. With
 * `compare` the same machine boots without the gate beside it.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Enforcement } from '@airlock/core/plan.ts';
import { fail, formatProblem, ok, type Problem, type Result } from '@airlock/core/result.ts';
import type { Accelerator } from './accelerator.ts';
import { agentIsUp, agentKnows, settledState } from './agent-word.ts';
import { type GateSummary, readEnforcement, readGate } from './airlock-state.ts';
import { ATTEMPTS, type AttemptResult, makeAttempt } from './attempts.ts';
import type { KernelSeries } from './cache.ts';
import type { Contribution, Exhibit, Shown } from './exhibit.ts';
import { gatedInitramfs } from './gated-initramfs.ts';
import type { Guest } from './guest.ts';
import { bootLab, type Images, labCmdline, prepareImages } from './images.ts';
import { type LabPolicy, policyWith } from './lab-policy.ts';
import { HOTPLUGS, joinChanges, type MachineChange, portNames, portParts } from './machine.ts';
import { type LabReport, reportOf } from './report.ts';
import { lookInto, type SeenDevice, touchingDriver, type View } from './view.ts';

export interface ScenarioOptions {
  readonly series: KernelSeries;
  /** Path of the policy. */
  readonly policy: string;
  readonly compare: boolean;
  /** What is brought to the machine and shown, in this order. */
  readonly exhibits?: readonly Exhibit[];
  readonly signal?: AbortSignal;
  readonly tell: (event: ScenarioEvent) => void;
  /** Called when all is said and the guest still runs. */
  readonly after?: (guest: Guest, report: LabReport) => Promise<void>;
}

export type StepName =
  | 'prepare'
  | 'boot'
  | 'boot-plain'
  | 'agent'
  | 'hotplug'
  | Exhibit['step']
  | 'attempts'
  | 'read-back';

export type ScenarioEvent =
  | { readonly kind: 'note'; readonly text: string }
  | { readonly kind: 'machine'; readonly kernel: string; readonly accelerator: Accelerator }
  | { readonly kind: 'begin'; readonly step: StepName; readonly title: string }
  | { readonly kind: 'end'; readonly step: StepName; readonly title: string; readonly seconds: number };

/** Plugs in what the host plugs in, and waits until the guest sees it. Codes: QMP's, `guest-timeout`. */
export async function plugIn(guest: Guest): Promise<Result<void>> {
  const before = await lookInto(guest);
  if (!before.ok) return before;
  for (const { id, device } of HOTPLUGS) {
    const added = await guest.qmp.execute('device_add', { id, ...device });
    if (!added.ok) return added;
  }
  const wanted = before.value.pci.length + HOTPLUGS.length;
  const seen = await guest.run(
    `tries=0
until set -- /sys/bus/pci/devices/*; [ $# -ge ${wanted} ]; do
  tries=$((tries + 1)); [ $tries -lt 100 ] || exit 1; sleep 0.1
done`,
    30,
  );
  if (!seen.ok) return seen;
  return seen.value.status === 0 ? ok(undefined) : fail('guest-timeout', 'the guest did not see what was plugged in');
}

/** PCI functions that the policy gives no driver to. */
export function deniedFunctions(view: View, lines: readonly { id: string; level: string }[]): SeenDevice[] {
  const denied = new Set(lines.filter((line) => line.level === 'disconnected').map((line) => line.id));
  return view.pci.filter((device) => denied.has(device.id));
}

/** Runs it all. Codes: those of every part; the guests are gone in any case. */
export async function runScenario(options: ScenarioOptions): Promise<Result<LabReport>> {
  const { tell, signal } = options;
  const started = performance.now();
  const guests: Guest[] = [];
  const exhibits = options.exhibits ?? [];
  const folder = mkdtempSync(join(tmpdir(), 'airlock-lab-'));
  async function step<T>(name: StepName, title: string, work: () => Promise<Result<T>>): Promise<Result<T>> {
    const begun = performance.now();
    tell({ kind: 'begin', step: name, title });
    const result = await work();
    if (signal?.aborted) return fail('lab-interrupted', 'interrupted; the guests are gone');
    if (result.ok) tell({ kind: 'end', step: name, title, seconds: (performance.now() - begun) / 1000 });
    return result;
  }
  async function booted(
    images: Images,
    initramfs: string,
    change: MachineChange & { readonly owns?: string } = {},
  ): Promise<Result<Guest>> {
    const guest = await bootLab(images, initramfs, { ...change, signal });
    if (guest.ok) guests.push(guest.value);
    return guest;
  }

  async function plainGuest(images: Images): Promise<Result<View>> {
    const guest = await step('boot-plain', 'the same machine without the gate', () => booted(images, images.plain));
    if (!guest.ok) return guest;
    const plugged = await plugIn(guest.value);
    if (!plugged.ok) return plugged;
    // Its driver needs a moment after the function is there.
    const view = await settledView(guest.value);
    await guest.value.end();
    return view;
  }

  async function gatedGuest(prepared: Prepared): Promise<Result<[Guest, Omit<Parts, 'without'>]>> {
    const { images, initramfs, change, policy } = prepared;
    const boot = await step('boot', 'boot behind the gate', () =>
      booted(images, initramfs, { ...change, owns: folder }),
    );
    if (!boot.ok) return boot;
    const guest = boot.value;
    const gate = await readGate(guest);
    if (!gate.ok) return gate;
    const agent = await step('agent', 'the agent takes over', () => agentIsUp(guest));
    if (!agent.ok) return agent;
    const atBoot = await lookInto(guest);
    if (!atBoot.ok) return atBoot;
    const known = new Set(atBoot.value.pci.map((device) => device.id));
    const hotplug = await step(
      'hotplug',
      `the host plugs in a ${HOTPLUGS.map(({ what }) => what).join(' and a ')}`,
      async () => {
        const plugged = await plugIn(guest);
        if (!plugged.ok) return plugged;
        const view = await lookInto(guest);
        if (!view.ok) return view;
        const added = view.value.pci.map((device) => device.id).filter((id) => !known.has(id));
        if (agent.value !== null) return ok(false);
        const knows = await agentKnows(guest, added);
        if (!knows.ok) return knows;
        // Decided is not yet done.
        const settled = await settledState(guest);
        return settled.ok ? knows : settled;
      },
    );
    if (!hotplug.ok) return hotplug;
    const shown: Shown[] = [];
    for (const exhibit of agent.value === null ? exhibits : []) {
      const note = (text: string) => tell({ kind: 'note', text });
      const stage = { guest, images, initramfs, cmdline: labCmdline(change), policy: policy.path, note };
      const seen = await step(exhibit.step, exhibit.title, () => exhibit.show(stage));
      if (!seen.ok) return seen;
      shown.push(seen.value);
    }
    const attempts = await step('attempts', 'root in the guest tries to get at denied devices', async () => {
      const [view, enforcement] = [await lookInto(guest), await readEnforcement(guest)];
      if (!view.ok) return view;
      if (!enforcement.ok) return enforcement;
      const denied = deniedFunctions(
        view.value,
        enforcement.value.map(({ decision }) => ({ id: decision.device, level: decision.level })),
      );
      const results: AttemptResult[] = [];
      for (const attempt of ATTEMPTS) {
        const result = await makeAttempt(guest, attempt, denied);
        if (!result.ok) return result;
        results.push(result.value);
      }
      return ok(results);
    });
    if (!attempts.ok) return attempts;
    const final = await step('read-back', 'read back from the guest', () => settledState(guest));
    if (!final.ok) return final;
    return ok([
      guest,
      { gate: gate.value, agent: agent.value, known, attempts: attempts.value, shown, ...final.value },
    ]);
  }

  /** What the exhibits want of machine and policy; ports in their order. */
  async function contributions(): Promise<Result<readonly Contribution[]>> {
    const ports = portNames(exhibits.reduce((sum, { ports: own }) => sum + own, 0));
    const all: Contribution[] = [];
    for (const exhibit of exhibits) {
      const one = await exhibit.prepare(ports.splice(0, exhibit.ports), folder);
      if (!one.ok) return one;
      all.push(one.value);
    }
    const count = exhibits.reduce((sum, { ports: own }) => sum + own, 0);
    return ok([{ machine: { parts: portParts(count) } }, ...all]);
  }

  /** The first is the result; the others are said as they are. */
  function refused([first, ...others]: readonly [Problem, ...Problem[]]): Result<never> {
    for (const problem of others) tell({ kind: 'note', text: formatProblem(problem) });
    return { ok: false, error: first };
  }

  async function prepare(): Promise<Result<Prepared>> {
    const images = await prepareImages(options.series, (text) => tell({ kind: 'note', text }), signal);
    if (!images.ok) return images;
    const { cache, kernel, plain, accelerator } = images.value;
    tell({ kind: 'machine', kernel: kernel.release, accelerator });
    const brought = await contributions();
    if (!brought.ok) return brought;
    const rules = brought.value.flatMap((one) => one.rules ?? []);
    const files = Object.assign({}, ...brought.value.map((one) => one.files ?? {})) as Record<string, string>;
    const made = await policyWith(options.policy, rules, files, join(folder, 'policy'));
    if ('problems' in made) return refused(made.problems);
    const { policy } = made;
    // What no other run will boot from does not fill the cache.
    const own = policy.added === null ? undefined : join(folder, 'initramfs');
    const gated = await gatedInitramfs(cache, kernel, plain, policy.path, own);
    if (!('path' in gated)) return refused(gated.problems);
    const change = joinChanges(brought.value.map(({ machine }) => machine ?? {}));
    return ok({ images: images.value, initramfs: gated.path, policy, change });
  }

  try {
    const prepared = await step('prepare', 'kernel, initramfs and root disk', prepare);
    if (!prepared.ok) return prepared;
    const { images, policy } = prepared.value;
    const [gated, without] = await Promise.all([
      gatedGuest(prepared.value),
      options.compare ? plainGuest(images) : Promise.resolve(ok(undefined)),
    ]);
    if (!gated.ok) return gated;
    if (!without.ok) return without;
    const [guest, parts] = gated.value;
    const report = reportOf({
      ...parts,
      without: without.value,
      kernel: images.kernel,
      accelerator: images.accelerator,
      policy: options.policy,
      added: policy.added,
      seconds: (performance.now() - started) / 1000,
    });
    if (options.after) await options.after(guest, report);
    return ok(report);
  } finally {
    await Promise.all(guests.map((guest) => guest.end()));
    await Promise.all(exhibits.map((exhibit) => exhibit.close()));
    rmSync(folder, { recursive: true, force: true });
  }
}

interface Prepared {
  readonly images: Images;
  /** With the gate in front. */
  readonly initramfs: string;
  readonly policy: LabPolicy;
  readonly change: MachineChange;
}

interface Parts {
  readonly gate: GateSummary;
  readonly agent: string | null;
  /** Ids of PCI functions that were there at boot. */
  readonly known: ReadonlySet<string>;
  readonly attempts: readonly AttemptResult[];
  readonly shown: readonly Shown[];
  readonly view: View;
  readonly enforcement: readonly Enforcement[];
  readonly without: View | undefined;
}

/** Looks until two looks agree, at most a few times. */
async function settledView(guest: Guest): Promise<Result<View>> {
  let last = '';
  let view = await lookInto(guest);
  for (let looks = 0; looks < 10 && view.ok; looks++) {
    const now = JSON.stringify(view.value.pci.map((device) => [device.id, touchingDriver(device)]));
    if (now === last) break;
    last = now;
    await guest.run('sleep 0.5');
    view = await lookInto(guest);
  }
  return view;
}
