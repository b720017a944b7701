/**
 * The thread in which a bundle's policy.wasm runs, so that a policy which loops, traps or eats memory takes only this
 * thread with it. Its parent (node-opa.ts) bounds its time and kills it; the memory limit is kept here.
 */
import { type MessagePort, workerData } from 'node:worker_threads';
import { loadPolicy } from '@open-policy-agent/opa-wasm';

export interface WorkerInput {
  readonly port: MessagePort;
  readonly wasm: Uint8Array;
  /** data.json */
  readonly data: string;
  readonly entrypoint: string;
  /** Of 64 KiB each. */
  readonly pages: number;
}

export interface Question {
  readonly id: number;
  /** JSON */
  readonly input: string;
}

export type WorkerReport =
  | { readonly kind: 'ready' }
  | { readonly kind: 'refused'; readonly message: string }
  /** The result set as JSON: `[{"result": …}]`, `[]` for undefined. */
  | { readonly kind: 'answer'; readonly id: number; readonly text: string }
  | { readonly kind: 'failed'; readonly id: number; readonly message: string };

/** Answers are small objects; larger ones are not carried across. */
const ANSWER_LIMIT = 65_536;
const INITIAL_PAGES = 5;

async function serve(input: WorkerInput): Promise<void> {
  const { port, entrypoint } = input;
  const report = (message: WorkerReport) => port.postMessage(message);
  try {
    const open = async () => {
      const policy = await loadPolicy(new Uint8Array(input.wasm), { initial: INITIAL_PAGES, maximum: input.pages });
      const data = new TextEncoder().encode(input.data);
      policy.setData(data.buffer);
      return policy;
    };
    // Code is compiled when it first runs (and then kept for every instance of the same bytes): that time belongs to
    // the start, not to the first device. The instance that has run is thrown away, whatever came of it.
    const trial = await open();
    if (!Object.hasOwn(trial.entrypoints, entrypoint)) throw new Error(`it has no entry point ${entrypoint}`);
    try {
      trial.evaluate({}, entrypoint);
    } catch {}
    const policy = await open();
    port.on('message', ({ id, input: text }: Question) => {
      try {
        const bytes = new TextEncoder().encode(text);
        const answer = JSON.stringify(policy.evaluate(bytes.buffer, entrypoint));
        if (answer.length > ANSWER_LIMIT) report({ kind: 'failed', id, message: 'its answer is too large' });
        else report({ kind: 'answer', id, text: answer });
      } catch (error) {
        report({ kind: 'failed', id, message: words(error) });
      }
    });
    report({ kind: 'ready' });
  } catch (error) {
    report({ kind: 'refused', message: words(error) });
  }
}

/** opa-wasm throws texts, plain objects and errors. */
function words(error: unknown): string {
  if (typeof error === 'string') return error.slice(0, 1000);
  const message = typeof error === 'object' && error !== null && 'message' in error ? error.message : error;
  return String(message).slice(0, 1000);
}

// What a policy prints with print() must not stand between our own lines.
for (const name of ['log', 'error', 'warn', 'info'] as const) console[name] = () => {};
await serve(workerData as WorkerInput);
