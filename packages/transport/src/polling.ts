/** The source of last resort: no events, a look at everything at an interval. */
import type { UeventSource } from './uevents.ts';

/** `because` says why there is no better source and stands in every notice. Interval in milliseconds. */
export function pollingSource(interval: number, because: string): UeventSource {
  let timer: NodeJS.Timeout | undefined;
  return {
    kind: 'polling',
    dropped: { foreign: 0, malformed: 0 },
    start(listen) {
      timer = setInterval(() => listen({ kind: 'look-again', because }), interval);
    },
    close: () => clearInterval(timer),
  };
}
