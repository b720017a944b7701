import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openHybridHost } from '@airlock/device/vsock/hybrid-host.ts';
import { RX, TX, VsockDevice } from '@airlock/device/vsock/vsock-device.ts';
import { fakeReactor } from '@airlock/transport/fake-reactor.ts';
import { HANGUP, READABLE, type Reactor } from '@airlock/transport/reactor.ts';
import { listenUnix } from '@airlock/transport/unix-listener.ts';
import { connectUnix, receive, send } from '@airlock/transport/unix-socket.ts';
import {
  encodeVsockHeader,
  parseVsockHeader,
  VSOCK_HEADER_SIZE,
  type VsockHeader,
} from '@airlock/virtio/request/vsock.ts';
import { DONE } from '@airlock/virtio/ring/queue.ts';
import { join } from './support/fake-stream.ts';
import { drive, must } from './support/in-memory-driver.ts';
import { openDescriptors, type RealReactor, realReactor } from './support/real-reactor.ts';

const CID = 42;
const BUFFER = 4096;
const NOTHING = new Uint8Array(0);
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const bytes = (words: string) => new TextEncoder().encode(words);

/** A driver over real sockets of a folder, as small as it gets. */
function open(real: RealReactor, reactor: Reactor = real.reactor) {
  const path = `${real.folder}/v.sock`;
  const host = must(openHybridHost(real.calls, reactor, path));
  const device = new VsockDevice({ guestCid: CID, connections: 16 }, host, reactor);
  const driven = drive(device);
  const [rx, tx] = [driven.queues[RX]?.driver, driven.queues[TX]?.driver];
  assert.ok(rx !== undefined && tx !== undefined);
  const give = (address: number) => {
    rx.writable(address, BUFFER);
    assert.equal(rx.submit(address), DONE);
    rx.publish();
  };
  for (let i = 0; i < 16; i++) give(driven.allocate(BUFFER));
  const slot = driven.allocate(70_000);
  const packets: { header: VsockHeader; payload: Uint8Array }[] = [];
  let forwardCount = 0;
  return {
    path,
    device,
    packets,
    send(header: Partial<VsockHeader>, payload = NOTHING) {
      const whole: VsockHeader = {
        sourceCid: CID,
        destinationCid: 2,
        sourcePort: 1000,
        destinationPort: 80,
        length: payload.length,
        type: 1,
        operation: 'rw',
        flags: 0,
        bufferAllocation: 65536,
        forwardCount,
        ...header,
      };
      driven.at(slot, VSOCK_HEADER_SIZE).set(encodeVsockHeader(whole));
      driven.at(slot + VSOCK_HEADER_SIZE, payload.length).set(payload);
      tx.readable(slot, VSOCK_HEADER_SIZE + payload.length);
      assert.equal(tx.submit(0), DONE);
      tx.publish();
      device.serve(TX);
      assert.equal(tx.complete(), DONE);
    },
    /** Takes what came, and gives the buffers back. */
    collect() {
      while (rx.complete() === DONE) {
        const packet = driven.at(rx.token, rx.written);
        const header = must(parseVsockHeader(packet, rx.written - VSOCK_HEADER_SIZE));
        const payload = packet.slice(VSOCK_HEADER_SIZE);
        packets.push({ header, payload });
        forwardCount = (forwardCount + payload.length) >>> 0;
        give(rx.token);
      }
      device.serve(RX);
    },
    /** The first packet of an operation, taken out. */
    find(operation: string) {
      this.collect();
      const at = packets.findIndex(({ header }) => header.operation === operation);
      return at < 0 ? undefined : packets.splice(at, 1)[0];
    },
    end() {
      driven.stop();
      device.close();
    },
  };
}

/** A process on the host. */
function program(real: RealReactor, fd: number) {
  const into = new Uint8Array(65536);
  return {
    fd,
    read(): Uint8Array | null {
      const got = must(receive(real.calls, fd, into, 0));
      return got.closed ? null : into.slice(0, got.length);
    },
    write: (data: Uint8Array) => must(send(real.calls, fd, data)),
    close: () => real.calls.close(fd),
  };
}

