/**
 * The process that is the device: `node serve-process.ts REQUEST`, REQUEST being a `ServeRequest` as JSON. It tells what
 * happens on descriptor 4, and ends when descriptor 3 is closed or says anything: its event loop is not Node's, so
 * signals are for the process that started it (`serve.ts`).
 */
import { writeSync } from 'node:fs';
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import { createReactor } from '@airlock/transport/event-loop.ts';
import { READABLE } from '@airlock/transport/reactor.ts';
import { enterSandbox, type SandboxLayer } from '@airlock/transport/sandbox.ts';
import { loadSystemCalls, type SystemCalls } from '@airlock/transport/system-calls.ts';
import type { ServedDevice } from '@airlock/virtio/served-device.ts';
import { type ServeEvent, type ServeRequest, virtualSocket } from './serve-event.ts';
import { TRANSPORTS } from './serve-transport.ts';
import type { DeviceHost, PreparedDevice, ServedType } from './serve-type.ts';
import { SERVED_TYPES } from './serve-types.ts';

const CONTROL = 3;
const EVENTS = 4;

function tell(event: ServeEvent): void {
  try {
    writeSync(EVENTS, `${JSON.stringify(event)}\n`);
  } catch {
    // Nobody listens any more; the control descriptor says so too.
  }
}

function failed(problem: Problem): number {
  tell({ event: 'failed', problem });
  return 3;
}

/** Serves until told to end. Returns the exit code. */
async function serve(request: ServeRequest): Promise<number> {
  const load = SERVED_TYPES[request.type];
  if (load === undefined) return failed({ code: 'device-option-invalid', message: `no type ${request.type}` });
  const { served } = await load();
  const prepared = served.prepare(request.values);
  if (!prepared.ok) return failed(prepared.error);
  const calls = await loadSystemCalls();
  if (!calls.ok) return failed(calls.error);
  const reactor = createReactor(calls.value);
  if (!reactor.ok) return failed(reactor.error);
  const host: DeviceHost = {
    calls: calls.value,
    reactor: reactor.value,
    folder: request.folder,
    warn: (text) => tell({ event: 'warning', text }),
  };
  const device = prepared.value.open(host);
  if (!device.ok) return failed(device.error);
  const virtual = openVirtual(served, request, host);
  const close = () => {
    for (const one of [device.value, ...(virtual.ok ? virtual.value : [])]) one.close();
  };
  if (!virtual.ok) {
    close();
    return failed(virtual.error);
  }
  const start = TRANSPORTS[request.transport];
  const transport = start?.({
    ...{ calls: calls.value, reactor: reactor.value, device: device.value, virtual: virtual.value },
    ...{ request, tell },
  });
  if (transport?.ok !== true) {
    close();
    return failed(transport?.error ?? { code: 'device-option-invalid', message: `no transport ${request.transport}` });
  }
  const sandbox = request.sandbox ? enter(calls.value, prepared.value) : ok<readonly SandboxLayer[]>([]);
  if (!sandbox.ok) {
    transport.value.close();
    close();
    return failed(sandbox.error);
  }
  reactor.value.watch(CONTROL, READABLE, () => reactor.value.stop());
  tell({
    ...{ event: 'listening', type: request.type, transport: request.transport },
    ...{ socket: request.socket, device: describe(prepared.value, request), sandbox: sandbox.value },
  });
  const outcome: Result<void> = reactor.value.run();
  transport.value.close();
  close();
  if (!outcome.ok) return failed(outcome.error);
  tell({ event: 'ended' });
  return 0;
}

/** Its virtual functions, each with options of its own. On failure none is left open. */
function openVirtual(served: ServedType, request: ServeRequest, host: DeviceHost): Result<readonly ServedDevice[]> {
  const opened: ServedDevice[] = [];
  for (const values of request.virtual ?? []) {
    const prepared = served.prepare(values);
    const device = prepared.ok ? prepared.value.open(host) : prepared;
    if (!device.ok) {
      for (const one of opened) one.close();
      return device;
    }
    opened.push(device.value);
  }
  return ok(opened);
}

function describe(prepared: PreparedDevice, { socket, virtual = [] }: ServeRequest): string {
  if (virtual.length === 0) return prepared.describe();
  const places = virtual.map((_, i) => virtualSocket(socket, i)).join(', ');
  return `${prepared.describe()}; virtual functions on ${places}`;
}

/** Codes: `sandbox-failed`, those of `enterSandbox`. */
function enter(calls: SystemCalls, prepared: PreparedDevice): Result<readonly SandboxLayer[]> {
  const report = enterSandbox(calls, { unixSockets: prepared.needs?.unixSockets ?? false, rings: false });
  if (!report.ok) return report;
  const broken = report.value.layers.filter(({ status }) => status === 'failed');
  if (broken.length === 0) return ok(report.value.layers);
  return fail('sandbox-failed', broken.map(({ layer, detail }) => `${layer}: ${detail}`).join('; '), {
    hint: '--no-sandbox serves without one',
  });
}

async function main(): Promise<void> {
  // A terminal sends its signals to every process of it: ours are the starter's to handle, in order.
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => {});
  let code: number;
  try {
    code = await serve(JSON.parse(process.argv[2] ?? '') as ServeRequest);
  } catch (error) {
    code = failed({
      code: 'device-defect',
      message: error instanceof Error ? (error.stack ?? error.message) : 'unknown',
    });
  }
  process.exit(code);
}

if (import.meta.main) await main();
