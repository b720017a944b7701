import assert from 'node:assert/strict';
import { test } from 'node:test';
import { finishChecksum, foldSum, sumBytes } from '@airlock/device/net/checksum.ts';
import { Frame, ownFrame } from '@airlock/device/net/frame.ts';
import { Segmenter } from '@airlock/device/net/segmenter.ts';
import fc from 'fast-check';
import { plainChecksum, tcpChecksumsHold, tcpFrame } from './support/net-ends.ts';

const TCPV4 = 1;
const TCPV6 = 4;

function cut(payload: Uint8Array, gsoSize: number, version: 4 | 6, flags = 0x18, vlan?: number): Uint8Array[] {
  const made = tcpFrame(payload, { version, flags, ...(vlan === undefined ? {} : { vlan }) });
  const frame = ownFrame();
  frame.bytes.set(made.bytes, frame.start);
  frame.length = made.bytes.length;
  frame.flags = 1;
  frame.gsoType = version === 4 ? TCPV4 : TCPV6;
  frame.gsoSize = gsoSize;
  frame.checksumStart = made.transport;
  frame.checksumOffset = 16;
  const segmenter = new Segmenter();
  assert.ok(segmenter.begin(frame));
  const out = ownFrame();
  const segments: Uint8Array[] = [];
  while (segmenter.busy) {
    const expected = segmenter.nextLength();
    segmenter.next(out);
    assert.equal(out.length, expected);
    assert.equal(out.flags + out.gsoType, 0);
    segments.push(out.bytes.slice(out.start, out.start + out.length));
  }
  return segments;
}

test('segments have the payload in order, right lengths, sequence numbers, flags and checksums', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 0, maxLength: 6000 }),
      fc.integer({ min: 1, max: 2000 }),
      fc.constantFrom<4 | 6>(4, 6),
      fc.option(fc.integer({ min: 0, max: 4095 }), { nil: undefined }),
      fc.integer({ min: 0, max: 255 }),
      (payload, size, version, vlan, flags) => {
        const gsoSize = Math.max(size, Math.ceil(payload.length / 40));
        const segments = cut(payload, gsoSize, version, flags, vlan);
        assert.equal(segments.length, Math.max(1, Math.ceil(payload.length / gsoSize)));
        const network = vlan === undefined ? 14 : 18;
        const transport = network + (version === 4 ? 20 : 40);
        let done = 0;
        for (const [i, segment] of segments.entries()) {
          const view = new DataView(segment.buffer);
          assert.ok(tcpChecksumsHold(segment), `checksum of segment ${i}`);
          if (version === 4) {
            assert.equal(view.getUint16(network + 2), segment.length - network);
            assert.equal(view.getUint16(network + 4), 0x1234 + i);
          } else assert.equal(view.getUint16(network + 4), segment.length - network - 40);
          assert.equal(view.getUint32(transport + 4), (0xffff_ff00 + done) >>> 0);
          const kept = view.getUint8(transport + 13);
          const last = i === segments.length - 1;
          assert.equal(kept, (last ? flags : flags & ~9) & (i === 0 ? 0xff : ~0x80));
          const part = segment.subarray(transport + 20);
          assert.deepEqual(part, payload.subarray(done, done + part.length));
          done += part.length;
        }
        assert.equal(done, payload.length);
      },
    ),
    { numRuns: 200 },
  );
});

test('the largest packet, cut at one byte, ends', () => {
  const segments = cut(new Uint8Array(65_000).fill(1), 1, 4);
  assert.equal(segments.length, 65_000);
  assert.ok(tcpChecksumsHold(segments[64_999] ?? new Uint8Array(0)));
});

test('a checksum is that of RFC 1071, from any place and of any length', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.integer({ min: 0, max: 20 }), (bytes, from) => {
      const start = Math.min(from, bytes.length);
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      const ours = ~foldSum(sumBytes(view, start, bytes.length)) & 0xffff;
      const swapped = ((ours & 0xff) << 8) | (ours >>> 8);
      assert.equal(swapped, plainChecksum(bytes.subarray(start)));
    }),
  );
  const full = new Uint8Array(65_536).fill(0xff);
  assert.equal(foldSum(sumBytes(new DataView(full.buffer), 0, full.length)), 0xffff);
});

test('a checksum that comes out as zero is written as its other zero', () => {
  const frame = new Frame(new Uint8Array(200));
  frame.length = 60;
  frame.flags = 1;
  frame.checksumStart = 34;
  frame.checksumOffset = 6;
  frame.bytes.fill(0, frame.start, frame.start + 60);
  frame.view.setUint16(frame.start + 34, 0xffff);
  finishChecksum(frame);
  assert.equal(frame.view.getUint16(frame.start + 40), 0xffff);
});
