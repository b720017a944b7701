/**
 * `tools/node packages/evidence/fuzz/run.ts [COUNT] [SEED]`: 1,000,000 mutations unless told otherwise, one in a
 * hundred of them with all signatures verified; prints how many.
 */
import { newTally, runCampaign, runReaders } from './campaign.ts';
import { makeTargets } from './targets.ts';

const [count = 1_000_000, seed = 1] = process.argv.slice(2).map(Number);
if (!Number.isInteger(count) || !Number.isInteger(seed) || count < 1) {
  process.stderr.write('usage: tools/node packages/evidence/fuzz/run.ts [COUNT] [SEED]\n');
  process.exit(2);
}
const BATCH = 10_000;
const WHOLE = 100;
const targets = makeTargets();
const readers = newTally();
const tally = newTally();
const start = performance.now();
for (let done = 0; done < count; done += BATCH) {
  const batch = Math.min(BATCH, count - done);
  const whole = Math.ceil(batch / WHOLE);
  runReaders(targets, seed + done / BATCH, batch - whole, readers);
  runCampaign(targets, seed + done / BATCH, whole, tally);
  if (process.stderr.isTTY) process.stderr.write(`\r${readers.mutations + tally.mutations} mutations`);
}
const seconds = (performance.now() - start) / 1000;
const megabytes = Math.round(process.memoryUsage().rss / 1e6);
process.stdout.write(
  `${readers.mutations + tally.mutations} mutations in ${seconds.toFixed(1)} s, seed ${seed}, ${megabytes} MB: nothing threw, every reason had a code\n` +
    `  through the readers: ${readers.mutations}, ${readers.refused} refused\n` +
    `  with all signatures: ${tally.mutations}, ${tally.rejected} rejected, ${tally.unchanged} changed nothing that counts\n` +
    `${[...readers.codes]
      .sort((a, b) => b[1] - a[1])
      .map(([code, times]) => `  ${code} ${times}`)
      .join('\n')}\n`,
);
