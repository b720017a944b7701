/**
 * Building blocks of the language: each knows how to read one kind of value out of a document, and how JSON Schema
 * describes it. The decoder and schema/policy.schema.json come from the same description, so they cannot drift apart.
 */
import { nearest } from '@airlock/core/nearest.ts';
import type { Position, Problem } from '@airlock/core/result.ts';
import type { Node, ScalarNode } from './document.ts';
import type { PolicyErrorCode } from './errors.ts';

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };
export type Schema = { readonly [key: string]: Json };

export type Report = (problem: Problem) => void;

/** `read` returns undefined only after it has reported why. */
export interface Shape<T> {
  readonly schema: Schema;
  read(node: Node, report: Report): T | undefined;
}

export function complain(
  report: Report,
  code: PolicyErrorCode,
  message: string,
  at: Position,
  hint?: string,
): undefined {
  report({ code, message, at, ...(hint === undefined ? {} : { hint }) });
  return undefined;
}

/** What stands there, for messages: `a list`, `the number 12`, `"abc"`. Long text is cut. */
export function describeNode(node: Node): string {
  if (node.kind !== 'scalar') return node.kind === 'list' ? 'a list' : 'a map';
  if (node.value === null) return 'nothing';
  if (typeof node.value === 'number') return `the number ${cut(node.text ?? String(node.value))}`;
  if (typeof node.value === 'boolean') return String(node.value);
  return JSON.stringify(cut(node.value));
}

