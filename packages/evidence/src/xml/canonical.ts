/**
 * Canonical XML 1.1 without comments (W3C, 2008), inclusive, of one element of a tree that `readXml` gave: what that
 * refuses (comments, processing instructions, xml: attributes) has no rules here.
 */
import { asciiBytes } from '../bytes.ts';
import type { XmlElement } from './document.ts';

export interface CanonicalOptions {
  /** Namespaces in scope around the element, by prefix. */
  readonly scope?: ReadonlyMap<string, string>;
  /** Left out with all that it holds: the enveloped signature. */
  readonly without?: XmlElement;
}

/** ASCII bytes, since the tree is ASCII; a numeric reference to anything else gives `null`. */
export function canonicalBytes(element: XmlElement, options: CanonicalOptions = {}): Uint8Array | null {
  const parts: string[] = [];
  write(parts, element, new Map([['', '']]), new Map([['', ''], ...(options.scope ?? [])]), options.without);
  const text = parts.join('');
  return /[^\x00-\x7f]/.test(text) ? null : asciiBytes(text);
}

/** `rendered`: what the output declares so far; `scope`: what holds in the document. */
function write(
  parts: string[],
  element: XmlElement,
  rendered: ReadonlyMap<string, string>,
  scope: ReadonlyMap<string, string>,
  without: XmlElement | undefined,
): void {
  const inner = new Map([...scope, ...element.declared]);
  const now = new Map(rendered);
  const name = element.prefix === '' ? element.local : `${element.prefix}:${element.local}`;
  parts.push('<', name);
  // §2.2: the default namespace first, then by prefix; none that an ancestor of the output declares alike.
  for (const prefix of [...inner.keys()].sort(order)) {
    const namespace = inner.get(prefix) ?? '';
    if ((now.get(prefix) ?? null) === namespace) continue;
    now.set(prefix, namespace);
    parts.push(prefix === '' ? ' xmlns="' : ` xmlns:${prefix}="`, escapeAttribute(namespace), '"');
  }
  // By namespace, then by local name; those without a namespace come first.
  const attributes = [...element.attributes].sort((a, b) => order(a.namespace, b.namespace) || order(a.local, b.local));
  for (const { prefix, local, value } of attributes)
    parts.push(' ', prefix === '' ? local : `${prefix}:${local}`, '="', escapeAttribute(value), '"');
  parts.push('>');
  for (const child of element.children) {
    if (typeof child === 'string') parts.push(escapeText(child));
    else if (child !== without) write(parts, child, now, inner, without);
  }
  parts.push('</', name, '>');
}

function order(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function escapeText(text: string): string {
  return text.replace(/[&<>\r]/g, (letter) =>
    letter === '&' ? '&amp;' : letter === '<' ? '&lt;' : letter === '>' ? '&gt;' : '&#xD;',
  );
}

const ATTRIBUTE: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '"': '&quot;',
  '\t': '&#x9;',
  '\n': '&#xA;',
  '\r': '&#xD;',
};

function escapeAttribute(text: string): string {
  return text.replace(/[&<"\t\n\r]/g, (letter) => ATTRIBUTE[letter] ?? letter);
}
