/** YAML, or JSON, of the user's as plain values: for documents whose shape somebody else checks. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { Node } from '@airlock/policy/document.ts';
import { readYaml } from '@airlock/policy/yaml.ts';

/** An empty file gives null. Codes: `yaml-*`, and `twice` for a key that stands twice. */
export function readPlainYaml(text: string, name: string, twice: string): Result<unknown> {
  const { node, problems } = readYaml(text, name);
  const [problem] = problems;
  if (problem !== undefined) return { ok: false, error: problem };
  return node === undefined ? ok(null) : plainOf(node, twice);
}

/** A key that stands twice would hide one of two values. */
function plainOf(node: Node, twice: string): Result<unknown> {
  if (node.kind === 'scalar') return ok(node.value);
  if (node.kind === 'list') {
    const items: unknown[] = [];
    for (const one of node.items) {
      const item = plainOf(one, twice);
      if (!item.ok) return item;
      items.push(item.value);
    }
    return ok(items);
  }
  const map: Record<string, unknown> = {};
  for (const { key, keyAt, value } of node.entries) {
    if (Object.hasOwn(map, key)) return fail(twice, `${key} stands twice`, { at: keyAt });
    const plain = plainOf(value, twice);
    if (!plain.ok) return plain;
    Object.defineProperty(map, key, { value: plain.value, enumerable: true });
  }
  return ok(map);
}
