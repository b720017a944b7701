/**
 * The main job: a guest behind a policy, told what happens to it as it happens, and read back at the end. With
 * `compare` the same machine boots without the gate beside it.
 */
import type { Enforcement } from '@airlock/core/plan.ts';
import { fail, formatProblem, ok, type Result } from '@airlock/core/result.ts';
import { type Accelerator, chooseAccelerator } from './accelerator.ts';
import { type GateSummary, readEnforcement, readGate } from './airlock-state.ts';
import { ATTEMPTS, type AttemptResult, makeAttempt } from './attempts.ts';
import { type Cache, type Kernel, type KernelSeries, openCache, openKernel } from './cache.ts';
import { gatedInitramfs } from './gated-initramfs.ts';
import { type Guest, startGuest } from './guest.ts';
import { baseInitramfs } from './initramfs.ts';
import { CMDLINE, HOTPLUG_BACKENDS, HOTPLUGS, labParts, MEMORY } from './machine.ts';
import { type LabReport, reportOf } from './report.ts';
import { rootDisk } from './root-disk.ts';
import { lookInto, type SeenDevice, touchingDriver, type View } from './view.ts';

export interface ScenarioOptions {
  readonly series: KernelSeries;
  /** Path of the policy. */
  readonly policy: string;
  readonly compare: boolean;
  readonly signal?: AbortSignal;
  readonly tell: (event: ScenarioEvent) => void;
  /** Called when all is said and the guest still runs. */
  readonly after?: (guest: Guest, report: LabReport) => Promise<void>;
}

export type StepName = 'prepare' | 'boot' | 'boot-plain' | 'agent' | 'hotplug' | 'attempts' | 'read-back';

export type ScenarioEvent =
  | { readonly kind: 'note'; readonly text: string }
  | { readonly kind: 'machine'; readonly kernel: string; readonly accelerator: Accelerator }
  | { readonly kind: 'begin'; readonly step: StepName; readonly title: string }
  | { readonly kind: 'end'; readonly step: StepName; readonly title: string; readonly seconds: number };

/** Everything a guest boots from. */
export interface Images {
  readonly cache: Cache;
  readonly kernel: Kernel;
  readonly accelerator: Accelerator;
  readonly plain: string;
  readonly root: string;
}

/** Codes: the cache's and the builds'. */
export async function prepareImages(
  series: KernelSeries,
  say: (line: string) => void,
  signal?: AbortSignal,
): Promise<Result<Images>> {
  const cache = await openCache(say);
  if (!cache.ok) return cache;
  const kernel = await openKernel(cache.value, series, say);
  if (!kernel.ok) return kernel;
  const plain = await baseInitramfs(cache.value, kernel.value);
  if (!plain.ok) return plain;
  const root = await rootDisk(cache.value, kernel.value);
  if (!root.ok) return root;
  const accelerator = await chooseAccelerator(cache.value, kernel.value, plain.value, root.value, signal);
  return ok({ cache: cache.value, kernel: kernel.value, accelerator, plain: plain.value, root: root.value });
}

/** Boots the lab's machine from an initramfs; `tweaks` change devices by slot. Codes: the guest's. */
export function bootLab(
  images: Images,
  initramfs: string,
  more: {
    readonly signal?: AbortSignal | undefined;
    readonly onConsole?: (line: string) => void;
    readonly tweaks?: Readonly<Record<string, Readonly<Record<string, string>>>>;
    readonly cmdline?: string;
    /** Folder of a software TPM's state: firmware then measures what boots. */
    readonly tpmState?: string;
  } = {},
): Promise<Result<Guest>> {
  return startGuest(images.cache, {
    machine: {
      accelerator: images.accelerator.name,
      memory: MEMORY,
      kernel: images.kernel.image,
      initramfs,
      cmdline: `${CMDLINE}${more.cmdline === undefined ? '' : ` ${more.cmdline}`}`,
      parts: labParts({ rootDisk: images.root, ...(more.tweaks ? { tweaks: more.tweaks } : {}) }),
      backends: HOTPLUG_BACKENDS,
      ...(more.tpmState === undefined ? {} : { tpmState: more.tpmState }),
    },
    ...(more.signal ? { signal: more.signal } : {}),
    ...(more.onConsole ? { onConsole: more.onConsole } : {}),
  });
}

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
  async function step<T>(name: StepName, title: string, work: () => Promise<Result<T>>): Promise<Result<T>> {
    const begun = performance.now();
    tell({ kind: 'begin', step: name, title });
    const result = await work();
    if (signal?.aborted) return fail('lab-interrupted', 'interrupted; the guests are gone');
    if (result.ok) tell({ kind: 'end', step: name, title, seconds: (performance.now() - begun) / 1000 });
    return result;
  }
  async function booted(images: Images, initramfs: string): Promise<Result<Guest>> {
    const guest = await bootLab(images, initramfs, { signal });
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

  async function gatedGuest(images: Images, initramfs: string): Promise<Result<[Guest, Omit<Parts, 'without'>]>> {
    const boot = await step('boot', 'boot behind the gate', () => booted(images, initramfs));
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
    return ok([guest, { gate: gate.value, agent: agent.value, known, attempts: attempts.value, ...final.value }]);
  }

  try {
    const prepared = await step('prepare', 'kernel, initramfs and root disk', async () => {
      const images = await prepareImages(options.series, (text) => tell({ kind: 'note', text }), signal);
      if (!images.ok) return images;
      const { cache, kernel, plain, accelerator } = images.value;
      tell({ kind: 'machine', kernel: kernel.release, accelerator });
      const gated = await gatedInitramfs(cache, kernel, plain, options.policy);
      if ('path' in gated) return ok({ images: images.value, initramfs: gated.path });
      // The first is the result; the others are said as they are.
      for (const problem of gated.problems.slice(1)) tell({ kind: 'note', text: formatProblem(problem) });
      return { ok: false, error: gated.problems[0] };
    });
    if (!prepared.ok) return prepared;
    const { images, initramfs } = prepared.value;
    const [gated, without] = await Promise.all([
      gatedGuest(images, initramfs),
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
      seconds: (performance.now() - started) / 1000,
    });
    if (options.after) await options.after(guest, report);
    return ok(report);
  } finally {
    await Promise.all(guests.map((guest) => guest.end()));
  }
}

interface Parts {
  readonly gate: GateSummary;
  readonly agent: string | null;
  /** Ids of PCI functions that were there at boot. */
  readonly known: ReadonlySet<string>;
  readonly attempts: readonly AttemptResult[];
  readonly view: View;
  readonly enforcement: readonly Enforcement[];
  readonly without: View | undefined;
}

/**
 * What sysfs and Airlock say once the agent is done with what it heard last: it may be in the middle of a turn. What
 * has not settled within the time is reported as it is.
 */
async function settledState(guest: Guest): Promise<Result<{ view: View; enforcement: readonly Enforcement[] }>> {
  for (let looks = 1; ; looks++) {
    const [view, enforcement] = [await lookInto(guest), await readEnforcement(guest)];
    if (!view.ok) return view;
    if (!enforcement.ok) return enforcement;
    const decided = new Set(enforcement.value.map(({ decision }) => decision.device));
    const settled =
      enforcement.value.every(({ status }) => status !== 'failed') &&
      view.value.pci.every((device) => decided.has(device.id));
    if (settled || looks >= 20) return ok({ view: view.value, enforcement: enforcement.value });
    await guest.run('sleep 0.5');
  }
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
