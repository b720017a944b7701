/** The system calls of this machine, for tests that use real ones, and why there are none. */
import { loadSystemCalls, type SystemCalls } from '@airlock/transport/system-calls.ts';

const loaded = await loadSystemCalls();

/** What `skip` of a test takes. */
export const missing: string | false = loaded.ok ? false : loaded.error.message;

export const calls: SystemCalls = loaded.ok
  ? loaded.value
  : new Proxy({} as SystemCalls, {
      get(_target, name) {
        throw new Error(`${String(name)}: ${missing}`);
      },
    });
