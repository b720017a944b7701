/**
 * Compiled OPA bundles, run in a thread of their own under a time limit and a memory limit. The thread lives on between
 * decisions; when the policy loops, traps, outgrows its memory or answers something else than it may, the device is
 * denied, and where the thread cannot be trusted any more a new one takes its place.
 */
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads';
import type { Claims } from '@airlock/core/claim.ts';
import type { Decision } from '@airlock/core/decision.ts';
import type { Inventory } from '@airlock/core/device.ts';
import { isConnected } from '@airlock/core/level.ts';
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import { type Bundle, readBundle } from './bundle.ts';
import type { ExternalEngine } from './engine.ts';
import { externalInput, narrowDecision, printable, readAnswer, refuseDecision } from './narrow.ts';
import { gunzipBounded } from './node-gunzip.ts';
import type { Question, WorkerInput, WorkerReport } from './opa-worker.ts';
import { type Verification, verifyBundle } from './signatures.ts';

export interface BundleOptions {
  /** `airlock/narrow` */
  readonly entrypoint: string;
  /** Null accepts a bundle without signatures, and only such. */
  readonly verify: Verification | null;
  /** Milliseconds for one decision; 100 when not given. */
  readonly timeout?: number;
  /** Milliseconds for loading the policy into a thread; 10 000 when not given. */
  readonly startTimeout?: number;
  /** Milliseconds for all decisions of one call of `narrow`, starts included; 30 000 when not given. */
  readonly budget?: number;
  /** Bytes of memory for the policy, its data included; 64 MiB when not given. */
  readonly memory?: number;
}

/** Beside this file with the same ending; who bundles this file (esbuild) makes opa-worker.ts an entry point as well. */
const WORKER = `./opa-worker${/\.[a-z]+$/.exec(import.meta.url)?.[0] ?? '.ts'}`;
const PAGE = 65_536;
/** Devices describe themselves in far less; more is not worth a policy's time. */
const INPUT_LIMIT = 262_144;
/** Threads that one call of `narrow` may lose before it stops asking. */
const LOSSES = 3;

/**
 * Reads, verifies and starts a bundle. Codes: those of `readBundle` and `verifyBundle`, `bundle-entrypoint-missing`,
 * `engine-not-started`.
 */
export async function openBundle(bytes: Uint8Array, options: BundleOptions): Promise<Result<ExternalEngine>> {
  const bundle = await readBundle(bytes, gunzipBounded);
  if (!bundle.ok) return bundle;
  const verified = await verifyBundle(bundle.value, options.verify);
  if (!verified.ok) return verified;
  const { entrypoint } = options;
  if (!bundle.value.entrypoints.includes(entrypoint)) {
    const built = bundle.value.entrypoints.slice(0, 5).map(printable).join(', ') || 'none';
    return fail('bundle-entrypoint-missing', `the bundle has no entry point ${entrypoint}`, {
      hint: `it was built with: ${built}; opa build -t wasm -e ${entrypoint}`,
    });
  }
  const engine = new OpaEngine(bundle.value, options);
  const started = await engine.start();
  return started.ok ? ok(engine) : started;
}

