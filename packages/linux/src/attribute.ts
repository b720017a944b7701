/**
 * The texts of sysfs attributes, names and links, parsed strictly: a value, or `undefined` for anything that the
 * kernel does not write there. Every function is total for any text.
 */

/** `0x1af4\n` of at most `digits` hexadecimal digits, as PCI and virtio write their numbers. */
export function parseHex(text: string, digits: number): number | undefined {
  return /^0x[0-9a-f]+\n?$/.test(text) && text.trimEnd().length <= digits + 2 ? Number(text) : undefined;
}

/** `046d\n`: exactly `digits` hexadecimal digits without a prefix, as USB writes its numbers. */
export function parseBareHex(text: string, digits: number): number | undefined {
  const plain = text.endsWith('\n') ? text.slice(0, -1) : text;
  return plain.length === digits && /^[0-9a-f]+$/.test(plain) ? Number.parseInt(plain, 16) : undefined;
}

/** A decimal count of at most nine digits. */
export function parseDecimal(text: string): number | undefined {
  return /^\d{1,9}\n?$/.test(text) ? Number(text) : undefined;
}

export function parseFlag(text: string): boolean | undefined {
  return /^[01]\n?$/.test(text) ? text.startsWith('1') : undefined;
}

/**
 * Bits that are set in a virtio device's `features`: a digit a bit, bit 0 first. 64 digits up to Linux 6.16, 128 later,
 * so the length says nothing.
 */
export function parseFeatureBits(text: string): number[] | undefined {
  if (text.length > 513 || !/^[01]+\n?$/.test(text)) return undefined;
  const bits: number[] = [];
  for (let bit = text.indexOf('1'); bit !== -1; bit = text.indexOf('1', bit + 1)) bits.push(bit);
  return bits;
}

/** The word in brackets of `none [integrity] confidentiality\n`. */
export function parseChosen(text: string): string | undefined {
  return /^[a-z ]{0,80}\[([a-z]{1,32})\][a-z ]{0,80}\n?$/.exec(text)?.[1];
}

/** One line without its newline, or `undefined` when there are several or it is longer than `length`. */
export function parseLine(text: string, length = 256): string | undefined {
  const plain = text.endsWith('\n') ? text.slice(0, -1) : text;
  return plain.length <= length && !plain.includes('\n') ? plain.replaceAll('\t', '\\x09') : undefined;
}

/** A serial number: padding and trailing NULs (which `asciiText` shows as `\x00`) off; null where nothing is left. */
export function parseSerial(text: string): string | null | undefined {
  const line = parseLine(text);
  if (line === undefined) return undefined;
  const plain = line.replace(/(?:\\x00| |\\x09)+$/, '').trim();
  return plain === '' ? null : plain;
}

/** `0001:01` of `doe_features`: vendor and type of a DOE protocol. */
export function isDoeFeature(name: string): boolean {
  return /^[0-9a-f]{4}:[0-9a-f]{2}$/.test(name);
}

/** `0000:00:03.0`; domains above 16 bits (VMD, Hyper-V) have more digits. */
export function isPciAddress(name: string): boolean {
  return /^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$/.test(name);
}

/** A name that a kernel device can have, and that is safe in a path and on a terminal. */
export function isDeviceName(name: string): boolean {
  return /^[\x21-\x2e\x30-\x7e]{1,128}$/.test(name) && name !== '.' && name !== '..';
}

/** The last part of a link's target (`../../bus/pci/drivers/virtio-pci`), where it is a possible name. */
export function parseLinkName(target: string): string | undefined {
  const name = target.slice(target.lastIndexOf('/') + 1);
  return /^[\x20-\x7e]{1,128}$/.test(name) && name !== '.' && name !== '..' ? name : undefined;
}

/** Where a link in `folder` leads, without looking; `undefined` when it leaves `/`. Hostile names stay as they are. */
export function resolveLink(folder: string, target: string): string | undefined {
  if (target === '' || target.length > 4096) return undefined;
  const parts: string[] = [];
  for (const part of (target.startsWith('/') ? target : `${folder}/${target}`).split('/')) {
    if (part === '' || part === '.') continue;
    if (part !== '..') parts.push(part);
    else if (parts.pop() === undefined) return undefined;
  }
  return `/${parts.join('/')}`;
}

/** A name or message as it may reach a terminal: everything that is not printable ASCII as `\u{N}`. */
export function printable(text: string): string {
  let out = '';
  for (const character of text.length > 512 ? `${text.slice(0, 512)}...` : text) {
    const code = character.codePointAt(0) ?? 0;
    out += code >= 0x20 && code < 0x7f ? character : `\\u{${code.toString(16)}}`;
  }
  return out;
}

/** The object without its `undefined` members: a fact that was not seen has no key at all. */
export function known<T extends object>(facts: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  const out: { [K in keyof T]?: Exclude<T[K], undefined> } = {};
  for (const key of Object.keys(facts) as (keyof T)[]) {
    const value = facts[key];
    if (value !== undefined) out[key] = value as Exclude<T[keyof T], undefined>;
  }
  return out;
}
