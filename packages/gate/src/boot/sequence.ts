/**
 * What the gate does between the kernel and the real init, over hands that tests can fake. Nothing of it depends on the
 * kernel command line or on anything else that the host says, but on the devices themselves.
 */
import { asciiText } from '@airlock/core/bytes.ts';
import type { Decision } from '@airlock/core/decision.ts';
import type { Inventory } from '@airlock/core/device.ts';
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import type { Commands } from '@airlock/linux/commands.ts';
import type { Files } from '@airlock/linux/files.ts';
import { readInventory } from '@airlock/linux/inventory.ts';
import { compilePolicy } from '@airlock/policy/compile.ts';
import { decide } from '@airlock/policy/decide.ts';
import { decodePolicy } from '@airlock/policy/decode.ts';
import { unpackDocuments } from '@airlock/policy/document.ts';
import { modeAt } from '@airlock/policy/mode.ts';
import { MODES, type Mode, type Policy } from '@airlock/policy/policy.ts';
import { applyPlan } from '../apply.ts';
import { type EnforceInput, enforce } from '../enforce.ts';
import { fallbackDecisions, onlyBootCritical } from '../fallback.ts';
import { type InodeOf, type Origins, startOrigins } from '../origin.ts';
import { GATED_BUSES } from '../plan.ts';
import { eventLog, type GateState, STATE, saveState } from '../state.ts';
import { summary } from '../summary.ts';

export interface BootHands {
  readonly files: Files;
  readonly commands: Commands;
  /** A whole file as text; codes as `Files.read`. */
  readonly readText: (path: string, limit: number) => Result<string>;
  /** Milliseconds since the kernel started. */
  readonly now: () => number;
  readonly wait: (milliseconds: number) => Promise<void>;
  /** To the console. */
  readonly print: (text: string) => void;
  readonly inodeOf: InodeOf;
}

export interface BootOptions {
  /** Leaves the policy alone: the second try after a crash. */
  readonly fallbackBecause?: string;
}

/** What `airlock gate initrd` puts into the initramfs. */
export const PARTS = {
  policy: '/airlock/policy.json',
  /** One word; absent when the policy's own mode counts. */
  mode: '/airlock/mode',
  busybox: '/airlock/busybox',
} as const;

const MODPROBES = ['/sbin/modprobe', '/usr/sbin/modprobe', '/bin/modprobe', '/usr/bin/modprobe'];
const POLICY_LIMIT = 16 * 1024 * 1024;

interface Loaded {
  readonly policy: Policy | null;
  /** As it stands in the initramfs, for the agent. */
  readonly text: string | null;
  /** As it was asked for; learning may be over. */
  readonly mode: Mode;
  readonly problems: readonly Problem[];
}

/**
 * Runs the gate. `ok` means: hand over to the real init. A failed result (`sysfs-missing`, `inventory-failed`) means
 * that nothing could be decided or held: the caller must not hand over.
 */
export async function boot(hands: BootHands, options: BootOptions = {}): Promise<Result<GateState>> {
  const started = hands.now();
  const { files } = hands;
  const log = eventLog(hands.now);
  if (!(await files.list('/sys/bus')).ok) return fail('sysfs-missing', '/sys is not there or not mounted');

  const loaded: Loaded =
    options.fallbackBecause === undefined
      ? await loadPolicy(hands)
      : {
          policy: null,
          text: null,
          mode: 'enforce',
          problems: [{ code: 'gate-crashed', message: options.fallbackBecause }],
        };
  const { policy } = loaded;
  const learnFor = policy?.learnFor === undefined ? {} : { learnFor: policy.learnFor };
  const mode = modeAt({ mode: loaded.mode, ...learnFor }, hands.now() / 1000);
  const act = mode === 'enforce';
  const problems = [...loaded.problems];
  const modprobe = await findModprobe(files);
  const tools = { files, commands: hands.commands, modprobe };
  if (act) {
    // Before anything is read: from here on nothing binds by itself. The loop does it again and reads it back.
    await applyPlan({ version: 1, steps: GATED_BUSES.map((bus) => ({ kind: 'autoprobe-off', bus })) }, tools);
    if (modprobe === null) problems.push({ code: 'modprobe-missing', message: 'no modprobe in this initramfs' });
  }
  // Tried before any device is connected: decisions that cannot be kept are not made.
  const kept = await files.save(`${STATE}/policy.json`, loaded.text ?? '{"version":1,"documents":[]}', 0o600);
  if (!kept.ok) {
    problems.push({
      code: 'state-unwritable',
      message: kept.error.message,
      hint: 'only boot-critical devices are connected: the agent would know nothing of the others',
    });
  }
  log.note({ kind: 'gate-started', mode, policy: policy?.files.join(', ') ?? null, kernel: await release(files) });
  for (const problem of problems) log.note({ kind: 'policy-problem', problem });

  const origins = startOrigins(hands.inodeOf, 'first');
  const input: EnforceInput = {
    hands: tools,
    look: looker(files, act, origins),
    decide: decider(policy, withheldBecause(policy, kept.ok), problems),
    act,
    disableModules: policy?.modules.disableLoading === 'after-gate',
    wait: hands.wait,
    note: log.note,
  };
  const done = await enforce(input);
  if (!done.ok) {
    return fail('inventory-failed', done.error.message);
  }
  const { enforcements, machine, inventory } = done.value;
  problems.push(...done.value.problems);
  for (const one of enforcements) {
    log.note({ kind: 'decided', decision: one.decision });
    log.note({ kind: 'enforced', device: one.decision.device, outcomes: one.outcomes });
  }
  const milliseconds = Math.round(hands.now() - started);
  log.note({ kind: 'handed-over', to: '/airlock/init', milliseconds });
  const gate = {
    version: 1,
    mode,
    policy: { files: policy?.files ?? [] },
    kernel: inventory.kernel.release,
    milliseconds,
    problems,
    machine,
  } as const;
  problems.push(
    ...(await saveState(files, {
      gate,
      boot: origins.boot ?? new Map(),
      enforcements,
      events: log.events,
    })),
  );
  hands.print(
    summary({
      mode,
      files: gate.policy.files,
      inventory,
      enforcements,
      machine,
      problems,
      milliseconds: hands.now() - started,
    }),
  );
  return ok(gate);
}

