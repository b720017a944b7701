/** The agent on a real machine (or below another root): its hands, its clock, its socket. */
import { lstat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Device } from '@airlock/core/device.ts';
import type { Event } from '@airlock/core/event.ts';
import { ok, type Problem, type Result } from '@airlock/core/result.ts';
import type { Files } from '@airlock/linux/files.ts';
import { nodeCommands } from '@airlock/linux/node-commands.ts';
import { nodeFiles } from '@airlock/linux/node-files.ts';
import { compilePolicy } from '@airlock/policy/compile.ts';
import { openExternal } from '@airlock/policy/external/node-external.ts';
import type { Policy } from '@airlock/policy/policy.ts';
import { peerOf } from '@airlock/transport/peer.ts';
import { pollingSource } from '@airlock/transport/polling.ts';
import { notifyService } from '@airlock/transport/service-notify.ts';
import { loadSystemCalls, type SystemCalls } from '@airlock/transport/system-calls.ts';
import { openUeventSocket } from '@airlock/transport/uevent-socket.ts';
import type { UeventSource } from '@airlock/transport/uevents.ts';
import { type Agent, makeAgent } from './agent.ts';
import { type AgentPolicy, judgeByFallback, readGatePolicy } from './agent-policy.ts';
import type { Attestation } from './attester.ts';
import { readBootTime } from './clock.ts';
import { type Conduct, conductAs } from './conduct.ts';
import { openDecisionLog } from './decision-log.ts';
import { readEarlier } from './earlier.ts';
import { type Judge, judgeBy } from './judge.ts';
import { serveControl } from './node-control-server.ts';
import { POWER_OFF } from './power.ts';
import { STATE } from './state.ts';
import type { Status } from './status.ts';

export interface RunOptions {
  /** `/`, or a folder that stands for a machine. */
  readonly root: string;
  /** A policy that was named; otherwise the one that the gate used. */
  readonly policy?: AgentPolicy;
  readonly enforce: boolean;
  /** One look (and with `enforce` one correction), no waiting for more. */
  readonly once: boolean;
  readonly signal: AbortSignal;
  /** NOTIFY_SOCKET, when a service manager waits for word. */
  readonly notifySocket?: string;
  readonly event: (event: Event) => void;
  /** What a person who starts it should know. */
  readonly say: (text: string) => void;
  /** How devices are asked who they are; not given: nobody is asked. */
  readonly attestation?: (policy: Policy) => Promise<Attestation>;
  /** Milliseconds between looks where uevents cannot be heard. */
  readonly poll?: number;
}

const POLL = 2000;

/**
 * Runs until `signal` ends it; gives the status at the end. Codes: `agent-without-policy`, `agent-running`,
 * `control-socket`. Below the real `/` nothing but the state in /run/airlock and /var/lib/airlock is written unless
 * `enforce` is set and the policy is in enforce mode, or learning is over; below any other root nothing runs a program.
 */
