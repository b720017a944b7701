/** The ways in which a device can be served, by name; what they have in common is all that the device process knows. */
import { ok, type Problem, type Result } from '@airlock/core/result.ts';
import type { Reactor } from '@airlock/transport/reactor.ts';
import type { SystemCalls } from '@airlock/transport/system-calls.ts';
import { listenUnix } from '@airlock/transport/unix-listener.ts';
import { VduseServer } from '@airlock/transport/vduse/server.ts';
import { serveFunction } from '@airlock/transport/vfio-user/server.ts';
import { serveVhostUser } from '@airlock/transport/vhost-user/back-end.ts';
import type { ServedDevice } from '@airlock/virtio/served-device.ts';
import { type SharedWindow, virtioPciFunction } from './register/virtio-pci.ts';
import type { ServeEvent, ServeRequest } from './serve-event.ts';

export interface TransportHost {
  readonly calls: SystemCalls;
  readonly reactor: Reactor;
  readonly device: ServedDevice;
  readonly request: ServeRequest;
  readonly tell: (event: ServeEvent) => void;
}

export interface RunningTransport {
  /** Stops queues, ends the connection, and stops listening. The device stays the caller's. */
  close(): void;
}

type StartTransport = (host: TransportHost) => Result<RunningTransport>;

/** The first is what is taken when nothing is said. */
export const TRANSPORTS: Readonly<Record<string, StartTransport>> = {
  'vhost-user': startVhostUser,
  'vfio-user': startVfioUser,
  vduse: startVduse,
};

/** Those that are reached by a socket; the others by a name. */
export const SOCKET_TRANSPORTS: readonly string[] = ['vhost-user', 'vfio-user'];

function disconnected({ tell, request, reactor }: TransportHost, why: Problem): void {
  tell({ event: 'disconnected', why });
  if (request.once) reactor.stop();
}

/** Codes: those of `listenUnix`. */
function startVhostUser(host: TransportHost): Result<RunningTransport> {
  const { calls, reactor, device, request, tell } = host;
  const listener = listenUnix(calls, request.socket);
  if (!listener.ok) return listener;
  const backEnd = serveVhostUser(
    {
      ...{ calls, reactor, device },
      unsealedMemory: request.unsealedMemory,
      report(event) {
        if (event.kind === 'connected') tell({ event: 'connected' });
        else if (event.kind === 'problem') tell({ event: 'problem', problem: event.problem });
        else disconnected(host, event.why);
      },
    },
    listener.value,
  );
  return ok({
    close() {
      backEnd.close();
      listener.value.close();
    },
  });
}

/** Codes: those of `virtioPciFunction` and of `listenUnix`. */
function startVfioUser(host: TransportHost): Result<RunningTransport> {
  const { calls, reactor, device, request, tell } = host;
  const { sharedMemory = [] } = device as ServedDevice & { readonly sharedMemory?: readonly SharedWindow[] };
  const made = virtioPciFunction(device, { sharedMemory, violated: (problem) => tell({ event: 'problem', problem }) });
  if (!made.ok) return made;
  const { pci, side } = made.value;
  const server = serveFunction(calls, reactor, pci, {
    socket: request.socket,
    stealth: !request.plain,
    tell(event) {
      if (event.kind === 'connected') tell({ event: 'connected' });
      else if (event.kind === 'problem') tell({ event: 'problem', problem: event.problem });
      else disconnected(host, event.problem ?? LEFT);
    },
  });
  if (!server.ok) return server;
  const removePoller = reactor.addPoller(side);
  return ok({
    close() {
      removePoller();
      server.value.close();
    },
  });
}

/** For the drivers of this machine. Codes: those of `VduseServer.start`. */
function startVduse(host: TransportHost): Result<RunningTransport> {
  const { calls, reactor, device, request, tell } = host;
  const server = VduseServer.start({
    ...{ calls, reactor, device, name: request.socket },
    tell(event) {
      if (event.kind === 'connected') tell({ event: 'connected' });
      else if (event.kind === 'problem') tell({ event: 'problem', problem: event.problem });
      else disconnected(host, RESET);
    },
  });
  if (!server.ok) return server;
  return ok({
    close() {
      if (server.value.close()) return;
      tell({ event: 'warning', text: `${request.socket} is attached still: vdpa dev del ${request.socket}` });
    },
  });
}

const RESET: Problem = { code: 'vduse-reset', message: 'the driver reset the device' };
const LEFT: Problem = { code: 'vfio-user-gone', message: 'the VMM went away' };
