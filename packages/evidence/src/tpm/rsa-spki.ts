/** SubjectPublicKeyInfo of an RSA key from its numbers. RFC 8017 §A.1.1, RFC 3279 §2.3.1. */
import { concat, fromHex } from '../bytes.ts';

const RSA = fromHex('300d06092a864886f70d0101010500') ?? new Uint8Array();

/** `n` and `e` unsigned, big-endian. */
export function rsaSpki(n: Uint8Array, e: Uint8Array): Uint8Array {
  const key = element(0x30, concat(integer(n), integer(e)));
  return element(0x30, concat(RSA, element(0x03, concat(Uint8Array.of(0), key))));
}

function integer(bytes: Uint8Array): Uint8Array {
  let start = 0;
  while (start < bytes.length - 1 && bytes[start] === 0) start++;
  const least = bytes.subarray(start);
  return element(0x02, (least[0] ?? 0) >= 0x80 ? concat(Uint8Array.of(0), least) : least);
}

function element(tag: number, content: Uint8Array): Uint8Array {
  const { length } = content;
  const header = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return concat(Uint8Array.of(tag, ...header), content);
}
