/** Seeded mutations of evidence: the same seed gives the same files. */

export type Random = () => number;

/** Whole numbers below 2^32 (xorshift32). */
export function seeded(seed: number): Random {
  let state = (seed | 0) === 0 ? 0x9e3779b9 : seed | 0;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

const SPECIAL: readonly number[] = [0x00, 0x01, 0x30, 0x7f, 0x80, 0x81, 0x82, 0x84, 0xff];

/** One to four changes: a bit, a byte, a length field, a cut, a doubled or a foreign piece. */
export function mutate(random: Random, bytes: Uint8Array, others: readonly Uint8Array[]): Uint8Array {
  let out: Uint8Array = bytes.slice();
  for (let left = 1 + (random() % 4); left > 0; left--) {
    if (out.length === 0) return out;
    const at = random() % out.length;
    switch (random() % 8) {
      case 0:
        out[at] = (out[at] ?? 0) ^ (1 << (random() % 8));
        break;
      case 1:
        out[at] = SPECIAL[random() % SPECIAL.length] ?? 0;
        break;
      case 2: // lengths are often two bytes
        out[at] = random() & 0xff;
        if (at + 1 < out.length) out[at + 1] = SPECIAL[random() % SPECIAL.length] ?? 0;
        break;
      case 3:
        out = out.slice(0, at);
        break;
      case 4: {
        const end = Math.min(out.length, at + 1 + (random() % 64));
        out = splice(out, at, end, new Uint8Array());
        break;
      }
      case 5: {
        const end = Math.min(out.length, at + 1 + (random() % 64));
        out = splice(out, at, at, out.slice(at, end));
        break;
      }
      case 6: {
        const other = others[random() % others.length] ?? out;
        const from = random() % Math.max(1, other.length);
        out = splice(out, at, Math.min(out.length, at + 32), other.slice(from, from + (random() % 64)));
        break;
      }
      default:
        for (let i = at; i < Math.min(out.length, at + 4); i++) out[i] = 0xff;
    }
  }
  return out;
}

function splice(bytes: Uint8Array, from: number, to: number, piece: Uint8Array): Uint8Array {
  const out = new Uint8Array(from + piece.length + bytes.length - to);
  out.set(bytes.subarray(0, from));
  out.set(piece, from);
  out.set(bytes.subarray(to), from + piece.length);
  return out;
}
