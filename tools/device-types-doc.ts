/**
 * Writes docs/device-types.md from real runs: tools/node tools/device-types-doc.ts [RUNS.json [KERNEL TRANSPORT]]
 * With RUNS.json the outcomes are kept there, so that runs can be made one at a time.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CHECKOUT, KERNELS } from '@airlock/lab/cache.ts';
import { bootBench, DEVICE_TRANSPORTS, runCase } from '@airlock/lab/device-bench.ts';
import { DEVICE_CASES } from '@airlock/lab/device-cases.ts';
import { type DeviceRun, deviceTypesDocument } from '@airlock/lab/device-types-doc.ts';
import { prepareDriverGuest } from '@airlock/lab/driver-guest.ts';

const [file, kernel, ...transport] = process.argv.slice(2);
const runs: DeviceRun[] = file !== undefined && existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : [];

for (const series of KERNELS) {
  if (kernel !== undefined && kernel !== series) continue;
  // Of this kernel the drivers that Debian does not build are built too.
  const images = await prepareDriverGuest(series, (line) => void process.stderr.write(`${line}\n`), series === '7.2');
  if (!images.ok) throw new Error(`${series}: ${images.error.message} [${images.error.code}]`);
  for (const one of DEVICE_TRANSPORTS) {
    if (transport.length > 0 && transport.join(' ') !== one) continue;
    runs.push(await run(series, one, images.value));
    if (file !== undefined) writeFileSync(file, JSON.stringify(runs));
  }
}
writeFileSync(join(CHECKOUT, 'docs/device-types.md'), deviceTypesDocument(runs));

type Images = Extract<Awaited<ReturnType<typeof prepareDriverGuest>>, { ok: true }>['value'];

async function run(series: DeviceRun['series'], way: DeviceRun['transport'], images: Images): Promise<DeviceRun> {
  const outcomes: DeviceRun['outcomes'][number][] = [];
  let guest = await bootBench(images);
  for (const [index, one] of DEVICE_CASES.entries()) {
    // Slots of a plain run fill up, and a case that failed may leave anything behind: the next has a guest of its own.
    const last = outcomes.at(-1);
    const full = way === 'vfio-user plain' && index > 0 && index % 6 === 0;
    if (full || (last?.done.ok === false && last.excused === null)) {
      if (guest.ok) await guest.value.end();
      guest = await bootBench(images);
    }
    if (!guest.ok) throw new Error(`${series}: ${guest.error.message} [${guest.error.code}]`);
    const outcome = await runCase(guest.value, images.kernel, way, one, index);
    const said = outcome.done.ok ? outcome.done.value : outcome.done.error.message;
    process.stderr.write(`${series} ${way} ${one.type}: ${said.slice(0, 200)}\n`);
    outcomes.push(outcome);
  }
  if (guest.ok) await guest.value.end();
  return { series, release: images.kernel.release, transport: way, outcomes };
}
