/**
 * A hostile client and a hostile guest of PCI functions over vfio-user: messages of every kind with fields of every kind,
 * to real connections, and accesses of every width to configuration space and BARs. What must hold: nothing throws,
 * nothing hangs, the server goes on, and at the end there are as many descriptors and mappings as before.
 */
import { readdirSync } from 'node:fs';
import type { Result } from '@airlock/core/result.ts';
import { createReactor, type EventLoop } from '@airlock/transport/event-loop.ts';
import { createSharedMemory } from '@airlock/transport/shared-memory.ts';
import { loadSystemCalls, type SystemCalls } from '@airlock/transport/system-calls.ts';
import { receive, send, socketPair } from '@airlock/transport/unix-socket.ts';
import { Connection } from '@airlock/transport/vfio-user/connection.ts';
import { makeRegion } from '@airlock/virtio/memory/region.ts';
import { type AddressSpace, identitySpace } from '@airlock/virtio/memory/space.ts';
import { EntropyDevice } from '../src/entropy/device.ts';
import {
  accessControlServices,
  advancedErrorReporting,
  deviceSerialNumber,
  integrityAndDataEncryption,
} from '../src/pci/capability.ts';
import { DOE_CMA, DoeMailbox, PCI_SIG } from '../src/pci/doe.ts';
import { Sriov } from '../src/pci/sriov.ts';
import { virtioPciFunction } from '../src/register/virtio-pci.ts';

export interface Tally {
  messages: number;
  accesses: number;
  connections: number;
  /** Connections that the server ended, by code. */
  readonly ended: Map<string, number>;
  descriptorsBefore: number;
  descriptorsAfter: number;
}

function must<T>(result: Result<T>): T {
  if (result.ok) return result.value;
  throw new Error(`${result.error.code}: ${result.error.message}`);
}

/** Numbers that are the same for the same seed. */
function generator(seed: number): (below: number) => number {
  let state = seed >>> 0 || 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

const EDGES = [
  0, 1, 2, 3, 4, 7, 8, 15, 16, 20, 24, 31, 32, 33, 255, 256, 4095, 4096, 4097, 0x7fffffff, 0x80000000, 0xfffffffe,
  0xffffffff,
];
/** Accesses most often; VERSION again and answers to nothing, which end a connection, seldom. */
const COMMANDS = [2, 2, 3, 3, 4, 5, 7, 8, 8, 9, 9, 9, 9, 9, 9, 10, 10, 10, 10, 10, 10, 10, 13, 14];
const SIZES: Readonly<Record<number, number>> = {
  1: 24,
  2: 32,
  3: 24,
  4: 16,
  5: 32,
  7: 16,
  8: 20,
  9: 16,
  10: 20,
  11: 16,
  12: 20,
  13: 0,
};

function makeFunction(told: (code: string) => void) {
  const mailbox = new DoeMailbox(
    [{ vendor: PCI_SIG, type: DOE_CMA }],
    (_, payload) => payload.slice(0, 64 - (64 % 4)),
    64,
  );
  return must(
    virtioPciFunction(new EntropyDevice((target) => void target.fill(1)), {
      violated: ({ code }) => told(code),
      capabilities: [
        advancedErrorReporting().capability,
        deviceSerialNumber(1, 2),
        accessControlServices(),
        mailbox.capability,
        integrityAndDataEncryption({ linkStreams: true, selectiveStreams: 2 }).capability,
        must(Sriov.create({ total: 16, device: 0x1044, bars: [{ index: 0, size: 0x4000, kind: 'memory64' }] }))
          .capability,
      ],
    }),
  );
}

/** One message: mostly of the right form, so that it gets far, with fields at their edges. */
function compose(random: (below: number) => number): Uint8Array {
  const command = random(60) === 0 ? random(65536) : (COMMANDS[random(COMMANDS.length)] ?? 9);
  const right = SIZES[command] ?? 16;
  const size = random(80) === 0 ? random(80) : right + (command === 10 ? random(8) : 0);
  const bytes = new Uint8Array(16 + size);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, random(65536), true);
  view.setUint16(2, command, true);
  view.setUint32(4, random(300) === 0 ? (EDGES[random(EDGES.length)] ?? 0) : bytes.length, true);
  view.setUint32(8, random(300) === 0 ? random(256) : random(200) === 0 ? 1 : random(3) === 0 ? 0x10 : 0, true);
  for (let at = 16; at + 4 <= bytes.length; at += 4) {
    view.setUint32(
      at,
      random(2) === 0 ? random(16) : random(4) === 0 ? random(0x100000000) : (EDGES[random(EDGES.length)] ?? 0),
      true,
    );
  }
  if (random(20) !== 0) {
    // As a client that means well fills the fields that decide how far it gets.
    if ((command === 2 || command === 3) && size >= 4) view.setUint32(16, right, true);
    if (command === 2 && bytes.length === 48) {
      view.setUint32(20, 1 + random(3), true);
      for (const at of [24, 32, 40]) {
        view.setUint32(at, 4096 * random(24), true);
        view.setUint32(at + 4, 0, true);
      }
    }
    if ((command === 9 || command === 10) && size >= 16) {
      view.setUint32(16, random(8192), true);
      view.setUint32(20, 0, true);
      view.setUint32(24, [0, 2, 7][random(3)] ?? 0, true);
      view.setUint32(28, command === 10 ? size - 16 : 1 + random(64), true);
    }
    if (command === 8 && size === 20) view.setUint32(20, (1 << random(3)) | (8 << random(3)), true);
  }
  return bytes;
}

