/**
 * A policy file as a tree with positions: what YAML text becomes before the language is applied to it. Plain JSON, so
 * that the boot gate can carry it and put it through the same strict decoder without a YAML parser.
 */
import { fail, ok, type Position, type Result } from '@airlock/core/result.ts';

export interface ScalarNode {
  readonly kind: 'scalar';
  readonly value: string | number | boolean | null;
  readonly at: Position;
  /** For numbers: as it was written, where that differs from the value's own text (`0x0108`). */
  readonly text?: string;
}

export interface ListNode {
  readonly kind: 'list';
  readonly items: readonly Node[];
  readonly at: Position;
}

export interface MapEntry {
  readonly key: string;
  readonly keyAt: Position;
  readonly value: Node;
}

export interface MapNode {
  readonly kind: 'map';
  /** In the order of the file; a key that stands twice is here twice. */
  readonly entries: readonly MapEntry[];
  readonly at: Position;
}

export type Node = ScalarNode | ListNode | MapNode;

export const DEPTH_LIMIT = 24;
/** Nodes of one document; a policy of a thousand rules has about 20,000. */
export const NODE_LIMIT = 100_000;
/** Files of one policy. */
export const DOCUMENT_LIMIT = 256;

/** The documents of a policy, in merge order, as one JSON text: what the boot gate carries. */
export function packDocuments(documents: readonly Node[]): string {
  return JSON.stringify({ version: 1, documents });
}

/** The reverse of `packDocuments`, for text that somebody else may have written. Code: `document-malformed`. */
export function unpackDocuments(text: string): Result<readonly Node[]> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return malformed('not JSON');
  }
  if (!isObject(value) || value['version'] !== 1 || !Array.isArray(value['documents'])) {
    return malformed('no list of documents of version 1');
  }
  if (value['documents'].length > DOCUMENT_LIMIT) return malformed(`more than ${DOCUMENT_LIMIT} documents`);
  const budget = { nodes: NODE_LIMIT };
  const documents: Node[] = [];
  for (const one of value['documents']) {
    const node = toNode(one, 0, budget);
    if (node === undefined) return malformed('a node of unknown shape, too deep or too large');
    documents.push(node);
  }
  return ok(documents);
}

function malformed(what: string): Result<never> {
  return fail('document-malformed', `compiled policy: ${what}`, {
    hint: 'make it again from the YAML files; it is not meant to be edited',
  });
}

function toNode(value: unknown, depth: number, budget: { nodes: number }): Node | undefined {
  if (!isObject(value) || depth > DEPTH_LIMIT || budget.nodes-- <= 0) return undefined;
  const at = toPosition(value['at']);
  if (at === undefined) return undefined;
  if (value['kind'] === 'scalar') return toScalar(value, at);
  if (value['kind'] === 'list' && Array.isArray(value['items'])) {
    const items: Node[] = [];
    for (const one of value['items']) {
      const item = toNode(one, depth + 1, budget);
      if (item === undefined) return undefined;
      items.push(item);
    }
    return { kind: 'list', items, at };
  }
  if (value['kind'] === 'map' && Array.isArray(value['entries'])) {
    const entries: MapEntry[] = [];
    for (const one of value['entries']) {
      if (!isObject(one) || typeof one['key'] !== 'string') return undefined;
      const keyAt = toPosition(one['keyAt']);
      const inner = toNode(one['value'], depth + 1, budget);
      if (keyAt === undefined || inner === undefined) return undefined;
      entries.push({ key: one['key'], keyAt, value: inner });
    }
    return { kind: 'map', entries, at };
  }
  return undefined;
}

function toScalar(value: Readonly<Record<string, unknown>>, at: Position): ScalarNode | undefined {
  const plain = value['value'];
  const text = value['text'];
  if (plain !== null && !['string', 'number', 'boolean'].includes(typeof plain)) return undefined;
  if (text !== undefined && (typeof text !== 'string' || typeof plain !== 'number')) return undefined;
  return { kind: 'scalar', value: plain as ScalarNode['value'], at, ...(text === undefined ? {} : { text }) };
}

function toPosition(value: unknown): Position | undefined {
  if (!isObject(value)) return undefined;
  const { file, line, column } = value;
  if (typeof file !== 'string' || typeof line !== 'number' || typeof column !== 'number') return undefined;
  return { file, line, column };
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