test('a program on the host calls the guest, and gets an end when the guest ends', async () => {
  const real = await realReactor();
  const before = openDescriptors();
  const guest = open(real);
  const caller = program(real, must(connectUnix(real.calls, guest.path)));
  caller.write(bytes('CONNECT 22\nearly'));
  let request: ReturnType<typeof guest.find>;
  assert.ok(
    real.until(() => {
      request = guest.find('request');
      return request !== undefined;
    }),
  );
  assert.equal(request?.header.destinationPort, 22);
  const ours = request?.header.sourcePort ?? 0;
  const at = { sourcePort: 22, destinationPort: ours };
  guest.send({ ...at, operation: 'response' });
  assert.equal(text(caller.read() ?? NOTHING), `OK ${ours}\n`);
  assert.equal(text(guest.find('rw')?.payload ?? NOTHING), 'early');
  guest.send(at, bytes('hello'));
  assert.equal(text(caller.read() ?? NOTHING), 'hello');
  caller.write(bytes('and back'));
  let answer: ReturnType<typeof guest.find>;
  assert.ok(
    real.until(() => {
      answer = guest.find('rw');
      return answer !== undefined;
    }),
  );
  assert.equal(text(answer?.payload ?? NOTHING), 'and back');
  guest.send({ ...at, operation: 'shutdown', flags: 3 });
  assert.equal(caller.read(), null);
  assert.equal(guest.find('rst')?.header.sourcePort, ours);
  caller.close();
  guest.end();
  assert.equal(openDescriptors(), before);
  real.end();
});

test('the guest calls a program of the host; a megabyte goes each way; half-closed ends are told', async () => {
  const real = await realReactor();
  const before = openDescriptors();
  const guest = open(real);
  const listener = must(listenUnix(real.calls, `${guest.path}_80`));
  guest.send({ operation: 'request' });
  assert.ok(guest.find('response') !== undefined);
  const fd = must(listener.accept());
  assert.ok(fd !== null);
  const server = program(real, fd);
  const size = 1_000_000;
  const data = Uint8Array.from({ length: size }, (_, i) => (i * 7 + (i >> 8)) & 255);

  const got: Uint8Array[] = [];
  const arrived: Uint8Array[] = [];
  let sent = 0;
  let returned = 0;
  let allocation = 131_072;
  let forwarded = 0;
  const done = real.until(() => {
    guest.collect();
    for (const { header, payload } of guest.packets.splice(0)) {
      allocation = header.bufferAllocation;
      forwarded = header.forwardCount;
      if (payload.length > 0) arrived.push(payload);
    }
    const credit = allocation - (sent - forwarded);
    const piece = data.subarray(sent, sent + Math.min(credit, 32_768));
    if (piece.length > 0) guest.send({}, piece);
    else guest.send({ operation: 'credit-update' });
    sent += piece.length;
    for (let read = server.read(); read !== null && read.length > 0; read = server.read()) got.push(read);
    returned += server.write(data.subarray(returned, returned + 50_000));
    return join(got).length === size && join(arrived).length === size;
  });
  assert.ok(done, `${join(got).length} and ${join(arrived).length} of ${size}`);
  assert.ok(Buffer.from(join(got)).equals(data));
  assert.ok(Buffer.from(join(arrived)).equals(data));

  guest.send({ operation: 'shutdown', flags: 2 });
  assert.equal(server.read(), null);
  real.calls.shutdown(fd, 1);
  let end: ReturnType<typeof guest.find>;
  assert.ok(
    real.until(() => {
      end = guest.find('shutdown');
      return end !== undefined;
    }),
  );
  assert.equal(end?.header.flags, 3);
  guest.send({ operation: 'rst' });
  server.close();
  listener.close();
  guest.end();
  assert.equal(openDescriptors(), before);
  real.end();
});

test('a port that nobody listens on, a file, and a socket of another kind are refused', async () => {
  const real = await realReactor();
  const guest = open(real);
  const before = openDescriptors();
  guest.send({ operation: 'request', destinationPort: 81 });
  assert.equal(guest.find('rst')?.header.sourcePort, 81);
  const listener = must(listenUnix(real.calls, `${guest.path}_82`, 'seqpacket'));
  guest.send({ operation: 'request', destinationPort: 82 });
  assert.equal(guest.find('rst')?.header.sourcePort, 82);
  guest.send({ operation: 'request', destinationPort: 82, type: 2 });
  assert.equal(guest.find('response')?.header.type, 2);
  guest.send({ operation: 'rst', destinationPort: 82, type: 2 });
  listener.close();
  assert.equal(openDescriptors(), before);
  guest.end();
  real.end();
});

