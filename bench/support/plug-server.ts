/**
 * An entropy device over vfio-user that says on standard output when it was used first (`used`) and when its VMM went
 * (`gone`): what a plug cycle waits for. `plug-server.ts SOCKET`.
 */
import { randomFillSync } from 'node:crypto';
import { writeSync } from 'node:fs';
import type { Result } from '@airlock/core/result.ts';
import { EntropyDevice } from '@airlock/device/entropy/device.ts';
import { virtioPciFunction } from '@airlock/device/register/virtio-pci.ts';
import { createReactor } from '@airlock/transport/event-loop.ts';
import { loadSystemCalls } from '@airlock/transport/system-calls.ts';
import { serveFunction } from '@airlock/transport/vfio-user/server.ts';

function must<T>(result: Result<T>): T {
  if (result.ok) return result.value;
  throw new Error(`${result.error.code}: ${result.error.message}`);
}

const calls = must(await loadSystemCalls());
const reactor = must(createReactor(calls));
let used = false;
const device = new EntropyDevice((target) => {
  randomFillSync(target);
  if (!used) writeSync(1, 'used\n');
  used = true;
});
const { pci, side } = must(virtioPciFunction(device));
reactor.addPoller(side);
must(
  serveFunction(calls, reactor, pci, {
    socket: process.argv[2] ?? '',
    stealth: true,
    tell(event) {
      if (event.kind !== 'disconnected') return;
      used = false;
      writeSync(1, 'gone\n');
    },
  }),
);
writeSync(1, 'listening\n');
must(reactor.run());
