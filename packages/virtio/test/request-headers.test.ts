/** Headers of requests: bytes by hand, lies, and anything at all. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hex } from '@airlock/core/bytes.ts';
import { DEVICE_ERRORS } from '@airlock/virtio/errors.ts';
import {
  BLK_DISCARD,
  BLK_FLUSH,
  BLK_GET_ID,
  BLK_IN,
  BLK_IOERR,
  BLK_OK,
  BLK_OUT,
  BLK_UNSUPPORTED,
  BLK_WRITE_ZEROES,
  BlockRequest,
  parseSegments,
  writeBlockHeader,
} from '@airlock/virtio/request/block.ts';
import { encodeConsoleControl, parseConsoleControl } from '@airlock/virtio/request/console.ts';
import { parseInputEvent } from '@airlock/virtio/request/input.ts';
import { encodeNetHeader, type NetOffloads, parseNetHeader } from '@airlock/virtio/request/net.ts';
import { parseP9Header } from '@airlock/virtio/request/p9.ts';
import { encodeVsockHeader, parseVsockHeader, VSOCK_HEADER_SIZE } from '@airlock/virtio/request/vsock.ts';
import { Chain } from '@airlock/virtio/ring/chain.ts';
import fc from 'fast-check';
import { BASE, guardedMemory, must } from './support/both-ends.ts';

function code(result: { ok: boolean; error?: { code: string } }): string {
  return result.ok ? 'ok' : (result.error?.code ?? '');
}

/** A chain over fresh memory: the readable bytes given, cut into pieces of `cut`, then `room` writable bytes. */
function chainOf(readable: Uint8Array, room: number, cut = 5): Chain {
  const { space, region } = guardedMemory(65536);
  const chain = new Chain(256);
  chain.begin(0);
  for (let at = 0; at < readable.length; at += cut) {
    const piece = readable.subarray(at, at + cut);
    region.bytes.set(piece, at * 2);
    assert.equal(chain.append(space, BASE + at * 2, piece.length, false), 0);
  }
  if (room > 0) assert.equal(chain.append(space, BASE + 32768, room, true), 0);
  return chain;
}

function header(type: number, sector: number, data = 0): Uint8Array {
  const bytes = new Uint8Array(16 + data);
  writeBlockHeader(new DataView(bytes.buffer), 0, type, sector);
  return bytes;
}

test('§5.2.6: a header is the same however the driver cuts it (§2.7.4.1)', () => {
  const request = new BlockRequest();
  assert.equal(hex(header(BLK_OUT, 0x1_0000_0002)), '01000000000000000200000001000000');
  for (const cut of [1, 3, 16, 600]) {
    assert.equal(request.parse(chainOf(header(BLK_OUT, 0x1_0000_0002, 512), 1, Math.max(cut, 3))), BLK_OK);
    assert.deepEqual(
      [request.type, request.sector, request.length, request.statusAt],
      [BLK_OUT, 0x1_0000_0002, 512, 0],
    );
  }
  assert.equal(request.parse(chainOf(header(BLK_IN, 7), 1025)), BLK_OK);
  assert.deepEqual([request.type, request.sector, request.length, request.statusAt], [BLK_IN, 7, 1024, 1024]);
});

