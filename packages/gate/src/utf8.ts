/** UTF-8 without TextEncoder, which the boot gate's engine does not have. */

/** A lone surrogate becomes U+FFFD. */
export function utf8Bytes(text: string): Uint8Array {
  // Attributes are short and plain: no iterators, which cost the engine of the gate a thousand instructions a step.
  const ascii = new Uint8Array(text.length);
  let plain = true;
  for (let i = 0; i < text.length && plain; i++) {
    const code = text.charCodeAt(i);
    plain = code < 0x80;
    ascii[i] = code;
  }
  if (plain) return ascii;
  const bytes: number[] = [];
  for (const character of text) {
    const point = character.codePointAt(0) ?? 0;
    const code = point >= 0xd800 && point < 0xe000 ? 0xfffd : point;
    if (code < 0x80) bytes.push(code);
    else if (code < 0x800) bytes.push(0xc0 | (code >> 6), 0x80 | (code & 63));
    else if (code < 0x10000) bytes.push(0xe0 | (code >> 12), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
    else bytes.push(0xf0 | (code >> 18), 0x80 | ((code >> 12) & 63), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
  }
  return Uint8Array.from(bytes);
}
