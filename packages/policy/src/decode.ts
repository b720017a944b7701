/** From documents to a policy, strictly: everything that is wrong is reported, and a policy with a problem is none. */
import type { Problem } from '@airlock/core/result.ts';
import type { Node } from './document.ts';
import { policyFile, RULE_LIMIT } from './language.ts';
import { mergeParts, type PolicyPart } from './merge.ts';
import type { Policy } from './policy.ts';

/** More of them help nobody; the rest is counted. */
export const PROBLEM_LIMIT = 100;

/**
 * `documents` are in merge order: the main file, then its drop-ins. Gives a policy exactly when `problems` is empty.
 * Codes: all of `POLICY_ERRORS` but those of YAML text and files.
 */
export function decodePolicy(documents: readonly Node[]): { readonly policy?: Policy; readonly problems: Problem[] } {
  const problems: Problem[] = [];
  const parts: PolicyPart[] = [];
  if (documents.length === 0) {
    problems.push({ code: 'policy-empty', message: 'no policy document' });
  }
  for (const node of documents) {
    if (node.kind === 'scalar' && node.value === null) {
      problems.push({ code: 'policy-empty', message: 'the file is empty', at: node.at, hint: 'start with version: 1' });
      continue;
    }
    const body = policyFile.read(node, (problem) => problems.push(problem));
    if (body === undefined || node.kind !== 'map') continue;
    const keys = new Map(node.entries.map((entry) => [entry.key, entry.keyAt]));
    parts.push({ file: node.at.file, body, keys });
  }
  // Rules of files that do not parse are unknown, so nothing more can be said of the whole.
  if (problems.length > 0) return { problems: limited(inOrder(problems, documents)) };
  const merged = mergeParts(parts);
  const count = merged.policy?.rules.length ?? 0;
  if (count > RULE_LIMIT) {
    merged.problems.push({ code: 'too-many', message: `${count} rules, more than ${RULE_LIMIT}` });
    return { problems: merged.problems };
  }
  return { ...merged, problems: limited(merged.problems) };
}

function limited(problems: Problem[]): Problem[] {
  const more = problems.length - PROBLEM_LIMIT;
  if (more <= 0) return problems;
  return [...problems.slice(0, PROBLEM_LIMIT), { code: 'too-many', message: `${more} more problems` }];
}

/** By file (in merge order), line and column, as people read. */
function inOrder(problems: Problem[], documents: readonly Node[]): Problem[] {
  const files = documents.map((node) => node.at.file);
  const rank = (problem: Problem) => (problem.at === undefined ? -1 : files.indexOf(problem.at.file));
  return problems.sort(
    (a, b) => rank(a) - rank(b) || (a.at?.line ?? 0) - (b.at?.line ?? 0) || (a.at?.column ?? 0) - (b.at?.column ?? 0),
  );
}
