/** One thread of a verifier pool. */
import { parentPort, workerData } from 'node:worker_threads';
import { appraise } from './appraise.ts';
import { nodeCrypto } from './node-crypto.ts';
import type { PoolFile, PoolQuestion, PoolReply } from './node-pool.ts';
import { recognise } from './recognise.ts';

const crypto = nodeCrypto();
const collateral = (workerData as readonly PoolFile[]).flatMap(({ name, bytes }) => recognise(name, bytes).found);

parentPort?.on('message', ({ id, files, options }: PoolQuestion) => {
  const looked = files.map(({ name, bytes }) => ({ name, ...recognise(name, bytes) }));
  const reply: PoolReply = {
    id,
    answer: {
      report: appraise(
        looked.flatMap(({ found }) => found),
        collateral,
        { ...options, crypto },
      ),
      problems: looked.flatMap(({ name, problems }) => problems.map((problem) => ({ file: name, problem }))),
    },
  };
  parentPort?.postMessage(reply);
});
