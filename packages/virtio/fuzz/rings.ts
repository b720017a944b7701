/**
 * Hostile ring states against both sides of both rings, from a seed:
 *
 *     tools/node packages/virtio/fuzz/rings.ts [STATES [SEED]]
 *
 * Prints how many were tried and what came of them; ends with 1 and the seed when anything escapes.
 */

import { fuzzDriver } from './hostile-device.ts';
import { fuzzDevice } from './hostile-driver.ts';
import { seeded, Tally } from './tally.ts';

export interface FuzzPart {
  readonly name: string;
  readonly tally: Tally;
}

/** A quarter of `states` for each side of each ring. Throws on the first thing that escapes. */
export function fuzzRings(states: number, seed: number): FuzzPart[] {
  const parts = [
    { name: 'split ring, device side', run: fuzzDevice, packed: false },
    { name: 'packed ring, device side', run: fuzzDevice, packed: true },
    { name: 'split ring, driver side', run: fuzzDriver, packed: false },
    { name: 'packed ring, driver side', run: fuzzDriver, packed: true },
  ];
  return parts.map(({ name, run, packed }, i) => {
    const tally = new Tally();
    run(packed, Math.ceil(states / parts.length), seeded(seed * 4 + i + 1), tally);
    return { name, tally };
  });
}

if (import.meta.main) {
  const states = Number(process.argv[2] ?? 12_000_000);
  const seed = Number(process.argv[3] ?? 1);
  try {
    const parts = fuzzRings(states, seed);
    for (const { name, tally } of parts) {
      process.stdout.write(`${name}: ${tally.states} hostile states\n`);
      for (const [what, count] of [...tally.seen].sort((a, b) => b[1] - a[1])) {
        process.stdout.write(`  ${String(count).padStart(9)}  ${what}\n`);
      }
    }
    const total = parts.reduce((sum, { tally }) => sum + tally.states, 0);
    process.stdout.write(`${total} hostile states, none escaped (seed ${seed})\n`);
  } catch (error) {
    process.stderr.write(`seed ${seed}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
    process.exitCode = 1;
  }
}
