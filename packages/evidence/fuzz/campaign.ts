/**
 * Mutations of evidence through the same door as `airlock verify`. What must hold: nothing throws, every problem has a
 * code of the catalogue, and nothing that changed what is signed is accepted with other claims than the original's.
 * Readers alone are a hundred times as fast as readers and signatures, so most mutations go through those only.
 */
import type { Problem } from '@airlock/core/result.ts';
import { type AppraiseOptions, appraise } from '../src/appraise.ts';
import { isCorim, readCorim } from '../src/corim/corim.ts';
import { EVIDENCE_ERRORS } from '../src/errors.ts';
import { recognise } from '../src/recognise.ts';
import { referencesOfCorim } from '../src/references.ts';
import { mutate, seeded } from './mutate.ts';

export interface Target {
  readonly name: string;
  /** The first is mutated, or all in turn; the rest stands beside it. */
  readonly files: readonly Uint8Array[];
  /** Of the files the last: a CoRIM that the evidence is held against. */
  readonly reference?: true;
  readonly options: AppraiseOptions;
}

export interface Tally {
  mutations: number;
  /** Not recognised, or refused by a reader. */
  refused: number;
  rejected: number;
  /** Accepted with the claims of the original: what changed was nobody's (padding, text around PEM). */
  unchanged: number;
  /** Codes that were given, with how often. */
  readonly codes: Map<string, number>;
}

export const newTally = (): Tally => ({ mutations: 0, refused: 0, rejected: 0, unchanged: 0, codes: new Map() });

/** Throws with seed and number of the mutation when something does not hold. */
export function runCampaign(targets: readonly Target[], seed: number, count: number, tally: Tally = newTally()): Tally {
  const random = seeded(seed);
  const all = targets.flatMap(({ files }) => files);
  const originals = targets.map((target) => claimsOf(target, target.files));
  for (let i = 0; i < count; i++) {
    const index = random() % targets.length;
    const target = targets[index];
    if (target === undefined) continue;
    const which = random() % target.files.length;
    const files = target.files.map((file, at) => (at === which ? mutate(random, file, all) : file));
    tally.mutations++;
    const here = `seed ${seed}, mutation ${i}, ${target.name}, file ${which}`;
    let claims: string | null;
    try {
      claims = claimsOf(target, files, tally);
    } catch (error) {
      throw new Error(`${here}: ${error instanceof Error ? error.stack : String(error)}`);
    }
    if (claims === null) tally.rejected++;
    else if (claims === originals[index]) tally.unchanged++;
    else throw new Error(`${here}: accepted with other claims`);
  }
  return tally;
}

/** As `runCampaign`, through the readers only. */
export function runReaders(targets: readonly Target[], seed: number, count: number, tally: Tally = newTally()): Tally {
  const random = seeded(seed);
  const all = targets.flatMap(({ files }) => files);
  for (let i = 0; i < count; i++) {
    const file = mutate(random, all[random() % all.length] ?? new Uint8Array(), all);
    tally.mutations++;
    try {
      const { problems } = recognise('file', file);
      const corim = isCorim(file) ? readCorim(file) : null;
      if (corim?.ok === false) countCodes([corim.error], tally);
      else if (corim !== null) referencesOfCorim(corim.value, 'corim');
      countCodes(problems, tally);
      if (problems.length > 0) tally.refused++;
    } catch (error) {
      throw new Error(`readers, seed ${seed}, mutation ${i}: ${error instanceof Error ? error.stack : String(error)}`);
    }
  }
  return tally;
}

function countCodes(problems: readonly Problem[], tally: Tally): void {
  for (const { code } of problems) {
    if (!(code in EVIDENCE_ERRORS)) throw new Error(`code ${code} is in no catalogue`);
    tally.codes.set(code, (tally.codes.get(code) ?? 0) + 1);
  }
}

/** Verdict and claims of accepted evidence; null for what is rejected. */
function claimsOf(target: Target, files: readonly Uint8Array[], tally?: Tally): string | null {
  const corim = target.reference === true ? readCorim(files[files.length - 1] ?? new Uint8Array()) : null;
  const read = (corim === null ? files : files.slice(0, -1)).map((file, i) => recognise(`file ${i}`, file));
  const problems = [...read.flatMap((one) => one.problems), ...(corim?.ok === false ? [corim.error] : [])];
  if (tally !== undefined) countCodes(problems, tally);
  if (problems.length > 0 && tally !== undefined) tally.refused++;
  const report = appraise(
    read.flatMap(({ found }) => found),
    [],
    corim?.ok === true ? { ...target.options, references: [referencesOfCorim(corim.value, 'corim')] } : target.options,
  );
  JSON.stringify(report);
  if (report?.verdict !== 'accepted' || problems.length > 0) return null;
  // What a log tells besides explains quoted values and is nobody's word: less of it, or other names, changes nothing.
  return JSON.stringify(report.appraisals.map(({ kind, claims }) => [kind, { ...claims, events: null }]));
}
