/** The checks that `--allow` may waive, by their ids. */
import { nearest } from '@airlock/core/nearest.ts';
import { CHECKS, type CheckId } from '@airlock/evidence/catalogue.ts';
import { printable } from '@airlock/linux/attribute.ts';
import { UsageError } from './verb.ts';

/** The check of this id. Throws UsageError for one that there is not, or without which evidence proves nothing. */
export function waivableCheck(id: string): CheckId {
  const waivable = (Object.keys(CHECKS) as CheckId[]).filter((one) => CHECKS[one].waivable === true);
  const known = waivable.find((one) => one === id);
  if (known !== undefined) return known;
  if (Object.hasOwn(CHECKS, id)) throw new UsageError(`--allow ${id}: without this check evidence proves nothing`);
  const near = nearest(id, waivable);
  throw new UsageError(`--allow ${printable(id)}: no such check${near === undefined ? '' : `; did you mean ${near}?`}`);
}
