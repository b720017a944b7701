/** The small notations inside a policy's values: ids, ranges, class prefixes, globs, durations. */
import { PCI_CLASSES } from '@airlock/core/pci-class.ts';
import type { ClassPattern, NumberRange } from './policy.ts';

/** `4660` or `0x1234`; no other form, so that nobody has to know what `0010` or `1e3` is. */
export function parseNumber(text: string, max: number): number | undefined {
  if (!/^(?:0|[1-9][0-9]{0,9}|0x[0-9a-fA-F]{1,8})$/.test(text)) return undefined;
  const value = Number(text);
  return value <= max ? value : undefined;
}

/** `2`, `>=2`, `>2`, `<=3`, `<3`, `1..3` (both ends included); numbers as `parseNumber` reads them. */
export function parseRange(text: string, max: number): NumberRange | undefined {
  const between = /^([0-9a-fx]+)\.\.([0-9a-fx]+)$/i.exec(text);
  if (between) {
    const from = parseNumber(between[1] ?? '', max);
    const to = parseNumber(between[2] ?? '', max);
    return from === undefined || to === undefined || from > to ? undefined : { text, min: from, max: to };
  }
  const compared = /^(>=|<=|>|<)? ?([0-9a-fx]+)$/i.exec(text);
  const value = parseNumber(compared?.[2] ?? '', max);
  if (value === undefined) return undefined;
  switch (compared?.[1]) {
    case '>=':
      return { text, min: value, max };
    case '<=':
      return { text, min: 0, max: value };
    case '>':
      return value >= max ? undefined : { text, min: value + 1, max };
    case '<':
      return value <= 0 ? undefined : { text, min: 0, max: value - 1 };
    default:
      return { text, min: value, max: value };
  }
}

/** A class name, or two, four or six hex digits after `0x`: base class, with subclass, with programming interface. */
export function parseClass(text: string): ClassPattern | undefined {
  const digits = Object.hasOwn(PCI_CLASSES, text)
    ? PCI_CLASSES[text as keyof typeof PCI_CLASSES]
    : /^0x((?:[0-9a-fA-F]{2}){1,3})$/.exec(text)?.[1];
  if (digits === undefined) return undefined;
  const bits = digits.length * 4;
  return bits === 8 || bits === 16 || bits === 24
    ? { name: text, value: Number.parseInt(digits, 16), bits }
    : undefined;
}

export function inClass(pattern: ClassPattern, classCode: number): boolean {
  return classCode >>> (24 - pattern.bits) === pattern.value;
}

/** `90s`, `30m`, `24h`, `7d` → seconds; at least one second. */
export function parseDuration(text: string): number | undefined {
  const match = /^([1-9][0-9]{0,5})(s|m|h|d)$/.exec(text);
  if (!match) return undefined;
  const unit = { s: 1, m: 60, h: 3600, d: 86_400 }[match[2] as 's' | 'm' | 'h' | 'd'];
  return Number(match[1]) * unit;
}

/**
 * `*` stands for any run of characters, everything else for itself. Takes time in proportion to the text: pieces are
 * looked for from left to right, each once (a piece found early never has to be found again later).
 */
export function compileGlob(glob: string): (text: string) => boolean {
  const pieces = glob.split('*');
  const first = pieces[0] ?? '';
  const last = pieces[pieces.length - 1] ?? '';
  if (pieces.length === 1) return (text) => text === glob;
  const middle = pieces.slice(1, -1).filter((piece) => piece !== '');
  return (text) => {
    if (text.length < first.length + last.length || !text.startsWith(first) || !text.endsWith(last)) return false;
    const end = text.length - last.length;
    let at = first.length;
    for (const piece of middle) {
      const found = text.indexOf(piece, at);
      if (found === -1 || found + piece.length > end) return false;
      at = found + piece.length;
    }
    return true;
  };
}
