/**
 * A vhost-user back-end: serves one device to one front-end after another on a listening socket. Everything happens on
 * the reactor's thread, and nothing waits but the reactor.
 */
import type { Problem } from '@airlock/core/result.ts';
import type { ServedDevice } from '@airlock/virtio/served-device.ts';
import { READABLE, type Reactor } from '../reactor.ts';
import type { SystemCalls } from '../system-calls.ts';
import type { UnixListener } from '../unix-listener.ts';
import { Session } from './session.ts';

/** What happens to a back-end, for logs and tests. */
export type BackEndEvent =
  | { readonly kind: 'connected' }
  /** `vhost-user-closed` is how a front-end leaves in order. */
  | { readonly kind: 'disconnected'; readonly why: Problem }
  /** Something was refused or broke a rule; the connection goes on. */
  | { readonly kind: 'problem'; readonly problem: Problem };

export interface BackEndOptions {
  readonly calls: SystemCalls;
  readonly reactor: Reactor;
  readonly device: ServedDevice;
  readonly report: (event: BackEndEvent) => void;
  /**
   * Take memory that the front-end can shrink while it is in use: libblkio and DPDK do not seal theirs. Such a front-end
   * can end this process (SIGBUS), so it must be a process for this device alone. Refused when absent.
   */
  readonly unsealedMemory?: boolean;
}

export interface BackEnd {
  /** Is a front-end connected? */
  readonly connected: boolean;
  /** Stops queues and ends the connection; accepts nobody any more. Listener and device stay the caller's. */
  close(): void;
}

/**
 * Accepts front-ends from `listener`, one at a time; the next waits until the one before is gone. Problems of a
 * connection end that connection, and are reported with the codes of `VHOST_USER_ERRORS` and of what stands below.
 */
export function serveVhostUser(options: BackEndOptions, listener: UnixListener): BackEnd {
  let session: Session | null = null;
  const watch = options.reactor.watch(listener.fd, READABLE, () => {
    if (session !== null) return;
    const accepted = listener.accept();
    if (!accepted.ok) {
      options.report({ kind: 'problem', problem: accepted.error });
      return;
    }
    if (accepted.value === null) return;
    watch.setEvents(0);
    session = openSession(options, accepted.value, () => {
      session = null;
      watch.setEvents(READABLE);
    });
  });
  return {
    get connected() {
      return session !== null;
    },
    close() {
      watch.close();
      session?.close(LEAVING);
    },
  };
}

const TOO_MANY: Problem = {
  code: 'vhost-user-too-many-problems',
  message: 'more problems of this connection are not told',
};
const LEAVING: Problem = { code: 'vhost-user-closed', message: 'this back-end ends' };

/** Serves one front-end that is connected already: `fd`, a non-blocking stream socket, is taken over. */
export function serveConnection(options: BackEndOptions, fd: number, ended: () => void = () => {}): BackEnd {
  const session = openSession(options, fd, () => {
    open = false;
    ended();
  });
  let open = true;
  return {
    get connected() {
      return open;
    },
    close: () => session.close(LEAVING),
  };
}

/** Problems of one connection that are told; a front-end must not fill somebody's log. */
const PROBLEMS_TOLD = 100;

function openSession(options: BackEndOptions, fd: number, ended: () => void): Session {
  const { calls, reactor, device, report } = options;
  let told = 0;
  const tell = (problem: Problem): void => {
    if (told++ < PROBLEMS_TOLD) report({ kind: 'problem', problem });
    else if (told === PROBLEMS_TOLD + 1) report({ kind: 'problem', problem: TOO_MANY });
  };
  report({ kind: 'connected' });
  return new Session(
    {
      calls,
      reactor,
      device,
      unsealedMemory: options.unsealedMemory ?? false,
      report: tell,
      ended: (why) => {
        report({ kind: 'disconnected', why });
        ended();
      },
    },
    fd,
  );
}
