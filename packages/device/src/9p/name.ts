/** Names within a folder, as bytes. */
import { EINVAL, ENAMETOOLONG } from './errno.ts';

/** NAME_MAX. */
const NAME_LIMIT = 255;
const DOT = 0x2e;
const SLASH = 0x2f;

/**
 * 0 for the name of something in a folder. Otherwise a negative errno: `..` leads out, `.` and the empty name are the
 * folder itself, `/` makes two names of one, a zero ends what the kernel reads.
 */
export function checkName(name: Uint8Array): number {
  if (name.length > NAME_LIMIT) return -ENAMETOOLONG;
  if (name.length === 0 || name.includes(SLASH) || name.includes(0)) return -EINVAL;
  if (name[0] === DOT && (name.length === 1 || (name.length === 2 && name[1] === DOT))) return -EINVAL;
  return 0;
}

/** With the zero at the end that the kernel wants. */
export function withZero(name: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(name.length + 1);
  bytes.set(name);
  return bytes;
}

export function sameName(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