export async function runAgent(options: RunOptions): Promise<Result<Status>> {
  const real = options.root === '/';
  const reading = nodeFiles({ root: options.root, writes: 'nothing' });
  const chosen = options.policy === undefined ? await readGatePolicy(reading) : ok(options.policy);
  if (!chosen.ok) return chosen;
  const { policy, mode, problems } = chosen.value;
  const time = await readBootTime(reading);
  const conduct = conductAs(
    { ...(policy?.learnFor === undefined ? {} : { learnFor: policy.learnFor }), mode, enforce: options.enforce },
    time.ok ? time.value.uptime : null,
  );
  if (!conduct.enforcing) options.say(conduct.whyNot);

  const files = filesAs(conduct, options.root);
  const log = await openDecisionLog(files, () => Date.now());
  log.listen(options.event);
  const calls = await loadSystemCalls();
  const source = options.once || !real ? noSource(options, real) : openSource(calls, options);

  const external =
    policy?.external === undefined ? null : await openExternal(policy.external, dirname(policy.external.at.file));
  const judge: Judge =
    policy === null
      ? judgeByFallback(problems[0]?.message ?? 'there is no usable policy')
      : judgeBy(compilePolicy(policy), {}, external?.engine ?? null);
  const notify = (state: string): void => {
    if (options.notifySocket !== undefined && calls.ok) notifyService(calls.value, options.notifySocket, state);
  };

  const agent = makeAgent({
    hands: { files, commands: nodeCommands(), modprobe: real ? ['modprobe'] : null },
    judge,
    attestation: policy === null ? undefined : await options.attestation?.(policy),
    conduct,
    on: policy?.on ?? {},
    powerOff: real ? POWER_OFF : null,
    wait: (milliseconds) => sleep(milliseconds),
    incarnation: (device) => incarnationBelow(options.root, device),
    disableModules: policy?.modules.disableLoading === 'after-gate',
    earlier: await readEarlier(files),
    log,
    source,
    policy: policy?.files ?? [],
    alive: () => notify('WATCHDOG=1'),
  });
  const trouble: readonly Problem[] = [...problems, ...(external?.problem ? [external.problem] : [])];
  for (const problem of trouble) log.add({ kind: 'policy-problem', problem });

  const server = await serve(options, agent, calls, conduct);
  if (!server.ok) {
    source.close();
    await external?.engine.close();
    return server;
  }
  await agent.start();
  notify('READY=1');
  if (options.once) {
    await agent.asked();
    await agent.status();
  }
  if (!options.once) await ended(options.signal);
  notify('STOPPING=1');
  const last = agent.report();
  await server.value.close();
  await agent.close(options.once ? 'one look was asked for' : `${String(options.signal.reason ?? 'ended')}`);
  await external?.engine.close();
  return ok(last);
}

/** Hands that change the machine only while the agent enforces, and its own state always. */
function filesAs(conduct: Conduct, root: string): Files {
  const watching = nodeFiles({ root, writes: 'state' });
  const acting = nodeFiles({ root, writes: 'everything' });
  const now = () => (conduct.enforcing ? acting : watching);
  return {
    ...watching,
    write: (path, data, offset) => now().write(path, data, offset),
    save: (path, data, mode) => now().save(path, data, mode),
    append: (path, data) => now().append(path, data),
  };
}

/** The control socket; an agent that only watches, and will never do more, goes on without one. */
async function serve(
  options: RunOptions,
  agent: Agent,
  calls: Result<SystemCalls>,
  conduct: Conduct,
): Promise<Result<{ close(): Promise<void> }>> {
  const path = join(options.root, STATE.socket);
  const server = await serveControl(path, {
    answer: (request) => agent.answer(request),
    watch: (since, send) => agent.watch(since, send),
    peer: (fd) => {
      const peer = calls.ok ? peerOf(calls.value, fd) : calls;
      return peer.ok ? peer.value.uid : null;
    },
  });
  const acts = conduct.enforcing || (options.enforce && conduct.changesAt !== undefined);
  if (server.ok || acts || server.error.code === 'agent-running') return server;
  options.say(`no control socket: ${server.error.message}`);
  return ok({ close: async () => undefined });
}

function openSource(calls: Result<SystemCalls>, options: RunOptions): UeventSource {
  const socket = calls.ok ? openUeventSocket(calls.value) : calls;
  if (socket.ok) return socket.value;
  const interval = options.poll ?? POLL;
  options.say(`${socket.error.message}; looking at everything every ${interval / 1000} s instead`);
  return pollingSource(interval, `polling: ${socket.error.message}`);
}

function noSource(options: RunOptions, real: boolean): UeventSource {
  if (!options.once && !real)
    options.say(`${options.root} has no uevents; looking at everything every ${(options.poll ?? POLL) / 1000} s`);
  return pollingSource(options.poll ?? POLL, real ? 'one look' : 'polling: not the root of this machine');
}

/** sysfs gives every coming of a device an inode number of its own. */
async function incarnationBelow(root: string, device: Device): Promise<string | undefined> {
  try {
    return String((await lstat(join(root, device.path), { bigint: true })).ino);
  } catch {
    return undefined;
  }
}

function ended(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
