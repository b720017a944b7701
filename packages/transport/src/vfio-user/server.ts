/**
 * Shows a PCI function to a VMM that speaks vfio-user (QEMU's `vfio-user-pci`): one client at a time, the next one when it
 * is gone. Many servers share one reactor.
 */
import { ok, type Problem, type Result } from '@airlock/core/result.ts';
import { READABLE, type Reactor } from '../reactor.ts';
import type { SystemCalls } from '../system-calls.ts';
import { listenUnix } from '../unix-listener.ts';
import { setNonBlocking } from '../unix-socket.ts';
import { Connection } from './connection.ts';
import type { ServedFunction } from './served-function.ts';

export interface VfioUserOptions {
  readonly socket: string;
  /** See `ConnectionOptions.stealth`. */
  readonly stealth: boolean;
  readonly tell?: (event: VfioUserEvent) => void;
}

export type VfioUserEvent =
  | { readonly kind: 'connected' }
  | { readonly kind: 'disconnected'; readonly problem: Problem | null }
  | { readonly kind: 'problem'; readonly problem: Problem };

export interface VfioUserServer {
  readonly connected: boolean;
  /** Ends the connection, and listening. */
  close(): void;
}

/** Codes: those of `listenUnix`. */
export function serveFunction(
  calls: SystemCalls,
  reactor: Reactor,
  served: ServedFunction,
  options: VfioUserOptions,
): Result<VfioUserServer> {
  const { stealth, tell = () => {} } = options;
  const listener = listenUnix(calls, options.socket);
  if (!listener.ok) return listener;
  let connection: Connection | null = null;
  let closed = false;

  const watch = reactor.watch(listener.value.fd, READABLE, () => {
    const accepted = listener.value.accept();
    if (!accepted.ok) tell({ kind: 'problem', problem: accepted.error });
    if (!accepted.ok || accepted.value === null) return;
    const nonBlocking = setNonBlocking(calls, accepted.value);
    if (!nonBlocking.ok) {
      calls.close(accepted.value);
      tell({ kind: 'problem', problem: nonBlocking.error });
      return;
    }
    // Others wait in the listener's queue until this one is gone.
    watch.setEvents(0);
    connection = new Connection(calls, reactor, accepted.value, served, {
      stealth,
      report: (problem) => tell({ kind: 'problem', problem }),
      ended(problem) {
        connection = null;
        if (!closed) watch.setEvents(READABLE);
        tell({ kind: 'disconnected', problem });
      },
    });
    tell({ kind: 'connected' });
  });
  return ok({
    get connected() {
      return connection !== null;
    },
    close() {
      if (closed) return;
      closed = true;
      connection?.close();
      watch.close();
      listener.value.close();
    },
  });
}
