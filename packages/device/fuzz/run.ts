/**
 * `tools/node packages/device/fuzz/run.ts [MESSAGES] [SEED]`: that many messages to PCI functions over vfio-user, and as
 * many accesses to their configuration space and BARs. Exits with 1 when a descriptor is left; a throw is a defect.
 */
import { attackFunctions } from './functions.ts';

const [messages = '1000000', seed = String(process.pid)] = process.argv.slice(2);
const started = performance.now();
const tally = await attackFunctions(Number(messages), Number(messages), Number(seed));
const seconds = ((performance.now() - started) / 1000).toFixed(1);
process.stdout.write(
  `${tally.messages} messages over ${tally.connections} connections and ${tally.accesses} accesses in ${seconds} s, seed ${seed}\n`,
);
for (const [code, count] of [...tally.ended].sort(([a], [b]) => (a < b ? -1 : 1))) {
  process.stdout.write(`  ${String(count).padStart(8)}  ${code}\n`);
}
process.stdout.write(`descriptors before and after: ${tally.descriptorsBefore}, ${tally.descriptorsAfter}\n`);
process.exitCode = tally.descriptorsBefore === tally.descriptorsAfter ? 0 : 1;
