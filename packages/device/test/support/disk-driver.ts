/** A driver of a virtual disk in memory: one request after another, or many at once. */
import assert from 'node:assert/strict';
import { BlockDevice } from '@airlock/device/block/block-device.ts';
import type { Disk } from '@airlock/device/block/disk.ts';
import type { DiskShape } from '@airlock/device/block/disk-config.ts';
import { BLK_HEADER_SIZE, writeBlockHeader } from '@airlock/virtio/request/block.ts';
import { DONE } from '@airlock/virtio/ring/queue.ts';
import { type DrivenDevice, type DriveOptions, drive, must } from './in-memory-driver.ts';

export const SHAPE: DiskShape = { queues: 1, queueSize: 64, segments: 62, serial: 'airlock-1', writeback: true };
const GARBAGE = 0xaa;
/** What a status byte is before the device writes it. */
export const NO_STATUS = 0xee;

export interface DiskRequest {
  readonly type: number;
  readonly sector?: number;
  /** Device-readable bytes after the header. */
  readonly out?: Uint8Array;
  /** How many device-writable bytes before the status. */
  readonly into?: number;
  /** Bytes of the buffers that `out` or `into` is cut into; one buffer when absent. */
  readonly pieces?: readonly number[];
  readonly queue?: number;
}

export interface DiskReply {
  readonly status: number;
  readonly data: Uint8Array;
  /** As the device told it. */
  readonly written: number;
}

export interface DrivenDisk {
  readonly driven: DrivenDevice;
  readonly device: BlockDevice;
  /** Puts a request into the ring; returns its token. */
  begin(request: DiskRequest): number;
  /** Lets the device work: `serve` and `poll` until both are idle. */
  run(): void;
  /** Replies that came since the last call, by token. */
  replies(): Map<number, DiskReply>;
  /** One request, from begin to end. */
  ask(request: DiskRequest): DiskReply;
}

export function driveDisk(disk: Disk, shape: Partial<DiskShape> = {}, options: DriveOptions = {}): DrivenDisk {
  let clock = 0;
  const device = must(BlockDevice.create(disk, { ...SHAPE, ...shape }, () => ++clock));
  const driven = drive(device, options);
  const open = new Map<number, { status: number; data: number; length: number }>();
  let token = 0;

  const begin = (request: DiskRequest): number => {
    const queue = driven.queues[request.queue ?? 0];
    assert.ok(queue !== undefined);
    const { driver } = queue;
    const header = driven.allocate(BLK_HEADER_SIZE);
    const view = new DataView(driven.region.bytes.buffer);
    writeBlockHeader(view, driven.at(header, 1).byteOffset, request.type, request.sector ?? 0);
    driver.readable(header, BLK_HEADER_SIZE);
    const { out, into = 0 } = request;
    const length = out?.length ?? into;
    const data = driven.allocate(Math.max(1, length));
    if (out !== undefined) driven.at(data, length).set(out);
    else driven.at(data, length).fill(GARBAGE);
    let at = 0;
    for (const piece of request.pieces ?? (length > 0 ? [length] : [])) {
      if (out !== undefined) driver.readable(data + at, piece);
      else driver.writable(data + at, piece);
      at += piece;
    }
    const status = driven.allocate(1);
    driven.at(status, 1)[0] = NO_STATUS;
    driver.writable(status, 1);
    token++;
    assert.equal(driver.submit(token), DONE);
    driver.publish();
    open.set(token, { status, data, length: into });
    return token;
  };

  const run = (): void => {
    for (let idle = 0; idle < 2; ) {
      let worked = device.poll();
      for (const [index] of driven.queues.entries()) if (device.serve(index) > 0) worked = true;
      idle = worked ? 0 : idle + 1;
    }
  };

  const replies = (): Map<number, DiskReply> => {
    const found = new Map<number, DiskReply>();
    for (const { driver } of driven.queues) {
      while (driver.complete() === DONE) {
        const request = open.get(driver.token);
        assert.ok(request !== undefined, 'a completion that nobody waits for');
        open.delete(driver.token);
        found.set(driver.token, {
          status: driven.at(request.status, 1)[0] ?? -1,
          data: driven.at(request.data, request.length).slice(),
          written: driver.written,
        });
      }
      assert.equal(driver.violation, null);
    }
    return found;
  };

  const ask = (request: DiskRequest): DiskReply => {
    const asked = begin(request);
    run();
    const reply = replies().get(asked);
    assert.ok(reply !== undefined, 'no reply');
    return reply;
  };

  return { driven, device, begin, run, replies, ask };
}

/** One segment of a discard or write-zeroes. */
export function segment(sector: number, sectors: number, flags = 0): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, sector, true);
  view.setUint32(4, Math.floor(sector / 2 ** 32), true);
  view.setUint32(8, sectors, true);
  view.setUint32(12, flags, true);
  return bytes;
}
