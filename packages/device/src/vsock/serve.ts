/** `airlock device serve vsock`: streams between guest and host, as Unix sockets. */
import { dirname, resolve } from 'node:path';
import { fail, ok } from '@airlock/core/result.ts';
import { readCount, readText } from '../option-value.ts';
import type { ServedType } from '../serve-type.ts';
import { openHybridHost } from './hybrid-host.ts';
import { VsockDevice } from './vsock-device.ts';

const CONNECTIONS = 512;

export const served: ServedType = {
  summary: 'streams between the guest and Unix sockets of this machine',
  options: {
    cid: { type: 'string', value: 'CID', help: 'the guest’s address, 3 to 4294967294; default 3' },
    host: {
      type: 'string',
      value: 'PATH',
      help: 'needed; who connects to PATH and writes "CONNECT PORT" reaches the guest, and the guest reaches PATH_PORT',
    },
    connections: { type: 'string', value: 'N', help: `the most connections at a time; default ${CONNECTIONS}` },
  },
  prepare(values) {
    const guestCid = readCount(values, 'cid', 3, 3, 0xfffffffe);
    if (!guestCid.ok) return guestCid;
    const connections = readCount(values, 'connections', CONNECTIONS, 1, 4096);
    if (!connections.ok) return connections;
    const path = readText(values, 'host');
    if (!path.ok) return path;
    const text = path.value;
    if (text === null) return fail('device-option-invalid', '--host PATH is needed');
    return ok({
      // The guest's calls are connections to sockets of the folder.
      needs: { unixSockets: true, listens: [text], folders: [dirname(text)] },
      describe: () => `CID ${guestCid.value}, host side at ${text}`,
      open(host) {
        const side = openHybridHost(host.calls, host.reactor, resolve(host.folder, text));
        if (!side.ok) return side;
        const options = { guestCid: guestCid.value, connections: connections.value };
        return ok(new VsockDevice(options, side.value, host.reactor));
      },
    });
  },
};