test('§5.2.6: header and buffers that contradict each other', () => {
  const request = new BlockRequest();
  const outcome = (bytes: Uint8Array, room: number) => request.parse(chainOf(bytes, room, 600));
  assert.equal(outcome(header(BLK_IN, 0), 0), -1, 'no room for a status');
  assert.equal(outcome(header(BLK_IN, 0).slice(0, 15), 513), BLK_IOERR, 'no whole header');
  assert.equal(outcome(header(BLK_IN, 0), 1), BLK_IOERR, 'a read of nothing');
  assert.equal(outcome(header(BLK_IN, 0), 512), BLK_IOERR, 'no whole sector');
  assert.equal(outcome(header(BLK_IN, 0, 512), 513), BLK_IOERR, 'a read with data to write');
  assert.equal(outcome(header(BLK_OUT, 0), 1), BLK_IOERR, 'a write of nothing');
  assert.equal(outcome(header(BLK_OUT, 0, 511), 1), BLK_IOERR);
  assert.equal(outcome(header(BLK_OUT, 0, 512), 513), BLK_IOERR, 'a write with room to read');
  assert.equal(outcome(header(BLK_OUT, 2 ** 52, 512), 1), BLK_IOERR, 'a sector that no disk has');
  assert.equal(outcome(header(BLK_FLUSH, 5), 1), BLK_OK);
  assert.equal(outcome(header(BLK_FLUSH, 5), 2), BLK_IOERR);
  assert.equal(outcome(header(BLK_GET_ID, 0), 21), BLK_OK);
  assert.equal(outcome(header(BLK_DISCARD, 0, 17), 1), BLK_IOERR);
  for (const type of [2, 3, 5, 7, 12, 99, 0x80000000, 0xffffffff]) {
    assert.equal(outcome(header(type, 0), 1), BLK_UNSUPPORTED, `type ${type}`);
  }
});

test('a read at the end of the disk, one over it, and one where the sum would wrap', () => {
  const request = new BlockRequest();
  const within = (sector: number, bytes: number, capacity: number) => {
    assert.equal(request.parse(chainOf(header(BLK_IN, sector), bytes + 1)), BLK_OK);
    return request.within(capacity);
  };
  assert.equal(within(6, 1024, 8), true);
  assert.equal(within(7, 1024, 8), false);
  assert.equal(within(8, 512, 8), false);
  assert.equal(within(2 ** 44, 512, 8), false);
});

test('§5.2.6.2: segments of discard and write-zeroes', () => {
  const segment = (sector: number, sectors: number, flags = 0) => {
    const bytes = new Uint8Array(16);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, sector >>> 0, true);
    view.setUint32(4, Math.floor(sector / 2 ** 32), true);
    view.setUint32(8, sectors, true);
    view.setUint32(12, flags, true);
    return bytes;
  };
  assert.deepEqual(parseSegments(BLK_WRITE_ZEROES, segment(5, 3, 1), 8, 1), [{ sector: 5, sectors: 3, unmap: true }]);
  assert.equal(parseSegments(BLK_DISCARD, segment(5, 3, 1), 8, 1), BLK_UNSUPPORTED, 'discard has no unmap');
  assert.equal(parseSegments(BLK_WRITE_ZEROES, segment(5, 3, 2), 8, 1), BLK_UNSUPPORTED, 'a reserved flag');
  assert.equal(parseSegments(BLK_DISCARD, segment(5, 4), 8, 1), BLK_IOERR);
  assert.equal(parseSegments(BLK_DISCARD, segment(2 ** 63, 1), 8, 1), BLK_IOERR);
  assert.equal(parseSegments(BLK_DISCARD, segment(1, 0xffffffff), 8, 1), BLK_IOERR);
  assert.equal(parseSegments(BLK_DISCARD, new Uint8Array(32), 8, 1), BLK_IOERR, 'more segments than allowed');
  for (const length of [0, 15, 17]) assert.equal(parseSegments(BLK_DISCARD, new Uint8Array(length), 8, 9), BLK_IOERR);
});

const ALL: NetOffloads = { checksum: true, gsoTypes: [1, 3, 4, 5], ecn: true, mergeable: true };
const NONE: NetOffloads = { checksum: false, gsoTypes: [], ecn: false, mergeable: false };
const TCP = {
  flags: 1,
  gsoType: 1,
  ecn: false,
  headerLength: 54,
  gsoSize: 1448,
  checksumStart: 34,
  checksumOffset: 16,
  buffers: 1,
};

