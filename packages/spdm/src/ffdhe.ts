/** The primes of RFC 7919, computed from their definition instead of copied: 2^b - 2^(b-64) + (⌊2^(b-130) e⌋ + X) 2^64 - 1. */

/** X of each prime, RFC 7919 Appendix A.1 to A.3. */
const OFFSETS: Readonly<Record<number, bigint>> = { 2048: 560_316n, 3072: 2_625_351n, 4096: 5_736_041n };

const primes = new Map<number, Uint8Array>();

/** Big-endian, as long as the group; 2048, 3072 or 4096 bits. */
export function ffdhePrime(bits: number): Uint8Array {
  let prime = primes.get(bits);
  if (prime === undefined) {
    const size = BigInt(bits);
    const value = 2n ** size - 2n ** (size - 64n) + (scaledE(size - 130n) + (OFFSETS[bits] ?? 0n)) * 2n ** 64n - 1n;
    prime = toBytes(value, bits / 8);
    primes.set(bits, prime);
  }
  return prime;
}

/** ⌊2^bits e⌋, from the series 1/0! + 1/1! + …, with bits to spare for what each division drops. */
function scaledE(bits: bigint): bigint {
  const spare = 64n;
  let term = 1n << (bits + spare);
  let sum = 0n;
  for (let index = 1n; term > 0n; index++) {
    sum += term;
    term /= index;
  }
  return sum >> spare;
}

function toBytes(value: bigint, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let at = length - 1, rest = value; at >= 0; at--, rest >>= 8n) bytes[at] = Number(rest & 0xffn);
  return bytes;
}
