/**
 * One policy out of several files: the main one first, then the drop-ins in byte order of their names. Rules and lists
 * are put one after the other; what can have only one value may be set by one file only, so nothing is ever overridden
 * silently.
 */
import type { Position, Problem } from '@airlock/core/result.ts';
import type { Answer, policyFile } from './language.ts';
import type { Action, Policy, Rule, Violation } from './policy.ts';
import type { Shape } from './shape.ts';

type Body = typeof policyFile extends Shape<infer T> ? T : never;

export interface PolicyPart {
  readonly file: string;
  readonly body: Body;
  /** Where each top-level key stands. */
  readonly keys: ReadonlyMap<string, Position>;
}

export function mergeParts(parts: readonly PolicyPart[]): { readonly policy?: Policy; readonly problems: Problem[] } {
  const problems: Problem[] = [];
  const setBy = new Map<string, Position>();

  function only<K extends keyof Body>(key: K): Body[K] | undefined {
    let value: Body[K] | undefined;
    for (const part of parts) {
      const at = part.keys.get(key);
      if (at === undefined || part.body[key] === undefined) continue;
      const before = setBy.get(key);
      if (before !== undefined) {
        problems.push(setTwice(key, at, before));
        continue;
      }
      setBy.set(key, at);
      value = part.body[key];
    }
    return value;
  }

  const mode = only('mode');
  const learn = only('learn');
  const level = only('default');
  const defaultGrant = only('default-grant');
  const modules = only('modules');
  const external = only('external');

  if (mode?.name === 'learn' && learn === undefined) {
    problems.push({
      code: 'keys-conflict',
      message: 'mode learn needs an end',
      at: mode.at,
      hint: 'add learn: { for: 30m }; after that the policy is enforced',
    });
  }
  if (mode?.name !== 'learn' && learn !== undefined) {
    const at = setBy.get('learn');
    problems.push({
      code: 'keys-conflict',
      message: 'learn without mode: learn has no effect',
      ...(at === undefined ? {} : { at }),
    });
  }

  const on: Partial<Record<Violation, readonly Action[]>> = {};
  const onAt: Partial<Record<Violation, Position>> = {};
  for (const part of parts) {
    for (const [name, { actions, at }] of Object.entries(part.body.on ?? {}) as [Violation, Answer][]) {
      const before = onAt[name];
      if (before !== undefined) problems.push(setTwice(`on: ${name}`, at, before));
      else {
        onAt[name] = at;
        on[name] = actions;
      }
    }
  }

  const rules: Rule[] = [];
  const byId = new Map<string, Rule>();
  for (const one of parts.flatMap((part) => part.body.rules ?? [])) {
    const before = byId.get(one.id);
    if (before !== undefined) {
      problems.push({
        code: 'duplicate-id',
        message: `another rule has the id ${one.id} too`,
        at: one.at,
        hint: `first at ${before.at.file}:${before.at.line}`,
      });
      continue;
    }
    byId.set(one.id, one);
    rules.push(one);
  }

  // One whole statement: parts of two would mean what neither file says.
  const attestations = parts.flatMap((part) => part.body.platform?.attestation ?? []);
  const [attestation, second] = attestations;
  if (attestation !== undefined && second !== undefined)
    problems.push(setTwice('platform.attestation', second.at, attestation.at));

  if (problems.length > 0) return { problems };
  return {
    problems,
    policy: {
      version: 1,
      files: parts.map((part) => part.file),
      mode: mode?.name ?? 'enforce',
      ...(learn === undefined ? {} : { learnFor: learn.for }),
      default: level ?? 'disconnected',
      defaultGrant: defaultGrant ?? 'disconnected',
      platform: {
        require: parts.flatMap((part) => part.body.platform?.require ?? []),
        forbid: parts.flatMap((part) => part.body.platform?.forbid ?? []),
        ...(attestation === undefined ? {} : { attestation }),
      },
      bootCritical: parts.flatMap((part) => part.body['boot-critical'] ?? []),
      rules,
      on,
      onAt,
      modules: { disableLoading: modules?.['disable-loading'] ?? 'never' },
      ...(external === undefined ? {} : { external }),
    },
  };
}

function setTwice(what: string, at: Position, before: Position): Problem {
  return {
    code: 'set-twice',
    message: `${what} is set by two files`,
    at,
    hint: `first at ${before.file}:${before.line}; only rules, boot-critical and platform add up`,
  };
}