test('§5.1.6: a network header as bytes', () => {
  assert.equal(hex(encodeNetHeader(TCP)), ['01', '01', '3600', 'a805', '2200', '1000', '0100'].join(''));
  assert.deepEqual(must(parseNetHeader(encodeNetHeader(TCP), 4000, ALL)), TCP);
  const plain = { ...TCP, flags: 0, gsoType: 0, gsoSize: 0, headerLength: 0, checksumStart: 0, checksumOffset: 0 };
  assert.deepEqual(must(parseNetHeader(encodeNetHeader({ ...plain, buffers: 0 }), 60, NONE)).gsoType, 0);
});

test('§5.1.6: offsets outside of the packet, and offloads that were not negotiated', () => {
  const outcome = (change: object, length = 4000, offloads = ALL) =>
    code(parseNetHeader(encodeNetHeader({ ...TCP, ...change }), length, offloads));
  assert.equal(outcome({}), 'ok');
  assert.equal(outcome({ checksumStart: 0xffff, checksumOffset: 0xffff }), 'request-malformed');
  assert.equal(outcome({}, 51), 'request-malformed', 'the checksum is the last thing that must fit');
  assert.equal(outcome({ gsoType: 0 }, 52), 'ok');
  assert.equal(outcome({}, 52), 'request-malformed', 'headers longer than the packet');
  assert.equal(outcome({ gsoSize: 0 }), 'request-malformed');
  assert.equal(outcome({ flags: 0 }), 'request-malformed');
  assert.equal(outcome({ gsoType: 2 }), 'request-malformed');
  assert.equal(outcome({ gsoType: 0x21 }), 'request-malformed');
  assert.equal(outcome({ gsoType: 0, ecn: true }), 'request-malformed');
  assert.equal(outcome({ ecn: true }, 4000, { ...ALL, ecn: false }), 'request-malformed');
  assert.equal(outcome({ buffers: 0 }), 'request-malformed');
  assert.equal(outcome({}, 4000, NONE), 'request-malformed');
  assert.equal(code(parseNetHeader(new Uint8Array(11), 100, ALL)), 'request-truncated');
});

test('§5.10.6: a socket header as bytes, and its lies', () => {
  const rw = {
    sourceCid: 3,
    destinationCid: 2,
    sourcePort: 1024,
    destinationPort: 80,
    length: 5,
    type: 1,
    operation: 'rw',
    flags: 0,
    bufferAllocation: 65536,
    forwardCount: 9,
  } as const;
  const bytes = encodeVsockHeader(rw);
  assert.equal(
    hex(bytes),
    [
      '0300000000000000',
      '0200000000000000',
      '00040000',
      '50000000',
      '05000000',
      '0100',
      '0500',
      '00000000',
      '00000100',
      '09000000',
    ].join(''),
  );
  assert.deepEqual(must(parseVsockHeader(bytes, 5)), rw);
  assert.equal(code(parseVsockHeader(bytes, 4)), 'request-malformed');
  assert.equal(code(parseVsockHeader(bytes.slice(0, VSOCK_HEADER_SIZE - 1), 5)), 'request-truncated');
  assert.equal(code(parseVsockHeader(encodeVsockHeader({ ...rw, operation: 'rst' }), 5)), 'request-malformed');
  for (const [at, value] of [
    [4, 1],
    [12, 1],
    [30, 0],
    [30, 8],
  ] as const) {
    const changed = bytes.slice();
    changed[at] = value;
    assert.equal(code(parseVsockHeader(changed, 5)), 'request-malformed', `byte ${at}`);
  }
});

