/** `airlock device serve net`: a network card, and what is at its other end. */
import { randomFillSync } from 'node:crypto';
import { resolve } from 'node:path';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { readCount, readText } from '../option-value.ts';
import type { DeviceHost, DeviceNeeds, ServedType } from '../serve-type.ts';
import { openDatagrams } from './datagram-end.ts';
import { NetDevice, PAIRS_LIMIT } from './device.ts';
import type { NetEnd } from './end.ts';
import { StreamEnd } from './stream-end.ts';
import { connectingSource, listeningSource } from './stream-source.ts';
import { isInterfaceName, openTap } from './tap-end.ts';
import { LEAST_MTU } from './user/network.ts';
import { UserEnd } from './user-end.ts';

/** Locally administered; the first bytes are those that QEMU gives its guests. */
const MAC_PREFIX = [0x52, 0x54, 0x00];
const LONGEST_MTU = 65_535;
const DEFAULT_MTU = 1500;

/** Where frames go, read but not opened. */
interface EndChoice {
  readonly text: string;
  readonly needs?: DeviceNeeds;
  open(host: DeviceHost): Result<NetEnd>;
}

export const served: ServedType = {
  summary: 'a network card, to a TAP, a Unix socket or a network in memory',
  options: {
    tap: { type: 'string', value: 'NAME', help: 'the other end is this TAP of the machine, with all offloads' },
    peer: {
      type: 'string',
      value: 'PEER',
      help: 'or: unix:PATH, unix-listen:PATH (QEMU’s stream), dgram:LOCAL,REMOTE (QEMU’s dgram), user (reaches nothing)',
    },
    mac: { type: 'string', value: 'MAC', help: 'the card’s address; default 52:54:00 and three random bytes' },
    mtu: { type: 'string', value: 'BYTES', help: 'told to the driver and held; default: not told' },
    queues: { type: 'string', value: 'N', help: `pairs of queues, 1 to ${PAIRS_LIMIT}; default 1` },
    speed: { type: 'string', value: 'MBIT', help: 'told to the driver, with full duplex; default: not told' },
  },
  prepare(values) {
    const tap = readText(values, 'tap');
    if (!tap.ok) return tap;
    const peer = readText(values, 'peer');
    if (!peer.ok) return peer;
    const mtu = readCount(values, 'mtu', 0, LEAST_MTU, LONGEST_MTU);
    if (!mtu.ok) return mtu;
    const pairs = readCount(values, 'queues', 1, 1, PAIRS_LIMIT);
    if (!pairs.ok) return pairs;
    const speed = readCount(values, 'speed', 0, 1, 0x7fff_ffff);
    if (!speed.ok) return speed;
    const address = readText(values, 'mac');
    if (!address.ok) return address;
    const mac = address.value === null ? ok(null) : parseMac(address.value);
    if (!mac.ok) return mac;
    const choice = chooseEnd(tap.value, peer.value, mtu.value);
    if (!choice.ok) return choice;
    const { text, needs, open } = choice.value;
    const queues = pairs.value === 1 ? '' : `, ${pairs.value} pairs of queues`;
    return ok({
      // A TAP belongs to the network that it was made in.
      ...(tap.value === null ? {} : { needs: { keep: ['network'] as const } }),
      describe: () => `network card, ${text}${queues}`,
      ...(needs === undefined ? {} : { needs }),
      open(host) {
        const end = open(host);
        if (!end.ok) return end;
        const device = NetDevice.create({
          end: end.value,
          mac: mac.value ?? randomMac(),
          pairs: pairs.value,
          warn: (text) => host.warn(text),
          ...(mtu.value === 0 ? {} : { mtu: mtu.value }),
          ...(speed.value === 0 ? {} : { speed: speed.value }),
        });
        if (!device.ok) return device;
        attach(host, device.value, end.value);
        return device;
      },
    });
  },
};

/** Lets the device work when its other end has something, and goes on with what it left for later. */
export function attach(host: Pick<DeviceHost, 'reactor'>, device: NetDevice, end: NetEnd): void {
  end.open(() => device.wake());
  host.reactor.addPoller({
    poll: () => device.restless && device.work(),
    prepareToSleep: () => device.restless,
  });
}

function chooseEnd(tap: string | null, peer: string | null, mtu: number): Result<EndChoice> {
  if ((tap === null) === (peer === null)) {
    return fail('device-option-invalid', 'one of --tap NAME and --peer PEER is needed', {
      hint: 'for a network that leads nowhere: --peer user',
    });
  }
  if (tap !== null) {
    if (!isInterfaceName(tap)) return fail('device-option-invalid', `--tap ${tap}: no name of an interface`);
    return ok({
      text: `TAP ${tap}`,
      needs: { keep: ['network'] },
      open: ({ calls, reactor }) => openTap(calls, reactor, tap),
    });
  }
  const [kind = '', ...rest] = (peer ?? '').split(':');
  const path = rest.join(':');
  if (kind === 'user' && rest.length === 0) {
    return ok({
      text: 'user-mode network (gateway 10.0.2.2, reaches nothing else)',
      open: ({ reactor }) => ok(new UserEnd(reactor, random32, mtu === 0 ? DEFAULT_MTU : mtu)),
    });
  }
  if (kind === 'unix' || kind === 'unix-listen') {
    if (path === '') return fail('device-option-invalid', `--peer ${kind}:PATH needs a path`);
    const source = kind === 'unix' ? connectingSource : listeningSource;
    return ok({
      text: `${kind === 'unix' ? 'connected to' : 'peer comes to'} ${path}`,
      needs: kind === 'unix' ? { unixSockets: true } : { listens: [path] },
      open({ calls, reactor, folder }) {
        const opened = source(calls, resolve(folder, path));
        return opened.ok ? ok(new StreamEnd(calls, reactor, opened.value)) : opened;
      },
    });
  }
  if (kind === 'dgram') {
    const [local = '', remote = '', ...more] = path.split(',');
    if (local === '' || remote === '' || more.length > 0) {
      return fail('device-option-invalid', '--peer dgram:LOCAL,REMOTE needs two paths');
    }
    return ok({
      text: `datagrams from ${local} to ${remote}`,
      needs: { listens: [local] },
      open: ({ calls, reactor, folder }) =>
        openDatagrams(calls, reactor, resolve(folder, local), resolve(folder, remote)),
    });
  }
  return fail('device-option-invalid', `--peer ${peer}: unix:PATH, unix-listen:PATH, dgram:LOCAL,REMOTE or user`);
}

/** Six bytes of `52:54:00:12:34:56`. Not a group's address, not nobody's. Code: `device-option-invalid`. */
function parseMac(text: string): Result<Uint8Array> {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) {
    return fail('device-option-invalid', `--mac ${text}: six bytes as 52:54:00:12:34:56`);
  }
  const mac = Uint8Array.from(text.split(':'), (part) => Number.parseInt(part, 16));
  if (((mac[0] ?? 0) & 1) === 1) return fail('device-option-invalid', `--mac ${text} is the address of a group`);
  if (mac.every((byte) => byte === 0)) return fail('device-option-invalid', `--mac ${text} is nobody’s address`);
  return ok(mac);
}

function randomMac(): Uint8Array {
  const mac = randomFillSync(new Uint8Array(6));
  mac.set(MAC_PREFIX);
  return mac;
}

function random32(): number {
  return new DataView(randomFillSync(new Uint8Array(4)).buffer).getUint32(0);
}
