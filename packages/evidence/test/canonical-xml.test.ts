import assert from 'node:assert/strict';
import { test } from 'node:test';
import { canonicalBytes } from '../src/xml/canonical.ts';
import { elementsOf, readXml } from '../src/xml/document.ts';

const parse = (text: string) => {
  const read = readXml(Buffer.from(text));
  assert.ok(read.ok, read.ok ? '' : read.error.message);
  return read.value;
};
const canonical = (text: string) => Buffer.from(canonicalBytes(parse(text)) ?? []).toString();

test('elements are written out, attributes in the order of namespace and name (§2.3, §3.3)', () => {
  assert.equal(canonical('<a/>'), '<a></a>');
  assert.equal(canonical('<a b = "1"   a="2"\n>x</a >'), '<a a="2" b="1">x</a>');
  assert.equal(
    canonical('<e xmlns:b="http://b" xmlns:a="http://z" b:x="1" a:x="2" c="3"/>'),
    '<e xmlns:a="http://z" xmlns:b="http://b" c="3" b:x="1" a:x="2"></e>',
  );
});

test('a namespace is declared where it comes into force and not again (§2.2)', () => {
  assert.equal(
    canonical('<a xmlns="u"><b xmlns="u"><c xmlns=""/></b></a>'),
    '<a xmlns="u"><b><c xmlns=""></c></b></a>',
  );
  assert.equal(canonical('<a xmlns:n="u"><n:b xmlns:n="u"/></a>'), '<a xmlns:n="u"><n:b></n:b></a>');
  assert.equal(canonical('<a xmlns:n="u"><n:b xmlns:n="v"/></a>'), '<a xmlns:n="u"><n:b xmlns:n="v"></n:b></a>');
});

test('what stands in text and in attributes is escaped in one way (§3.4)', () => {
  assert.equal(
    canonical('<a b="&lt;&quot;&apos;&gt;&amp;">&lt;&gt;&amp;"\'&#65;</a>'),
    `<a b="&lt;&quot;'>&amp;">&lt;&gt;&amp;"'A</a>`,
  );
  assert.equal(canonical('<a>1\r\n2&#13;3</a>'), '<a>1\n2&#xD;3</a>');
});

test('a tab or line end in an attribute is a blank (XML 1.0 §3.3.3)', () => {
  assert.equal(canonical('<a b="1\t2\r\n3"/>'), '<a b="1 2 3"></a>');
});

test('a part of a document carries the namespaces around it', () => {
  const root = parse('<a xmlns="u" xmlns:n="v"><b c="1"/></a>');
  const [inner] = elementsOf(root);
  assert.ok(inner !== undefined);
  const bytes = canonicalBytes(inner, { scope: root.declared });
  assert.equal(Buffer.from(bytes ?? []).toString(), '<b xmlns="u" xmlns:n="v" c="1"></b>');
});

test('what canonical XML would leave out, expand or guess is refused', () => {
  for (const text of [
    '',
    'x',
    '<a>',
    '<a/><b/>',
    '<a></b>',
    '<!DOCTYPE a><a/>',
    '<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>',
    '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
    '<a><!-- c --></a>',
    '<a><![CDATA[x]]></a>',
    '<a><?p x?></a>',
    '<?xml version="1.1"?><a/>',
    '<a>&nbsp;</a>',
    '<a>&</a>',
    '<a b="1" b="2"/>',
    '<a xmlns:n="u" xmlns:m="u" n:b="1" m:b="2"/>',
    '<n:a/>',
    '<a n:b="1"/>',
    '<a xml:lang="en"/>',
    '<a xmlns:n=""/>',
    '<a b=1/>',
    '<a b="<"/>',
    '<a b="1&#10;2"/>',
    '<a>\u00e9</a>',
    '<a>\u0000</a>',
    `${'<a>'.repeat(17)}${'</a>'.repeat(17)}`,
    `<a>${'<b/>'.repeat(5000)}</a>`,
    `<a ${Array.from({ length: 65 }, (_, i) => `b${i}="1"`).join(' ')}/>`,
  ]) {
    const read = readXml(Buffer.from(text));
    assert.equal(read.ok, false, text.slice(0, 60));
    if (!read.ok) assert.equal(read.error.code, 'xml-invalid');
  }
});

test('a declaration in front and a byte more are no difference, deep trees are refused before they are built', () => {
  assert.ok(readXml(Buffer.from('<?xml version="1.0" encoding="UTF-8"?>\n<a/>\n')).ok);
  const began = performance.now();
  assert.equal(readXml(Buffer.from('<a>'.repeat(300_000))).ok, false);
  assert.ok(performance.now() - began < 60_000);
});
