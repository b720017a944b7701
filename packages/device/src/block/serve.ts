/** `airlock device serve block`: a raw image or a block device as a disk. */
import { resolve } from 'node:path';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { READABLE } from '@airlock/transport/reactor.ts';
import { createUring } from '@airlock/transport/uring.ts';
import { BLK_ID_SIZE } from '@airlock/virtio/request/block.ts';
import type { ServedDevice } from '@airlock/virtio/served-device.ts';
import { readCount, readFlag, readText, readWord } from '../option-value.ts';
import type { DeviceHost, OptionValues, PreparedDevice, ServedType } from '../serve-type.ts';
import { BlockDevice } from './block-device.ts';
import type { DiskShape } from './disk-config.ts';
import { FileDisk } from './file-disk.ts';
import { FileMap } from './file-map.ts';
import { type DiskChoice, openDisk } from './open-disk.ts';

/** More requests at a time than any medium works on; what is beyond waits in its queue's turn. */
const RING_ENTRIES = 256;

export const served: ServedType = {
  summary: 'a raw image or a block device as a disk',
  options: {
    file: { type: 'string', value: 'FILE', help: 'the image or block device; needed' },
    'read-only': { type: 'boolean', help: 'writes fail; the file is opened for reading' },
    direct: { type: 'boolean', help: 'past the page cache of this machine (O_DIRECT)' },
    map: {
      type: 'boolean',
      help: 'copy what was read lately from a mapping: faster, but the device dies if the file shrinks meanwhile',
    },
    cache: {
      type: 'string',
      value: 'MODE',
      help: 'writeback: on the medium after a flush (default); writethrough: before the guest is told',
    },
    serial: { type: 'string', value: 'TEXT', help: 'at most 20 letters, shown as the disk’s serial number; none' },
    'block-size': { type: 'string', value: 'BYTES', help: 'smallest block: 512 to 4096; what the file can do' },
    queues: { type: 'string', value: 'COUNT', help: 'request queues, 1 to 64; 16' },
    'queue-size': { type: 'string', value: 'COUNT', help: 'requests a queue, a power of two from 2 to 1024; 256' },
    segments: { type: 'string', value: 'COUNT', help: 'buffers a request, 1 to 1022; 254' },
    'no-discard': { type: 'boolean', help: 'the guest cannot give space back' },
  },
  prepare,
};

function prepare(values: OptionValues): Result<PreparedDevice> {
  const file = readText(values, 'file');
  if (!file.ok) return file;
  if (file.value === null) return fail('device-option-invalid', '--file FILE is needed');
  const blockSize = readCount(values, 'block-size', 0, 512, 4096);
  if (!blockSize.ok) return blockSize;
  const shape = readShape(values);
  if (!shape.ok) return shape;
  if (blockSize.value !== 0 && !isPowerOfTwo(blockSize.value)) {
    return fail('device-option-invalid', `--block-size ${blockSize.value}: a power of two`);
  }
  const choice = {
    file: file.value,
    readOnly: readFlag(values, 'read-only'),
    direct: readFlag(values, 'direct'),
    blockSize: blockSize.value === 0 ? null : blockSize.value,
    discard: !readFlag(values, 'no-discard'),
  };
  const mapped = readFlag(values, 'map');
  if (mapped && choice.direct)
    return fail('device-option-invalid', '--map is of the page cache, --direct goes past it');
  return ok({
    describe: () => `${choice.file}${choice.readOnly ? ', read-only' : ''}${choice.direct ? ', direct' : ''}`,
    open: (host) => open(host, choice, shape.value, mapped),
  });
}

function readShape(values: OptionValues): Result<DiskShape> {
  const queues = readCount(values, 'queues', 16, 1, 64);
  if (!queues.ok) return queues;
  const queueSize = readCount(values, 'queue-size', 256, 2, 1024);
  if (!queueSize.ok) return queueSize;
  if (!isPowerOfTwo(queueSize.value)) {
    return fail('device-option-invalid', `--queue-size ${queueSize.value}: a power of two`);
  }
  const segments = readCount(values, 'segments', 254, 1, 1022);
  if (!segments.ok) return segments;
  const cache = readWord(values, 'cache', 'writeback', ['writeback', 'writethrough']);
  if (!cache.ok) return cache;
  const serial = readText(values, 'serial');
  if (!serial.ok) return serial;
  const text = serial.value ?? '';
  if (text.length > BLK_ID_SIZE || !/^[\x20-\x7e]*$/.test(text)) {
    return fail('device-option-invalid', `--serial: at most ${BLK_ID_SIZE} characters of plain ASCII`);
  }
  return ok({
    queues: queues.value,
    queueSize: queueSize.value,
    segments: segments.value,
    serial: text,
    writeback: cache.value === 'writeback',
  });
}

function isPowerOfTwo(value: number): boolean {
  return Number.isInteger(Math.log2(value));
}

function open(host: DeviceHost, choice: DiskChoice, shape: DiskShape, mapped: boolean): Result<ServedDevice> {
  const facts = openDisk(host.calls, { ...choice, file: resolve(host.folder, choice.file) });
  if (!facts.ok) return facts;
  const ring = createUring(host.calls, RING_ENTRIES);
  if (!ring.ok) host.warn(`no io_uring, so a request that waits for the disk holds up others: ${ring.error.message}`);
  const { fd, size } = facts.value;
  const map = mapped ? FileMap.create(host.calls, fd, size, () => host.reactor.now()) : null;
  if (map?.ok === false) {
    host.calls.close(fd);
    return map;
  }
  const disk = new FileDisk(host.calls, facts.value, ring.ok ? ring.value : null, map?.value ?? null);
  const device = BlockDevice.create(disk, shape, () => host.reactor.now());
  if (!device.ok) {
    disk.close();
    return device;
  }
  host.reactor.addPoller(device.value);
  if (ring.ok) host.reactor.watch(ring.value.fd, READABLE, () => void device.value.poll());
  return device;
}
