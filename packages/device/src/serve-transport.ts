/** The ways in which a device can be served, by name; what they have in common is all that the device process knows. */
import { createHash } from 'node:crypto';
import { ok, type Problem, type Result } from '@airlock/core/result.ts';
import type { Reactor } from '@airlock/transport/reactor.ts';
import type { SystemCalls } from '@airlock/transport/system-calls.ts';
import { listenUnix } from '@airlock/transport/unix-listener.ts';
import { VduseServer } from '@airlock/transport/vduse/server.ts';
import type { ServedFunction } from '@airlock/transport/vfio-user/served-function.ts';
import { serveFunction } from '@airlock/transport/vfio-user/server.ts';
import { serveVhostUser } from '@airlock/transport/vhost-user/back-end.ts';
import type { ServedDevice } from '@airlock/virtio/served-device.ts';
import { type Capability, deviceSerialNumber } from './pci/capability.ts';
import type { DeviceSide } from './register/device-side.ts';
import { sriovGroup } from './register/sriov-group.ts';
import { type SharedWindow, virtioPciFunction } from './register/virtio-pci.ts';
import { type ServeEvent, type ServeRequest, virtualSocket } from './serve-event.ts';

export interface TransportHost {
  readonly calls: SystemCalls;
  readonly reactor: Reactor;
  readonly device: ServedDevice;
  /** Its virtual functions; vfio-user only. */
  readonly virtual: readonly ServedDevice[];
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

/** One socket for each function. Codes: those of `virtioPciFunction`, of `sriovGroup` and of `listenUnix`. */
function startVfioUser(host: TransportHost): Result<RunningTransport> {
  const { calls, reactor, request, tell } = host;
  const made = vfioUserFunctions(host);
  if (!made.ok) return made;
  const closers: (() => void)[] = [];
  const close = () => {
    for (const end of closers.splice(0)) end();
  };
  for (const [i, { served, side }] of made.value.entries()) {
    const socket = i === 0 ? request.socket : virtualSocket(request.socket, i - 1);
    const whose = i === 0 ? {} : { socket };
    const server = serveFunction(calls, reactor, served, {
      socket,
      stealth: !request.plain,
      tell(event) {
        if (event.kind === 'connected') tell({ event: 'connected', ...whose });
        else if (event.kind === 'problem') tell({ event: 'problem', problem: event.problem });
        else if (i === 0) disconnected(host, event.problem ?? LEFT);
        else tell({ event: 'disconnected', why: event.problem ?? LEFT, ...whose });
      },
    });
    if (!server.ok) {
      close();
      return server;
    }
    const removePoller = reactor.addPoller(side);
    closers.push(() => {
      removePoller();
      server.value.close();
    });
  }
  return ok({ close });
}

export interface OneFunction {
  readonly served: ServedFunction;
  readonly side: DeviceSide;
}

/** The physical function, and its virtual ones: as a group, or each by itself. Only of several has each a serial number. */
export function vfioUserFunctions({
  device,
  virtual,
  request,
  tell,
}: Pick<TransportHost, 'device' | 'virtual' | 'request' | 'tell'>): Result<readonly OneFunction[]> {
  const violated = (problem: Problem) => tell({ event: 'problem', problem });
  if (request.sriov === true && virtual.length > 0) {
    const group = sriovGroup(device, virtual, {
      violated,
      changed: (enabled) => tell({ event: 'virtual-functions', enabled }),
      // Functions of one device have one number (PCIe 6.0 §7.9.3).
      capabilities: () => [serialOf(request.socket)],
    });
    if (!group.ok) return group;
    const { physical, sides } = group.value;
    return ok(
      [physical, ...group.value.virtual].flatMap((served, i) => {
        const side = sides[i];
        return side === undefined ? [] : [{ served, side }];
      }),
    );
  }
  const functions: OneFunction[] = [];
  for (const [i, each] of [device, ...virtual].entries()) {
    const { sharedMemory = [] } = each as ServedDevice & { readonly sharedMemory?: readonly SharedWindow[] };
    const place = i === 0 ? request.socket : virtualSocket(request.socket, i - 1);
    const capabilities = virtual.length === 0 ? [] : [serialOf(place)];
    const made = virtioPciFunction(each, { sharedMemory, violated, capabilities });
    if (!made.ok) return made;
    functions.push({ served: made.value.pci, side: made.value.side });
  }
  return ok(functions);
}

/** The same for the same place, another for another: nobody has to give numbers out. */
function serialOf(place: string): Capability {
  const bytes = createHash('sha256').update(place).digest();
  return deviceSerialNumber(bytes.readUInt32LE(0), bytes.readUInt32LE(4));
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