class OpaEngine implements ExternalEngine {
  readonly name: string;
  readonly #bundle: Bundle;
  readonly #options: BundleOptions;
  #thread: Thread | null = null;
  #closed = false;
  /** Calls wait for one another: there is one thread. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(bundle: Bundle, options: BundleOptions) {
    this.#bundle = bundle;
    this.#options = options;
    this.name = `opa ${options.entrypoint}`;
  }

  async start(): Promise<Result<Thread>> {
    if (this.#closed) return fail('engine-closed', 'the engine was closed');
    if (this.#thread !== null) return ok(this.#thread);
    const { wasm, data } = this.#bundle;
    const pages = Math.max(1, Math.floor((this.#options.memory ?? 64 << 20) / PAGE));
    let thread: Thread;
    try {
      thread = startThread({ wasm, data, entrypoint: this.#options.entrypoint, pages });
    } catch (error) {
      return fail('engine-not-started', `there is no thread for the policy: ${printable(String(error))}`);
    }
    const ready = await thread.next(this.#options.startTimeout ?? 10_000);
    if (ready.ok && ready.value.kind === 'ready') {
      this.#thread = thread;
      return ok(thread);
    }
    await thread.stop();
    const because = !ready.ok
      ? ready.error.message
      : ready.value.kind === 'refused'
        ? printable(ready.value.message)
        : 'it spoke before it was ready';
    return fail('engine-not-started', `the policy could not be loaded: ${because}`);
  }

  narrow(decisions: readonly Decision[], inventory: Inventory, claims: Claims): Promise<Decision[]> {
    const turn = this.#turn
      .then(() => this.#narrowAll(decisions, inventory, claims))
      .catch((error: unknown) => {
        const problem = { code: 'engine-crashed', message: `${this.name}: ${printable(String(error))}` };
        return decisions.map((decision) => refuseDecision(decision, problem));
      });
    this.#turn = turn;
    return turn;
  }

  async #narrowAll(decisions: readonly Decision[], inventory: Inventory, claims: Claims): Promise<Decision[]> {
    const devices = new Map(inventory.devices.map((device) => [device.id, device]));
    const end = performance.now() + (this.#options.budget ?? 30_000);
    let losses = 0;
    const narrowed: Decision[] = [];
    for (const decision of decisions) {
      if (!isConnected(decision.level)) {
        narrowed.push(decision);
        continue;
      }
      const device = devices.get(decision.device);
      const claim = Object.hasOwn(claims, decision.device) ? claims[decision.device] : undefined;
      const asked: Result<unknown> =
        device === undefined
          ? fail('engine-crashed', 'the device is not in the inventory that the engine sees')
          : losses >= LOSSES
            ? fail('engine-crashed', `not asked: the external policy failed ${LOSSES} times in this round`)
            : performance.now() >= end
              ? fail('engine-slow', 'not asked: the external policy used up its time for this round')
              : await this.#ask(JSON.stringify(externalInput(decision, device, claim, inventory.kernel)));
      const answer = asked.ok ? readAnswer(asked.value) : asked;
      if (!asked.ok && this.#thread === null) losses++;
      narrowed.push(
        answer.ok
          ? narrowDecision(decision, answer.value, this.name)
          : refuseDecision(decision, this.#signed(answer.error)),
      );
    }
    return narrowed;
  }

  /** Whose words they are. */
  #signed(problem: Problem): Problem {
    return { ...problem, message: `${this.name}: ${problem.message}` };
  }

  /** The value of the entry point for one input; undefined where it has none. Loses the thread when that fails. */
  async #ask(input: string): Promise<Result<unknown>> {
    if (input.length > INPUT_LIMIT)
      return fail('engine-crashed', 'the description of the device is too long to ask about');
    const thread = await this.start();
    if (!thread.ok) return thread;
    const timeout = this.#options.timeout ?? 100;
    const id = thread.value.ask(input);
    const report = await thread.value.next(timeout);
    if (report.ok && report.value.kind === 'answer' && report.value.id === id) {
      const results: unknown = JSON.parse(report.value.text);
      if (Array.isArray(results) && results.length === 0) return ok(undefined);
      const only: unknown = Array.isArray(results) && results.length === 1 ? results[0] : undefined;
      if (typeof only === 'object' && only !== null && 'result' in only) return ok(only.result);
      return fail('engine-answer-wrong', 'the answer is not a result set');
    }
    // What ran into a limit or threw may have left its memory in any state.
    this.#thread = null;
    await thread.value.stop();
    if (!report.ok) return report;
    const because = report.value.kind === 'failed' ? printable(report.value.message) : 'it spoke out of turn';
    return fail('engine-crashed', `the policy failed: ${because}`);
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#turn;
    const thread = this.#thread;
    this.#thread = null;
    await thread?.stop();
  }
}

interface Thread {
  /** Sends a question; its id. */
  ask(input: string): number;
  /** What the thread says next. Codes: `engine-slow`, `engine-crashed`. */
  next(timeout: number): Promise<Result<WorkerReport>>;
  stop(): Promise<void>;
}

function startThread(policy: Omit<WorkerInput, 'port'>): Thread {
  const { port1: port, port2 } = new MessageChannel();
  const workerData: WorkerInput = { ...policy, port: port2 };
  const worker = new Worker(new URL(WORKER, import.meta.url), {
    workerData,
    transferList: [port2],
    // JavaScript's own memory; the policy's is bounded by `pages`.
    resourceLimits: { maxOldGenerationSizeMb: 128, maxYoungGenerationSizeMb: 16, stackSizeMb: 4 },
    // Nothing of ours: no environment, no flags, no way to our output (nobody reads its streams, and opa-worker.ts
    // silences the console; reading them would keep the program alive).
    env: {},
    argv: [],
    execArgv: [],
    stdout: true,
    stderr: true,
  });
  let died: string | null = null;
  let wake: (() => void) | null = null;
  const die = (because: string) => {
    died ??= because;
    wake?.();
  };
  worker.on('error', (error) => die(error instanceof Error ? error.message : String(error)));
  worker.on('exit', () => die('its thread ended'));
  // An idle engine keeps no program alive.
  worker.unref();
  port.unref();
  let last = 0;
  return {
    ask(input) {
      const question: Question = { id: ++last, input };
      port.postMessage(question);
      return question.id;
    },
    next: (timeout) =>
      listen(
        port,
        timeout,
        () => died,
        (call) => {
          wake = call;
        },
      ),
    async stop() {
      port.close();
      await worker.terminate();
    },
  };
}

/** One message, the end of the thread, or the end of the time, whichever is first. */
async function listen(
  port: MessagePort,
  timeout: number,
  died: () => string | null,
  onWake: (call: (() => void) | null) => void,
): Promise<Result<WorkerReport>> {
  const arrived = await new Promise<WorkerReport | null>((resolve) => {
    const done = (report: WorkerReport | null) => {
      clearTimeout(timer);
      port.off('message', done);
      port.unref();
      onWake(null);
      resolve(report);
    };
    const timer = setTimeout(() => {
      // Our own event loop may have been busy: an answer that is there counts.
      const waiting = receiveMessageOnPort(port);
      done(waiting === undefined ? null : (waiting.message as WorkerReport));
    }, timeout);
    port.on('message', done);
    onWake(() => done((receiveMessageOnPort(port)?.message as WorkerReport | undefined) ?? null));
    if (died() !== null) done(null);
  });
  if (arrived !== null) return ok(arrived);
  const because = died();
  return because === null
    ? fail('engine-slow', `no answer within ${timeout} ms`, {
        hint: 'raise external.timeout-ms, or ask less of the policy',
      })
    : fail('engine-crashed', `its thread ended: ${printable(because)}`);
}