test('a program that dies is told as the end of both halves', async () => {
  const real = await realReactor();
  const guest = open(real);
  const listener = must(listenUnix(real.calls, `${guest.path}_80`));
  guest.send({ operation: 'request' });
  const fd = must(listener.accept());
  assert.ok(fd !== null);
  send(real.calls, fd, bytes('last words'));
  real.calls.close(fd);
  let end: ReturnType<typeof guest.find>;
  assert.ok(
    real.until(() => {
      end = guest.find('shutdown');
      return end !== undefined;
    }),
  );
  assert.equal(end?.header.flags, 3);
  assert.equal(text(guest.find('rw')?.payload ?? NOTHING), 'last words');
  listener.close();
  guest.end();
  real.end();
});

/** Callers in a loop that the test turns by hand. */
async function calling(count: number) {
  const real = await realReactor();
  const reactor = fakeReactor();
  const guest = open(real, reactor);
  const callers = Array.from({ length: count }, () => {
    const caller = program(real, must(connectUnix(real.calls, guest.path)));
    for (let fd = 0; fd < 200; fd++) reactor.makeReady(fd, READABLE);
    return caller;
  });
  return {
    real,
    reactor,
    guest,
    callers,
    turn(events = READABLE) {
      for (let fd = 0; fd < 300; fd++) reactor.makeReady(fd, events);
    },
    end() {
      for (const { close } of callers) close();
      guest.end();
      real.end();
    },
  };
}

test('what is no call is hung up on: other words, no port, a line without end, bytes that are no text', async () => {
  const lines = [
    'HELLO\n',
    '\n',
    'CONNECT\n',
    'CONNECT \n',
    'CONNECT -1\n',
    'CONNECT 4294967295\n',
    'CONNECT 99999999999\n',
    'CONNECT 1e3\n',
    'CONNECT 22 \n',
    ' CONNECT 22\n',
    'connect 22\n',
    'CONNECT 22'.padEnd(400, '0'),
    'CONNECT 22\0\n',
    '\xff\xfe\n',
  ];
  const { guest, callers, turn, end } = await calling(lines.length);
  for (const [i, line] of lines.entries()) callers[i]?.write(bytes(line));
  turn();
  for (const [i, line] of lines.entries()) assert.equal(callers[i]?.read(), null, JSON.stringify(line));
  assert.equal(guest.find('request'), undefined);
  end();
});

test('a line that comes byte by byte is a call too', async () => {
  const { guest, callers, turn, end } = await calling(1);
  for (const one of bytes('CONNECT 22\r\n')) {
    callers[0]?.write(Uint8Array.of(one));
    turn();
  }
  assert.equal(guest.find('request')?.header.destinationPort, 22);
  end();
});

test('who says nothing is hung up on after a while; many who say nothing do not keep out the next', async () => {
  const { guest, reactor, callers, turn, end } = await calling(66);
  turn();
  const open = () => callers.filter(({ read }) => read() !== null).length;
  assert.equal(open(), 64);
  callers[65]?.write(bytes('CONNECT 22\n'));
  turn();
  assert.ok(guest.find('request') !== undefined);
  reactor.advance(6000);
  assert.equal(open(), 1);
  end();
});

test('a caller who hangs up before the guest answers leaves nothing behind', async () => {
  const { guest, callers, turn, end, reactor } = await calling(1);
  callers[0]?.write(bytes('CONNECT 22\n'));
  turn();
  const request = guest.find('request');
  callers[0]?.close();
  turn(READABLE | HANGUP);
  guest.send({ operation: 'response', sourcePort: 22, destinationPort: request?.header.sourcePort ?? 0 });
  turn(READABLE | HANGUP);
  guest.collect();
  assert.ok(guest.find('rst') ?? guest.find('shutdown'), 'the guest is told');
  callers.length = 0;
  end();
  assert.equal(reactor.watchCount, 0);
});