/** The first inventory says what was there at boot; everything that it does not list came later. */
function looker(files: Files, act: boolean, origins: Origins): EnforceInput['look'] {
  return async (probe) => {
    const seen = await readInventory(files, {
      // Asking for offered features writes configuration space: not where the machine is to be left as it is.
      probe: probe && act,
      bootDevices: [],
      detail: 'decision',
    });
    return seen.ok ? ok(await origins.mark(seen.value)) : seen;
  };
}

/** The policy from the initramfs, through the same strict decoder as everywhere; null with the problems otherwise. */
async function loadPolicy({ files, readText }: BootHands): Promise<Loaded> {
  const broken = (problems: readonly Problem[]): Loaded => ({ policy: null, text: null, mode: 'enforce', problems });
  const read = readText(PARTS.policy, POLICY_LIMIT);
  if (!read.ok) return broken([{ code: 'policy-missing', message: read.error.message }]);
  const text = read.value;
  const documents = unpackDocuments(text);
  if (!documents.ok) return broken([{ code: 'policy-unusable', message: documents.error.message }]);
  const { policy, problems } = decodePolicy(documents.value);
  if (policy === undefined) {
    return broken([{ code: 'policy-unusable', message: `${PARTS.policy} has errors` }, ...problems]);
  }
  const mode = await files.read(PARTS.mode, 64);
  if (!mode.ok) {
    return mode.error.code === 'file-missing'
      ? { policy, text, mode: policy.mode, problems }
      : broken([{ code: 'policy-unusable', message: mode.error.message }]);
  }
  const word = asciiText(mode.value).trim();
  const known = MODES.find((one) => one === word);
  return known === undefined
    ? broken([{ code: 'policy-unusable', message: `${PARTS.mode}: not one of ${MODES.join(', ')}` }])
    : { policy, text, mode: known, problems };
}

/** Why only boot-critical devices are connected although there is a policy; null when all are that it connects. */
function withheldBecause(policy: Policy | null, kept: boolean): string | null {
  if (!kept) return 'decisions cannot be kept on this machine';
  // An engine may only lower a level: what it has not seen yet could be too high.
  return policy?.external === undefined ? null : 'the external engine does not run in the gate; the agent decides';
}

function decider(policy: Policy | null, withheld: string | null, problems: readonly Problem[]): EnforceInput['decide'] {
  if (policy === null) {
    const why = problems[0]?.message ?? 'there is no usable policy';
    return (inventory: Inventory) => fallbackDecisions(inventory, why);
  }
  const compiled = compilePolicy(policy);
  const critical = policy.bootCritical.map((one) => one.name);
  return (inventory, phase): readonly Decision[] => {
    const decisions = decide(compiled, inventory, {}, { phase });
    return withheld === null ? decisions : onlyBootCritical(decisions, critical, withheld);
  };
}

/** modprobe of the initramfs knows its compression and its index; ours reads plain trees. */
async function findModprobe(files: Files): Promise<readonly string[] | null> {
  const there = async (path: string) => {
    const one = await files.read(path, 1);
    return one.ok || one.error.code === 'file-too-large';
  };
  for (const path of MODPROBES) if (await there(path)) return [path];
  return (await there(PARTS.busybox)) ? [PARTS.busybox, 'modprobe'] : null;
}

async function release(files: Files): Promise<string> {
  const bytes = await files.read('/proc/sys/kernel/osrelease', 256);
  return bytes.ok ? asciiText(bytes.value).trim() : '';
}
