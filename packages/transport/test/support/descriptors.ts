/** What this process holds open, for tests that look for leaks. */
import { readdirSync, readlinkSync } from 'node:fs';

/** Number → what it leads to; without the descriptor that lists them. */
export function openDescriptors(): Map<number, string> {
  const found = new Map<number, string>();
  for (const name of readdirSync('/proc/self/fd')) {
    try {
      found.set(Number(name), readlinkSync(`/proc/self/fd/${name}`));
    } catch {
      // The descriptor of the listing itself.
    }
  }
  return found;
}
