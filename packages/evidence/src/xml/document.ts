/**
 * XML from strangers, in the plain form that signed manifests have: ASCII, no DTD, no entities but the predefined ones,
 * no comments, processing instructions or CDATA. What canonical XML would leave out or write anew is refused, so that
 * what is read and what is signed cannot be two things.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { type Attr, DOMParser, type Element, type Node } from '@xmldom/xmldom';
import { latin1 } from '../bytes.ts';

export interface XmlAttribute {
  /** Empty for an attribute without a prefix, which has no namespace. */
  readonly prefix: string;
  readonly local: string;
  readonly namespace: string;
  readonly value: string;
}

export interface XmlElement {
  readonly prefix: string;
  readonly local: string;
  readonly namespace: string;
  readonly attributes: readonly XmlAttribute[];
  /** Namespaces that this element declares, by prefix; the default one under the empty prefix. */
  readonly declared: ReadonlyMap<string, string>;
  readonly children: readonly (XmlElement | string)[];
}

export const XML_LIMIT = 1024 * 1024;
const DEPTH_LIMIT = 16;
const ELEMENT_LIMIT = 4096;
const ATTRIBUTE_LIMIT = 64;
const ELEMENT = 1;
const TEXT = 3;
const NAME = /^[A-Za-z_][A-Za-z0-9_.-]{0,127}$/;