const GREETING = (() => {
  const text = '{"capabilities":{"max_msg_fds":8}}\0';
  const bytes = new Uint8Array(20 + text.length);
  const view = new DataView(bytes.buffer);
  view.setUint16(2, 1, true);
  view.setUint32(4, bytes.length, true);
  for (let i = 0; i < text.length; i++) bytes[20 + i] = text.charCodeAt(i);
  return bytes;
})();

/** Sends so many messages and makes so many accesses; throws where something escapes. */
export async function attackFunctions(messages: number, accesses: number, seed: number): Promise<Tally> {
  const calls = must(await loadSystemCalls());
  const random = generator(seed);
  const memory = must(createSharedMemory(calls, 'fuzz', 24 * 4096)).fd;
  const tally: Tally = {
    ...{ messages: 0, accesses: 0, connections: 0, ended: new Map<string, number>() },
    ...{ descriptorsBefore: 0, descriptorsAfter: 0 },
  };
  attackConfig(random, accesses, tally);
  const reactor = must(createReactor(calls, { spin: 0 }));
  // The engine opens descriptors of its own while it warms up.
  converse(calls, reactor, memory, random, 50, tally);
  tally.descriptorsBefore = readdirSync('/proc/self/fd').length;
  while (tally.messages < messages) converse(calls, reactor, memory, random, 20 + random(200), tally);
  tally.descriptorsAfter = readdirSync('/proc/self/fd').length;
  reactor.close();
  calls.close(memory);
  return tally;
}

function converse(
  calls: SystemCalls,
  reactor: EventLoop,
  memory: number,
  random: (below: number) => number,
  count: number,
  tally: Tally,
): void {
  const [client, server] = must(socketPair(calls));
  const { pci, side } = makeFunction(() => {});
  const removePoller = reactor.addPoller(side);
  let over = false;
  const connection = new Connection(calls, reactor, server, pci, {
    stealth: random(2) === 0,
    report() {},
    ended(problem) {
      over = true;
      const code = problem?.code ?? 'left';
      tally.ended.set(code, (tally.ended.get(code) ?? 0) + 1);
    },
  });
  const turn = () => {
    reactor.after(0, () => reactor.stop());
    must(reactor.run());
  };
  const replies = new Uint8Array(65536);
  if (random(50) !== 0) send(calls, client, GREETING);
  let sent = 0;
  while (sent < count && !over) {
    for (let burst = 1 + random(8); burst > 0; burst--) {
      const bytes = compose(random);
      const fds = random(20) === 0 ? Array.from({ length: random(3) }, () => memory) : [];
      if (!send(calls, client, bytes, fds).ok) break;
      sent++;
    }
    turn();
    for (let got = receive(calls, client, replies, 0); got.ok && got.value.length > 0; ) {
      got = receive(calls, client, replies, 0);
    }
  }
  tally.messages += sent;
  tally.connections++;
  calls.close(client);
  turn();
  connection.close();
  removePoller();
}

/** Reads and writes of every width at every place, by a guest that means harm. */
function attackConfig(random: (below: number) => number, accesses: number, tally: Tally): void {
  const { pci, side } = makeFunction(() => {});
  pci.attach(silentLink());
  const buffer = new Uint8Array(64);
  for (; tally.accesses < accesses; tally.accesses++) {
    const region = [0, 2, 7, 7][random(4)] ?? 7;
    const size = pci.regionSizes[region] ?? 0;
    const length = 1 + random(random(10) === 0 ? 64 : 8);
    const offset = random(Math.max(1, size - length));
    const bytes = buffer.subarray(0, length);
    if (random(2) === 0) pci.readRegion(region, offset, bytes);
    else {
      for (let i = 0; i < length; i++) bytes[i] = random(256);
      pci.writeRegion(region, offset, bytes);
    }
    if (random(5000) === 0) pci.reset();
    if (random(100) === 0) side.poll();
  }
  pci.detach();
}

function silentLink() {
  return {
    memory: must(emptySpace()),
    ownsInterrupts: false,
    lineAsserted: false,
    trigger() {},
    sendMessage() {},
    readDma() {},
    writeDma() {},
  };
}

function emptySpace(): Result<AddressSpace> {
  const region = makeRegion('ram', new ArrayBuffer(1 << 20));
  if (!region.ok) return region;
  return identitySpace(region.value);
}