test('§5.3.6.2: console control messages', () => {
  const resize = Uint8Array.of(1, 0, 0, 0, 5, 0, 0, 0, 80, 0, 25, 0);
  assert.deepEqual(must(parseConsoleControl(resize, 2)), {
    port: 1,
    event: 'resize',
    value: 0,
    size: { columns: 80, rows: 25 },
  });
  assert.deepEqual(encodeConsoleControl(must(parseConsoleControl(resize, 2))), resize);
  assert.equal(code(parseConsoleControl(resize, 1)), 'request-malformed', 'a port that is not there');
  assert.equal(code(parseConsoleControl(resize.slice(0, 11), 2)), 'request-truncated');
  assert.equal(code(parseConsoleControl(resize.slice(0, 7), 2)), 'request-truncated');
  const ready = Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0, 0, 1, 0);
  assert.equal(must(parseConsoleControl(ready, 1)).event, 'device-ready');
  const name = Uint8Array.of(0, 0, 0, 0, 7, 0, 1, 0, 0x61, 0x62, 0);
  assert.deepEqual(must(parseConsoleControl(name, 1)).name, Uint8Array.of(0x61, 0x62));
  assert.equal(code(parseConsoleControl(name.slice(0, 8), 1)), 'request-malformed');
  assert.equal(code(parseConsoleControl(Uint8Array.of(0, 0, 0, 0, 8, 0, 0, 0), 1)), 'request-malformed');
  const long = new Uint8Array(8 + 129).fill(0x61);
  long.set(name.slice(0, 8));
  assert.equal(code(parseConsoleControl(long, 1)), 'request-malformed');
});

test('9P header and input event', () => {
  assert.deepEqual(must(parseP9Header(Uint8Array.of(19, 0, 0, 0, 100, 0xff, 0xff), 19)), {
    size: 19,
    type: 100,
    tag: 0xffff,
  });
  assert.equal(code(parseP9Header(Uint8Array.of(20, 0, 0, 0, 100, 0, 0), 19)), 'request-malformed');
  assert.equal(code(parseP9Header(Uint8Array.of(6, 0, 0, 0, 100, 0, 0), 19)), 'request-malformed');
  assert.equal(code(parseP9Header(new Uint8Array(6), 19)), 'request-truncated');
  assert.deepEqual(must(parseInputEvent(Uint8Array.of(1, 0, 30, 0, 255, 255, 255, 255))), {
    type: 1,
    code: 30,
    value: -1,
  });
  assert.equal(code(parseInputEvent(Uint8Array.of(0x20, 0, 0, 0, 0, 0, 0, 0))), 'request-malformed');
  assert.equal(code(parseInputEvent(Uint8Array.of(1, 0, 0, 3, 0, 0, 0, 0))), 'request-malformed');
});

test('any bytes at all: a value that keeps its promises, or a code', () => {
  const bytes = fc.uint8Array({ maxLength: 160 });
  const known = (result: { ok: boolean; error?: { code: string } }) =>
    result.ok || (result.error?.code ?? '') in DEVICE_ERRORS;
  fc.assert(
    fc.property(bytes, fc.nat(70_000), fc.boolean(), (data, length, all) => {
      const net = parseNetHeader(data, length, all ? ALL : NONE);
      assert.ok(known(net));
      if (net.ok && (net.value.flags & 1) !== 0) {
        assert.ok(net.value.checksumStart + net.value.checksumOffset + 2 <= length);
      }
      const vsock = parseVsockHeader(data, length);
      assert.ok(known(vsock));
      if (vsock.ok) assert.ok(vsock.value.length <= length);
      const control = parseConsoleControl(data, 4);
      assert.ok(known(control));
      if (control.ok && control.value.event !== 'device-ready') assert.ok(control.value.port < 4);
      assert.ok(known(parseP9Header(data, length)));
      assert.ok(known(parseInputEvent(data)));
      const segments = parseSegments(BLK_WRITE_ZEROES, data, 1000, 4);
      if (typeof segments !== 'number') {
        for (const { sector, sectors } of segments) assert.ok(sector + sectors <= 1000);
      }
      const request = new BlockRequest();
      const outcome = request.parse(chainOf(data, length % 4096));
      assert.ok([-1, BLK_OK, BLK_IOERR, BLK_UNSUPPORTED].includes(outcome));
    }),
    { numRuns: 1000 },
  );
});
