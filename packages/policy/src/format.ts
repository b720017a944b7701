/** The one way a policy is laid out: keys in the language's order, two blanks of indentation, comments where they were. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import {
  type Document,
  isMap,
  isPair,
  isScalar,
  isSeq,
  type Pair,
  parseDocument,
  type Scalar,
  type ScalarTag,
  type Tags,
  type YAMLMap,
  type YAMLSeq,
} from 'yaml';
import type { Node } from './document.ts';
import { policyFile } from './language.ts';
import type { Schema } from './shape.ts';
import { readYaml } from './yaml.ts';

/**
 * The text in the house's layout; the same text gives the same result again. Refuses what `readYaml` refuses, with its
 * first problem. What the text says is compared before and after: a difference is `yaml-syntax`, and nothing is given.
 */
export function formatPolicy(text: string, file: string, schema: Schema = policyFile.schema): Result<string> {
  const before = readYaml(text, file);
  if (before.node === undefined) return { ok: false, error: before.problems[0] ?? notRead(file) };
  if (before.node.kind === 'scalar' && before.node.value === null) return { ok: false, error: notRead(file) };
  const [head, rest] = splitHead(text);
  const document = parseDocument(rest, {
    version: '1.2',
    schema: 'core',
    merge: false,
    uniqueKeys: false,
    logLevel: 'silent',
    customTags: houseTags,
  });
  sortKeys(document.contents, schema);
  const result = layOut(head, document);
  const after = readYaml(result, file);
  if (after.node === undefined || meaning(after.node) !== meaning(before.node)) {
    return fail('yaml-syntax', `${file}: cannot be laid out without changing what it says`, {
      hint: 'this is a fault of the formatter; the file is as it was',
    });
  }
  return ok(result);
}

function notRead(file: string) {
  return { code: 'policy-empty', message: `${file}: nothing to format` };
}

type Stringify = NonNullable<ScalarTag['stringify']>;

/** Numbers stay as they were written (0x0108 is not 0x108); `{ a: 1 }` has blanks inside, `[a, b]` has none. */
function houseTags(tags: Tags): Tags {
  const number: Stringify = (item) => (item as Scalar).source ?? String(item.value);
  const collection =
    (padding: string): Stringify =>
    (item, context, onComment, onChompKeep) =>
      (item as unknown as YAMLSeq | YAMLMap).toString(
        { ...context, flowCollectionPadding: padding },
        onComment,
        onChompKeep,
      );
  return tags.map((tag) => {
    if (typeof tag !== 'object') return tag;
    if (tag.tag.endsWith(':int') || tag.tag.endsWith(':float')) return { ...tag, stringify: number };
    if (tag.collection === 'seq' || tag.collection === 'map') {
      return { ...tag, stringify: collection(tag.collection === 'map' ? ' ' : '') };
    }
    return tag;
  }) as Tags;
}

/**
 * A comment belongs to the key below it and moves with it; what is parted from the first key by an empty line, and the
 * line that tells editors the schema, belong to the file and stay at its top.
 */
function splitHead(text: string): readonly [head: string, rest: string] {
  const lines = text.split('\n');
  const end = lines.findIndex((line) => !/^[ \t]*(#.*)?\r?$/.test(line));
  const leading = lines.slice(0, end === -1 ? 0 : end);
  const empty = leading.findLastIndex((line) => line.trim() === '');
  const editor = leading.findLastIndex((line) => /^[ \t]*# *yaml-language-server:/.test(line));
  const cut = Math.max(empty, editor) + 1;
  return [
    leading
      .slice(0, cut)
      .map((line) => `${line.trim()}\n`)
      .join(''),
    lines.slice(cut).join('\n'),
  ];
}

function layOut(head: string, document: Document.Parsed): string {
  const text = document.toString({
    indent: 2,
    indentSeq: true,
    lineWidth: 0,
    minContentWidth: 0,
    flowCollectionPadding: true,
    nullStr: '~',
  });
  return `${head}${text}`
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n')
    .replace(/\n{3,}/g, '\n\n')
    .replace(/^\n+/, '')
    .replace(/\n*$/, '\n');
}

/** Known keys in the order of the schema, unknown ones after them as they stood. */
function sortKeys(node: unknown, schema: Schema | undefined): void {
  if (schema === undefined) return;
  if (isSeq(node)) {
    const items = variant(schema, 'items');
    for (const item of node.items) sortKeys(item, items?.['items'] as Schema | undefined);
    return;
  }
  if (!isMap(node)) return;
  const shape = variant(schema, 'properties');
  const properties = (shape?.['properties'] ?? {}) as Record<string, Schema>;
  const order = Object.keys(properties);
  const rank = (pair: Pair) => {
    const at = order.indexOf(keyOf(pair));
    return at === -1 ? order.length : at;
  };
  const first = node.items[0];
  node.items.sort((a, b) => rank(a) - rank(b));
  // An empty line before a key that now comes first would part the map from what it belongs to.
  const now = node.items[0];
  if (now !== first && isPair(now) && isScalar(now.key)) now.key.spaceBefore = false;
  for (const pair of node.items) {
    const key = keyOf(pair);
    if (Object.hasOwn(properties, key)) sortKeys(pair.value, properties[key]);
  }
}

function keyOf(pair: Pair): string {
  return isScalar(pair.key) ? String(pair.key.value) : '';
}

/** The schema itself or the one of its alternatives that has the keyword. */
function variant(schema: Schema, keyword: string): Schema | undefined {
  if (Object.hasOwn(schema, keyword)) return schema;
  const alternatives = schema['anyOf'];
  if (!Array.isArray(alternatives)) return undefined;
  return alternatives.find((one) => Object.hasOwn(one as Schema, keyword)) as Schema | undefined;
}

/** What a document says, without places and without the order of keys. */
function meaning(node: Node): string {
  if (node.kind === 'scalar') return JSON.stringify([node.value, node.text ?? null]);
  if (node.kind === 'list') return `[${node.items.map(meaning).join(',')}]`;
  const entries = node.entries.map((entry) => `${JSON.stringify(entry.key)}:${meaning(entry.value)}`);
  return `{${entries.sort().join(',')}}`;
}
