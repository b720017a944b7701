/**
 * `tools/node packages/spdm/fuzz/run.ts [COUNT] [SEED]`: 1,000,000 mutated messages unless told otherwise: most of them
 * through the readers, one in ten to a responder, one in a hundred to a requester in a whole exchange; prints how
 * many.
 */
import { makeCorpus, newTally, runReaders, runRequester, runResponder } from './campaign.ts';

const [count = 1_000_000, seed = 1] = process.argv.slice(2).map(Number);
if (!Number.isInteger(count) || !Number.isInteger(seed) || count < 1) {
  process.stderr.write('usage: tools/node packages/spdm/fuzz/run.ts [COUNT] [SEED]\n');
  process.exit(2);
}
const BATCH = 10_000;
const corpus = makeCorpus();
const tally = newTally();
const start = performance.now();
for (let done = 0; done < count; done += BATCH) {
  const batch = Math.min(BATCH, count - done);
  const here = seed + done / BATCH;
  runResponder(corpus, here, Math.ceil(batch / 10), tally);
  runRequester(corpus, here, Math.ceil(batch / 100), tally);
  runReaders(corpus, here, batch - Math.ceil(batch / 10) - Math.ceil(batch / 100), tally);
  if (process.stderr.isTTY) process.stderr.write(`\r${done + batch} mutations`);
}
const seconds = (performance.now() - start) / 1000;
const megabytes = Math.round(process.memoryUsage().rss / 1e6);
const { readers, taken, requests, answers, refused, same } = tally;
process.stdout.write(
  `${readers + requests + answers} mutated messages in ${seconds.toFixed(1)} s, seed ${seed}, ${megabytes} MB: nothing threw, every reason had a code\n` +
    `  through the readers: ${readers}, ${readers - taken} refused\n` +
    `  to a responder: ${requests}, each answered\n` +
    `  to a requester: ${answers}, ${refused} refused, ${same} changed nothing, none believed\n` +
    `${[...tally.codes]
      .sort((a, b) => b[1] - a[1])
      .map(([code, times]) => `  ${code} ${times}`)
      .join('\n')}\n`,
);
