/** YAML text to a document. The only file that knows YAML; the boot gate does without it. */
import type { Position, Problem } from '@airlock/core/result.ts';
import { isAlias, isMap, isScalar, isSeq, LineCounter, type ParsedNode, parseAllDocuments, visit } from 'yaml';
import { DEPTH_LIMIT, type MapEntry, type Node } from './document.ts';
import type { PolicyErrorCode } from './errors.ts';

/** Characters of one file; a thousand well-commented rules are about a third of it. */
export const TEXT_LIMIT = 512 * 1024;

/** Of one text. After so many the rest follows from the first. */
const PROBLEM_LIMIT = 100;

/**
 * YAML 1.2 with the core schema: `no`, `on` and `yes` are text, `0o17` and `0x1f` numbers. Anchors, aliases, merge keys
 * and tags are refused. Gives a node exactly when `problems` is empty. Codes: `yaml-*`.
 */
export function readYaml(text: string, file: string): { readonly node?: Node; readonly problems: Problem[] } {
  const problems: Problem[] = [];
  const lines = new LineCounter();
  const at = (offset: number): Position => {
    const { line, col } = lines.linePos(offset);
    return { file, line: Math.max(line, 1), column: Math.max(col, 1) };
  };
  const start: Position = { file, line: 1, column: 1 };
  const wrong = (code: PolicyErrorCode, message: string, where: Position, hint?: string) => {
    problems.push({ code, message, at: where, ...(hint === undefined ? {} : { hint }) });
  };

  if (text.length > TEXT_LIMIT) {
    wrong('yaml-too-large', `more than ${TEXT_LIMIT} characters`, start);
    return { problems };
  }
  const control = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]/.exec(text);
  if (control !== null) {
    const before = text.slice(0, control.index).split('\n');
    wrong('yaml-syntax', `control character 0x${control[0].charCodeAt(0).toString(16).padStart(2, '0')}`, {
      file,
      line: before.length,
      column: (before[before.length - 1]?.length ?? 0) + 1,
    });
    return { problems };
  }
  // `%YAML 1.1` would turn `no` into false.
  if (/^\ufeff?(?:[ \t]*(?:#.*)?\r?\n)*%/.test(text)) {
    wrong('yaml-directive', 'a directive (%) begins the file', start, 'remove it: this is YAML 1.2');
    return { problems };
  }
  // The parser descends into what it reads: refuse what would exhaust its stack before it starts.
  const deep = tooDeep(text);
  if (deep !== undefined) {
    wrong('yaml-too-deep', `nested deeper than ${DEPTH_LIMIT} levels`, { file, line: deep, column: 1 });
    return { problems };
  }

  let documents: ReturnType<typeof parseAllDocuments<ParsedNode>>;
  try {
    documents = parseAllDocuments<ParsedNode>(text, {
      version: '1.2',
      schema: 'core',
      merge: false,
      uniqueKeys: false,
      strict: true,
      stringKeys: false,
      prettyErrors: false,
      lineCounter: lines,
      logLevel: 'silent',
    });
  } catch (error) {
    wrong('yaml-too-deep', `cannot be parsed: ${error instanceof Error ? error.name : 'unknown'}`, start);
    return { problems };
  }
  if (!Array.isArray(documents) || documents.length === 0) {
    return { node: { kind: 'scalar', value: null, at: start }, problems };
  }
  const [document, second] = documents;
  if (document === undefined) return { node: { kind: 'scalar', value: null, at: start }, problems };
  for (const error of documents.flatMap((one) => [...one.errors, ...one.warnings])) {
    const tag = error.code === 'TAG_RESOLVE_FAILED';
    const where = at(error.pos[0]);
    // One unclosed bracket is reported once for each level that it leaves open.
    const last = problems[problems.length - 1]?.at;
    if (last?.line === where.line && last.column === where.column) continue;
    wrong(tag ? 'yaml-tag' : 'yaml-syntax', plain(error.message), where);
    if (problems.length >= PROBLEM_LIMIT) break;
  }
  if (second !== undefined) {
    wrong('yaml-many-documents', 'a second document begins here', at(second.range[0]), 'one file, one document');
  }
  if (problems.length > 0) return { problems };

  visit(document, (_key, node) => {
    if (problems.length >= PROBLEM_LIMIT) return visit.BREAK;
    if (isAlias(node)) {
      wrong('yaml-alias', `alias *${node.source}`, at(node.range?.[0] ?? 0), 'write the value out');
    } else if ((isScalar(node) || isMap(node) || isSeq(node)) && node.range) {
      if (node.anchor !== undefined) {
        wrong('yaml-alias', `anchor &${node.anchor}`, at(node.range[0]), 'anchors are not read; remove it');
      }
      // Parsed nodes get the tag of their type filled in; one that was written stands in the source.
      if (node.tag !== undefined)
        wrong('yaml-tag', `tag ${node.tag}`, at(node.range[0]), 'tags are not read; remove it');
    }
    return undefined;
  });
  if (problems.length > 0) return { problems };

  const root = document.contents;
  const node = root === null ? ({ kind: 'scalar', value: null, at: start } as const) : convert(root, 0);
  return problems.length > 0 || node === undefined ? { problems } : { node, problems };

  function convert(source: unknown, depth: number): Node | undefined {
    if (depth > DEPTH_LIMIT) {
      wrong('yaml-too-deep', `nested deeper than ${DEPTH_LIMIT} levels`, start);
      return undefined;
    }
    if (source === null || source === undefined) return { kind: 'scalar', value: null, at: start };
    if (isScalar(source)) {
      const where = at(source.range?.[0] ?? 0);
      const value = source.value;
      if (typeof value === 'number') {
        const written = source.source ?? String(value);
        return { kind: 'scalar', value, at: where, ...(written === String(value) ? {} : { text: written }) };
      }
      if (value === null || typeof value === 'string' || typeof value === 'boolean') {
        return { kind: 'scalar', value, at: where };
      }
      wrong('yaml-syntax', 'a value of unknown kind', where);
      return undefined;
    }
    if (isSeq(source)) {
      const items = source.items.map((item) => convert(item, depth + 1));
      const whole = items.filter((item) => item !== undefined);
      return { kind: 'list', items: whole, at: at(source.range?.[0] ?? 0) };
    }
    if (isMap(source)) {
      const where = at(source.range?.[0] ?? 0);
      const entries: MapEntry[] = [];
      for (const pair of source.items) {
        const key = pair.key;
        const keyAt = isScalar(key) || isMap(key) || isSeq(key) ? at(key.range?.[0] ?? 0) : where;
        if (!isScalar(key) || (typeof key.value !== 'string' && typeof key.value !== 'number')) {
          wrong('yaml-key', 'a key must be plain text', keyAt);
          continue;
        }
        if (key.value === '<<') {
          wrong('yaml-merge-key', 'merge keys are not read', keyAt, 'write the values out');
          continue;
        }
        const found =
          pair.value === null ? ({ kind: 'scalar', value: null, at: keyAt } as const) : convert(pair.value, depth + 1);
        if (found !== undefined) entries.push({ key: String(key.value), keyAt, value: found });
      }
      return { kind: 'map', entries, at: where };
    }
    wrong('yaml-syntax', 'a value of unknown kind', start);
    return undefined;
  }
}

/**
 * The first line on which more flow brackets or more `- ` in a row are open than any policy needs, quotes and comments
 * not considered: both are counted where they could be structure, and the limit is generous.
 */
function tooDeep(text: string): number | undefined {
  let flow = 0;
  let line = 1;
  const limit = 64;
  for (const row of text.split('\n')) {
    for (const character of row) {
      if (character === '[' || character === '{') flow++;
      else if (character === ']' || character === '}') flow = Math.max(0, flow - 1);
      if (flow > limit) return line;
    }
    if (/^ *(?:[-?:] +){40}/.test(row) || /^ {2000}/.test(row)) return line;
    line++;
  }
  return undefined;
}

/** The parser's words in one line, as a message among ours. */
function plain(message: string): string {
  return message
    .replace(/\s+/g, ' ')
    .replace(/[^\x20-\x7e]/g, '?')
    .slice(0, 200);
}
