/** DER written by hand, so that tests can make every certificate that there should not be. */

export function element(tag: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const content = join(...parts);
  const { length } = content;
  const header =
    length < 0x80
      ? [length]
      : length < 0x100
        ? [0x81, length]
        : length < 0x10000
          ? [0x82, length >> 8, length & 0xff]
          : [0x83, length >> 16, (length >> 8) & 0xff, length & 0xff];
  return join(Uint8Array.of(tag, ...header), content);
}

export function join(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

export const sequence = (...parts: readonly Uint8Array[]) => element(0x30, ...parts);
export const octets = (bytes: Uint8Array) => element(0x04, bytes);
export const bits = (bytes: Uint8Array) => element(0x03, Uint8Array.of(0), bytes);
export const boolean = (value: boolean) => element(0x01, Uint8Array.of(value ? 0xff : 0));
export const ia5 = (text: string) => element(0x16, new TextEncoder().encode(text));
export const utf8 = (text: string) => element(0x0c, new TextEncoder().encode(text));

export function integer(value: number): Uint8Array {
  const digits = value.toString(16);
  const bytes = Buffer.from(digits.length % 2 === 0 ? digits : `0${digits}`, 'hex');
  return element(0x02, (bytes[0] ?? 0) >= 0x80 ? join(Uint8Array.of(0), bytes) : bytes);
}

export function oid(text: string): Uint8Array {
  const [first = 0, second = 0, ...rest] = text.split('.').map(Number);
  const bytes = [first * 40 + second, ...rest].flatMap((arc) => {
    const septets = [arc & 0x7f];
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128))
      septets.unshift((left & 0x7f) | 0x80);
    return septets;
  });
  return element(0x06, Uint8Array.from(bytes));
}

export function time(text: string): Uint8Array {
  const digits = new Date(text).toISOString().replace(/[-:T]|\.\d+/g, '');
  const short = Number(digits.slice(0, 4)) < 2050;
  return element(short ? 0x17 : 0x18, new TextEncoder().encode(short ? digits.slice(2) : digits));
}