/** The root element, with nothing but blanks around it. Codes: `xml-invalid`. */
export function readXml(bytes: Uint8Array): Result<XmlElement> {
  const wrong = (what: string) => fail('xml-invalid', what);
  if (bytes.length > XML_LIMIT) return wrong(`${bytes.length} bytes`);
  // Line ends are one character to every reader of XML (XML 1.0 §2.11).
  const text = latin1(bytes)
    .replace(/\r\n?/g, '\n')
    .replace(
      /^<\?xml version="1\.0"(?: encoding="(?:utf-8|UTF-8|US-ASCII|us-ascii)")?(?: standalone="(?:yes|no)")? ?\?>/,
      '',
    );
  const strange = /[^\t\n\x20-\x7e]/.exec(text);
  if (strange !== null) return wrong(`a character that is not ASCII, at ${strange.index}`);
  const markup = /<[!?]/.exec(text);
  if (markup !== null) return wrong(`a DTD, comment, CDATA section or processing instruction, at ${markup.index}`);
  const entity = /&(?!(?:amp|lt|gt|quot|apos|#x?[0-9a-fA-F]{1,6});)/.exec(text);
  if (entity !== null) return wrong(`an entity that is not predefined, at ${entity.index}`);
  const depth = depthOf(text);
  if (depth === Number.POSITIVE_INFINITY) return wrong('a tag without an end');
  if (depth > DEPTH_LIMIT) return wrong(`nested deeper than ${DEPTH_LIMIT}`);
  try {
    const parser = new DOMParser({
      locator: false,
      onError: (level, message) => {
        throw new Error(`${level}: ${message}`);
      },
    });
    const root = parser.parseFromString(text, 'text/xml').documentElement;
    if (root === null) return wrong('no element');
    const count = { elements: 0, attributes: 0 };
    const found = readElement(root, new Map([['', '']]), count);
    if (typeof found === 'string') return wrong(found);
    // A parser that joins two attributes of one name, or mends a tag, must not decide what was meant.
    const written = countTags(text);
    if (written.elements !== count.elements || written.attributes !== count.attributes)
      return wrong('a tag that can be read in two ways');
    return ok(found);
  } catch (error) {
    const said = error instanceof Error ? error.message : String(error);
    return wrong(said.replace(/[^\x20-\x7e]/g, ' ').slice(0, 160));
  }
}

/**
 * How deep tags are nested, before anything builds a tree of them; infinitely for a tag that does not end. Values of
 * attributes may hold what looks like the end of a tag. Each character is looked at once.
 */
function depthOf(text: string): number {
  let [depth, most] = [0, 0];
  for (let at = text.indexOf('<'); at !== -1; at = text.indexOf('<', at)) {
    const closing = text[at + 1] === '/';
    for (at++; text[at] !== '>'; at++) {
      const letter = text[at];
      if (letter === '"' || letter === "'") at = text.indexOf(letter, at + 1);
      if (letter === undefined || letter === '<' || at === -1) return Number.POSITIVE_INFINITY;
    }
    if (closing) depth--;
    else if (text[at - 1] !== '/') depth++;
    if (depth > most) most = depth;
    if (most > DEPTH_LIMIT) break;
  }
  return most;
}

const TAG = /<(?!\/)[^\s<>/"'=]+((?:\s+[^\s<>/"'=]+\s*=\s*(?:"[^"<]*"|'[^'<]*'))*)\s*\/?>/g;
const ATTRIBUTE = /[^\s<>/"'=]+\s*=\s*(?:"[^"<]*"|'[^'<]*')/g;

/** Start tags and their attributes, counted in the text. */
function countTags(text: string): { elements: number; attributes: number } {
  let [elements, attributes] = [0, 0];
  for (const [, inside] of text.matchAll(TAG)) {
    elements++;
    attributes += inside?.match(ATTRIBUTE)?.length ?? 0;
  }
  return { elements, attributes };
}

/** Or what is wrong with it. */
function readElement(
  from: Element,
  scope: ReadonlyMap<string, string>,
  count: { elements: number; attributes: number },
): XmlElement | string {
  if (count.elements++ > ELEMENT_LIMIT) return `more than ${ELEMENT_LIMIT} elements`;
  count.attributes += from.attributes.length;
  if (from.attributes.length > ATTRIBUTE_LIMIT) return `more than ${ATTRIBUTE_LIMIT} attributes`;
  const all = Array.from({ length: from.attributes.length }, (_, i) => from.attributes.item(i)).filter(
    (one): one is Attr => one !== null,
  );
  const declared = new Map<string, string>();
  for (const { name, value } of all) {
    const prefix = name === 'xmlns' ? '' : name.startsWith('xmlns:') ? name.slice(6) : null;
    if (prefix === null) continue;
    if (declared.has(prefix)) return `a namespace that is declared twice: ${prefix}`;
    if (prefix !== '' && (value === '' || !NAME.test(prefix) || prefix.startsWith('xml'))) return `prefix ${prefix}`;
    if (/[\t\n\r<&"]/.test(value)) return 'a namespace with blanks or markup in it';
    declared.set(prefix, value);
  }
  const inner = new Map([...scope, ...declared]);
  const split = (name: string): { prefix: string; local: string; known: boolean } => {
    const [first = '', second, ...rest] = name.split(':');
    const [prefix, local] = second === undefined ? ['', first] : [first, second];
    return { prefix, local, known: rest.length === 0 && NAME.test(local) && inner.has(prefix) };
  };
  const own = split(from.nodeName);
  if (!own.known) return 'an element whose name or prefix is not known';
  const attributes: XmlAttribute[] = [];
  const seen = new Set<string>();
  for (const { name, value } of all) {
    if (name === 'xmlns' || name.startsWith('xmlns:')) continue;
    const { prefix, local, known } = split(name);
    // Inherited attributes of the xml: namespace have rules of their own in canonical XML: there are none here.
    if (!known || prefix === 'xml') return 'an attribute whose name or prefix is not known';
    if (/[\t\n\r]/.test(value)) return `attribute ${local} has line ends or tabs in it`;
    const namespace = prefix === '' ? '' : (inner.get(prefix) ?? '');
    const id = `${namespace} ${local}`;
    if (seen.has(id)) return `attribute ${local} stands twice`;
    seen.add(id);
    attributes.push({ prefix, local, namespace, value });
  }
  const children: (XmlElement | string)[] = [];
  for (let node: Node | null = from.firstChild; node !== null; node = node.nextSibling) {
    if (node.nodeType === TEXT) children.push(node.nodeValue ?? '');
    else if (node.nodeType === ELEMENT) {
      const child = readElement(node as Element, inner, count);
      if (typeof child === 'string') return child;
      children.push(child);
    } else return 'something that is neither element nor text';
  }
  const { prefix, local } = own;
  return { prefix, local, namespace: inner.get(prefix) ?? '', attributes, declared, children };
}

export function elementsOf(element: XmlElement): XmlElement[] {
  return element.children.filter((one) => typeof one !== 'string');
}

/** All text of an element that holds nothing else; null where it holds elements. */
export function textOf(element: XmlElement): string | null {
  return element.children.every((one) => typeof one === 'string') ? element.children.join('') : null;
}

/** The value of an attribute without a prefix, or of one namespace. */
export function attributeOf(element: XmlElement, local: string, namespace = ''): string | null {
  return element.attributes.find((one) => one.local === local && one.namespace === namespace)?.value ?? null;
}
