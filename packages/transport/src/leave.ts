/**
 * Ends this process now. `process.exit` waits for the threads that read files, and a device that does not answer can
 * hold one of them for ever; `_exit(2)` leaves them behind.
 */
import { createRequire } from 'node:module';

/** Does not return. What was written to standard output must be out already. */
export function leave(code: number): never {
  if (process.getActiveResourcesInfo().some((name) => name.startsWith('FSReq'))) {
    try {
      // Not import(): that would want one of those threads.
      const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi');
      koffi.load(null).func('void _exit(int)')(code);
    } catch {
      // Without koffi the exit waits, as Node has it.
    }
  }
  process.exit(code);
}
