/** Bytes and text without TextDecoder, Buffer or other things that the boot gate's engine does not have. */

/** Text of an attribute: ASCII as it stands, every other byte as `\xNN`, so that nothing a host sends reaches a terminal. */
export function asciiText(bytes: Uint8Array): string {
  // The engine's own loops first: in the boot gate this is most of the work of reading an attribute.
  if (bytes.length <= 16_384) {
    const plain = String.fromCharCode.apply(null, bytes as unknown as number[]);
    if (/^[\t\n\x20-\x7e]*$/.test(plain)) return plain;
  }
  let text = '';
  for (const byte of bytes) {
    text +=
      (byte >= 0x20 && byte < 0x7f) || byte === 0x0a || byte === 0x09
        ? String.fromCharCode(byte)
        : `\\x${hexByte(byte)}`;
  }
  return text;
}

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'));

export function hexByte(byte: number): string {
  return HEX[byte] ?? byte.toString(16).padStart(2, '0');
}

export function hex(bytes: Uint8Array): string {
  let text = '';
  for (let i = 0; i < bytes.length; i++) text += HEX[bytes[i] ?? 0];
  return text;
}

/** Little-endian; `undefined` where the bytes end before the value does. */
export function readLe(bytes: Uint8Array, offset: number, width: 1 | 2 | 4): number | undefined {
  if (offset < 0 || offset + width > bytes.length) return undefined;
  let value = 0;
  for (let i = width - 1; i >= 0; i--) value = value * 256 + (bytes[offset + i] ?? 0);
  return value;
}