function cut(text: string): string {
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

/** Text as it was written, of a scalar that is text or a number. */
export function scalarText(node: ScalarNode): string | undefined {
  if (typeof node.value === 'string') return node.value;
  if (typeof node.value === 'number') return node.text ?? String(node.value);
  return undefined;
}

function didYouMean(word: string, candidates: Iterable<string>): string | undefined {
  const near = nearest(word, candidates);
  return near === undefined ? undefined : `did you mean ${near}?`;
}

interface TextOptions {
  /** Follows "expected" in messages. */
  readonly what: string;
  readonly max: number;
  readonly pattern?: string;
  readonly hint?: string;
}

export function text(options: TextOptions): Shape<string> {
  return textAs(options, (value) => value);
}

/** Text that `accept` turns into a value; it returns undefined for what it does not take. */
export function textAs<T>(options: TextOptions, accept: (text: string) => T | undefined): Shape<T> {
  const pattern = options.pattern === undefined ? undefined : new RegExp(options.pattern);
  return {
    schema: {
      type: 'string',
      minLength: 1,
      maxLength: options.max,
      ...(options.pattern === undefined ? {} : { pattern: options.pattern }),
    },
    read(node, report) {
      if (node.kind !== 'scalar' || typeof node.value !== 'string') {
        const written = node.kind === 'scalar' && node.value !== null ? (scalarText(node) ?? String(node.value)) : '';
        const hint = written === '' ? options.hint : `write "${cut(written)}" in quotes to make it text`;
        return complain(report, 'wrong-type', `expected ${options.what}, found ${describeNode(node)}`, node.at, hint);
      }
      const bad = (why: string) =>
        complain(
          report,
          'bad-value',
          `expected ${options.what}, found ${describeNode(node)}${why}`,
          node.at,
          options.hint,
        );
      if (node.value === '') return bad('');
      if (node.value.length > options.max) return bad(`: longer than ${options.max} characters`);
      if (pattern !== undefined && !pattern.test(node.value)) return bad('');
      const value = accept(node.value);
      return value === undefined ? bad('') : value;
    },
  };
}

/** One of a list of words. `yes`, `no`, `on`, `off` are text in YAML 1.2 and land here as such. */
export function word<const W extends string>(what: string, words: readonly W[]): Shape<W> {
  return {
    schema: { enum: words },
    read(node, report) {
      if (node.kind !== 'scalar' || typeof node.value !== 'string') {
        return complain(
          report,
          'wrong-type',
          `expected ${what}, found ${describeNode(node)}`,
          node.at,
          list(words, 'one of'),
        );
      }
      const value = node.value;
      const found = words.find((one) => one === value);
      if (found !== undefined) return found;
      return complain(
        report,
        'unknown-name',
        `${describeNode(node)} is not ${what}`,
        node.at,
        didYouMean(value, words) ?? list(words, 'one of'),
      );
    },
  };
}

/** Text or number, read by `parse` as it was written. `near` gives candidates for "did you mean". */
export function notation<T>(options: {
  readonly what: string;
  readonly schema: Schema;
  readonly parse: (text: string) => T | undefined;
  readonly near?: () => Iterable<string>;
  readonly hint?: (text: string) => string | undefined;
}): Shape<T> {
  return {
    schema: options.schema,
    read(node, report) {
      const written = node.kind === 'scalar' ? scalarText(node) : undefined;
      if (written === undefined) {
        return complain(report, 'wrong-type', `expected ${options.what}, found ${describeNode(node)}`, node.at);
      }
      const value = written.length > 128 ? undefined : options.parse(written);
      if (value !== undefined) return value;
      const near = options.near === undefined ? undefined : didYouMean(written, options.near());
      return complain(
        report,
        options.near === undefined || /^[0-9]/.test(written) ? 'bad-value' : 'unknown-name',
        `expected ${options.what}, found ${describeNode(node)}`,
        node.at,
        near ?? options.hint?.(written),
      );
    },
  };
}

export function flag(what: string): Shape<boolean> {
  return {
    schema: { type: 'boolean' },
    read(node, report) {
      if (node.kind === 'scalar' && typeof node.value === 'boolean') return node.value;
      return complain(
        report,
        'wrong-type',
        `expected ${what}: true or false, found ${describeNode(node)}`,
        node.at,
        'YAML 1.2: only true and false are so; yes, no, on and off are text',
      );
    },
  };
}

/** `what` names the list's entries: `feature names`. An empty list is an error unless `empty` allows it. */
export function listOf<T>(
  item: Shape<T>,
  options: { readonly what: string; readonly max: number; readonly empty?: boolean },
): Shape<readonly T[]> {
  return {
    schema: {
      type: 'array',
      items: item.schema,
      maxItems: options.max,
      ...(options.empty === true ? {} : { minItems: 1 }),
    },
    read(node, report) {
      if (node.kind !== 'list') {
        const hint = node.kind === 'scalar' && node.value !== null ? 'write it as [ ... ]' : undefined;
        return complain(
          report,
          'wrong-type',
          `expected a list of ${options.what}, found ${describeNode(node)}`,
          node.at,
          hint,
        );
      }
      if (node.items.length === 0 && options.empty !== true) {
        return complain(
          report,
          'bad-value',
          `this list of ${options.what} is empty`,
          node.at,
          'leave the key out instead',
        );
      }
      if (node.items.length > options.max) {
        return complain(report, 'too-many', `more than ${options.max} ${options.what}`, node.at);
      }
      const values: T[] = [];
      let whole = true;
      for (const one of node.items) {
        const value = item.read(one, report);
        if (value === undefined) whole = false;
        else values.push(value);
      }
      return whole ? values : undefined;
    },
  };
}

/** One value, or a list of them that means "any of". */
export function anyOf<T>(item: Shape<T>, what: string): Shape<readonly T[]> {
  const many = listOf(item, { what, max: 256 });
  return {
    schema: { anyOf: [item.schema, many.schema] },
    read(node, report) {
      if (node.kind === 'list') return many.read(node, report);
      const value = item.read(node, report);
      return value === undefined ? undefined : [value];
    },
  };
}

/** The value with the place where it stands. */
export function stated<T extends string>(item: Shape<T>): Shape<{ readonly name: T; readonly at: Position }> {
  return {
    schema: item.schema,
    read(node, report) {
      const name = item.read(node, report);
      return name === undefined ? undefined : { name, at: node.at };
    },
  };
}

/** Changes what was read, or finds more wrong with it (`undefined` after reporting). */
export function mapped<A, B>(
  inner: Shape<A>,
  change: (value: A, at: Position, report: Report) => B | undefined,
): Shape<B> {
  return {
    schema: inner.schema,
    read(node, report) {
      const value = inner.read(node, report);
      return value === undefined ? undefined : change(value, node.at, report);
    },
  };
}

export interface Field<T, R extends boolean> {
  readonly shape: Shape<T>;
  readonly needed: R;
  /** One sentence, for editors and for docs. */
  readonly doc: string;
}

export function needed<T>(shape: Shape<T>, doc: string): Field<T, true> {
  return { shape, needed: true, doc };
}

export function optional<T>(shape: Shape<T>, doc: string): Field<T, false> {
  return { shape, needed: false, doc };
}

type Fields = Readonly<Record<string, Field<unknown, boolean>>>;
export type Read<F extends Fields> = {
  readonly [K in keyof F]: F[K] extends Field<infer T, true>
    ? T
    : F[K] extends Field<infer T, false>
      ? T | undefined
      : never;
};

/** Keys that people bring from other tools or from YAML itself, with what to write here. */
const FOREIGN: Readonly<Record<string, string>> = {
  '<<': 'merge keys are not read: write the values out',
  action: 'write level: disconnected, limited, dma, link or tcb',
  allow: 'write level: limited (or higher) in the rule',
  deny: 'write level: disconnected in the rule',
  name: 'a rule is named by id',
};

/** A map with known keys. Unknown keys, keys that stand twice and missing ones are all reported. */
export function record<F extends Fields>(
  what: string,
  fields: F,
  options: { readonly some?: boolean } = {},
): Shape<Read<F>> {
  const names = Object.keys(fields);
  const properties: Record<string, Json> = {};
  for (const [name, field] of Object.entries(fields)) {
    properties[name] = { description: field.doc, ...field.shape.schema };
  }
  const required = names.filter((name) => fields[name]?.needed === true);
  return {
    schema: {
      type: 'object',
      additionalProperties: false,
      properties,
      ...(required.length === 0 ? {} : { required }),
      ...(options.some === true ? { minProperties: 1 } : {}),
    },
    read(node, report) {
      if (node.kind !== 'map') {
        return complain(report, 'wrong-type', `expected ${what} (a map), found ${describeNode(node)}`, node.at);
      }
      const values: Record<string, unknown> = {};
      const seen = new Map<string, Position>();
      let whole = true;
      for (const { key, keyAt, value } of node.entries) {
        const field = Object.hasOwn(fields, key) ? fields[key] : undefined;
        const before = seen.get(key);
        if (before !== undefined) {
          whole = false;
          complain(
            report,
            'duplicate-key',
            `${JSON.stringify(cut(key))} stands twice`,
            keyAt,
            `first at line ${before.line}`,
          );
          continue;
        }
        seen.set(key, keyAt);
        if (field === undefined) {
          whole = false;
          const foreign = Object.hasOwn(FOREIGN, key) ? FOREIGN[key] : undefined;
          const hint = didYouMean(key, names) ?? foreign ?? list(names, 'keys here:');
          complain(report, 'unknown-key', `unknown key ${JSON.stringify(cut(key))} in ${what}`, keyAt, hint);
          continue;
        }
        const read = field.shape.read(value, report);
        if (read === undefined) whole = false;
        else values[key] = read;
      }
      for (const name of required) {
        if (seen.has(name)) continue;
        whole = false;
        complain(report, 'missing-key', `${what} has no ${name}`, node.at, fields[name]?.doc);
      }
      if (options.some === true && seen.size === 0) {
        whole = false;
        complain(report, 'missing-key', `${what} is empty`, node.at, list(names, 'keys here:'));
      }
      return whole ? (values as Read<F>) : undefined;
    },
  };
}

function list(words: readonly string[], before: string): string {
  const shown = words.length > 12 ? [...words.slice(0, 12), '...'] : words;
  return `${before} ${shown.join(', ')}`;
}
