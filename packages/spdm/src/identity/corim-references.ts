/** Reference values of a device out of a CoRIM: triples whose measurement key is an SPDM measurement index. */
import type { Corim, CorimMeasurement } from '@airlock/evidence/corim/corim.ts';
import type { ReferenceRule, ReferenceSet, ReferenceValue } from './references.ts';

export interface CorimReferences {
  readonly references: ReferenceSet;
  /** Triples that are for something else, by name. */
  readonly left: readonly string[];
}

/**
 * Triples of one index are alternatives; of one triple the digests are alternatives too, because they are of one thing in
 * several algorithms. Measurements that no triple is for are refused, as with values of one's own.
 */
export function corimReferences(corim: Corim, source: string): CorimReferences {
  const values: ReferenceValue[] = [];
  const left: string[] = [];
  for (const one of corim.references) {
    const { key } = one;
    const rules = rulesOf(one);
    const name = nameOf(one, corim.id);
    if (typeof key === 'number' && Number.isInteger(key) && key >= 1 && key <= 0xfe && rules.length > 0)
      values.push({ name, index: key, type: null, rules });
    else left.push(name);
  }
  return { references: { source, values, unlisted: 'refuse' }, left };
}

function nameOf({ environment, version, name, key }: CorimMeasurement, id: string): string {
  const words = [environment.vendor, environment.model, name, version].filter((word) => word !== null).join(' ');
  return `${words === '' ? id : words} (${key ?? 'no key'})`;
}

function rulesOf({ digests, raw, svn }: CorimMeasurement): readonly ReferenceRule[] {
  const rules: ReferenceRule[] = [];
  if (digests.length > 0) rules.push({ kind: 'digest', digests });
  if (raw !== null) rules.push({ kind: 'raw', ...raw });
  if (svn !== null) rules.push({ kind: 'number', number: BigInt(svn.value), least: svn.least });
  return rules;
}
