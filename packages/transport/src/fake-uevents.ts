/** `UeventSource` for tests: they say when something happens. */
import type { Uevent, UeventAction } from './uevent.ts';
import type { UeventNotice, UeventSource } from './uevents.ts';

export interface FakeUevents extends UeventSource {
  send(notice: UeventNotice): void;
  /** A well-formed event of the kernel. */
  sendUevent(action: UeventAction, devpath: string, subsystem: string, values?: Readonly<Record<string, string>>): void;
  readonly closed: boolean;
}

export function fakeUevents(): FakeUevents {
  let listener: ((notice: UeventNotice) => void) | undefined;
  let closed = false;
  const send = (notice: UeventNotice): void => {
    if (!closed) listener?.(notice);
  };
  return {
    kind: 'fake',
    dropped: { foreign: 0, malformed: 0 },
    start: (listen) => {
      listener = listen;
    },
    close: () => {
      closed = true;
    },
    get closed() {
      return closed;
    },
    send,
    sendUevent(action, devpath, subsystem, values = {}) {
      const uevent: Uevent = { action, devpath, subsystem, values: new Map(Object.entries(values)) };
      send({ kind: 'uevent', uevent });
    },
  };
}
