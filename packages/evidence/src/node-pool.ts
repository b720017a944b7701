/**
 * Verification on every core: `recognise` and `appraise` in worker threads, each of which remembers keys and chains for
 * itself. What is handed over is bytes, what comes back is the report.
 */

import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { AppraiseOptions } from './appraise.ts';
import type { Report } from './check.ts';

export interface PoolFile {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** Without what cannot be handed to another thread. */
export type PoolOptions = Omit<AppraiseOptions, 'crypto'>;

export interface PoolAnswer {
  /** Null where the files held no evidence. */
  readonly report: Omit<Report, 'files' | 'problems'> | null;
  readonly problems: Report['problems'];
}

export interface VerifierPool {
  readonly size: number;
  /** Codes: `verifier-gone` when the thread ended, or the pool was closed. */
  verify(files: readonly PoolFile[], options: PoolOptions): Promise<Result<PoolAnswer>>;
  close(): Promise<void>;
}

/** What goes to a worker and what comes back. */
export interface PoolQuestion {
  readonly id: number;
  readonly files: readonly PoolFile[];
  readonly options: PoolOptions;
}
export interface PoolReply {
  readonly id: number;
  readonly answer: PoolAnswer;
}

interface Thread {
  readonly worker: Worker;
  readonly waiting: Map<number, (answer: Result<PoolAnswer>) => void>;
  gone: boolean;
}

const THREAD_LIMIT = 64;

/** `collateral` is read by every thread once. `size` threads, else one a core. */
export function createVerifierPool({
  collateral = [],
  size = availableParallelism(),
}: {
  readonly collateral?: readonly PoolFile[];
  readonly size?: number;
} = {}): VerifierPool {
  const threads = Array.from({ length: Math.max(1, Math.min(size, THREAD_LIMIT)) }, () => startThread(collateral));
  let next = 0;
  return {
    size: threads.length,
    verify(files, options) {
      const able = threads.filter(({ gone }) => !gone);
      const thread = able.reduce<Thread | undefined>(
        (best, one) => (best === undefined || one.waiting.size < best.waiting.size ? one : best),
        undefined,
      );
      if (thread === undefined) return Promise.resolve(fail('verifier-gone', 'no thread of the pool is left'));
      const id = next++;
      return new Promise((resolve) => {
        thread.waiting.set(id, resolve);
        // Only while somebody waits does it keep the process alive.
        thread.worker.ref();
        const question: PoolQuestion = { id, files, options };
        thread.worker.postMessage(question);
      });
    },
    async close() {
      await Promise.all(
        threads.map(async (thread) => {
          end(thread, 'the pool was closed');
          await thread.worker.terminate();
        }),
      );
    },
  };
}

function startThread(collateral: readonly PoolFile[]): Thread {
  const worker = new Worker(new URL('./node-pool-worker.ts', import.meta.url), { workerData: collateral });
  const thread: Thread = { worker, waiting: new Map(), gone: false };
  worker.on('message', ({ id, answer }: PoolReply) => {
    const resolve = thread.waiting.get(id);
    thread.waiting.delete(id);
    if (thread.waiting.size === 0) worker.unref();
    resolve?.(ok(answer));
  });
  worker.on('error', (error) => end(thread, error instanceof Error ? error.message : 'the thread failed'));
  worker.on('exit', () => end(thread, 'the thread ended'));
  worker.unref();
  return thread;
}

/** Nobody waits for a thread that is no more. */
function end(thread: Thread, why: string): void {
  thread.gone = true;
  for (const resolve of thread.waiting.values()) resolve(fail('verifier-gone', why));
  thread.waiting.clear();
}
