/** Configuration space: layouts of VIRTIO 1.4 §5 and the rules of §2.5. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DEVICE_FEATURES, featureBit, featureName, VIRTIO_TYPES } from '@airlock/core/virtio.ts';
import type { ConfigField, DeviceType } from '@airlock/virtio/config/field.ts';
import {
  type ConfigAccess,
  checkChange,
  configSize,
  decodeConfig,
  encodeChange,
  encodeConfig,
  GENERATION_TRIES,
  hasField,
  presentFields,
  queueNames,
  readConfig,
} from '@airlock/virtio/config/space.ts';
import { DEVICE_TYPES, deviceType } from '@airlock/virtio/device-types.ts';
import { DEVICE_ERRORS } from '@airlock/virtio/errors.ts';
import { type Features, featureSet, NO_FEATURES } from '@airlock/virtio/features.ts';
import fc from 'fast-check';
import { must } from './support/both-ends.ts';

function features(...names: string[]): Features {
  return featureSet(
    names.map((name) => {
      const bit = featureBit(name);
      assert.ok(bit !== undefined, name);
      return bit;
    }),
  );
}

function typeOf(name: string): DeviceType {
  const type = deviceType(name);
  assert.ok(type, name);
  return type;
}

function code(result: { ok: boolean; error?: { code: string } }): string {
  return result.ok ? 'ok' : (result.error?.code ?? '');
}

/** Every feature of a type, without those that take fields away. */
function everyFeature(type: DeviceType): Features {
  const bits = Object.keys(DEVICE_FEATURES[type.name] ?? {}).map(Number);
  return featureSet(bits.filter((bit) => !type.config.some((field) => field.unless === featureName(type.name, bit))));
}

test('every type that core names is here, under its own name and id', () => {
  assert.deepEqual(Object.keys(DEVICE_TYPES).sort(), Object.keys(VIRTIO_TYPES).sort());
  for (const [name, id] of Object.entries(VIRTIO_TYPES)) {
    assert.equal(deviceType(id)?.name, name);
    assert.equal(deviceType(name)?.name, name);
  }
  for (const which of [0, 6, 7, 99, -1, Number.NaN, 'constructor', '__proto__', 'blk']) {
    assert.equal(deviceType(which), undefined);
  }
});

test('fields lie in order, aligned to their width, without overlap, and depend on features that exist', () => {
  for (const type of Object.values(DEVICE_TYPES)) {
    let end = 0;
    for (const field of type.config) {
      // 9p's tag is the one field without natural alignment to care for: it is bytes.
      assert.equal(field.offset % field.width, 0, `${type.name}.${field.name}`);
      assert.ok(field.offset >= end, `${type.name}.${field.name} overlaps what is before it`);
      end = field.offset + field.width * (typeof field.count === 'number' ? field.count : 1);
      for (const name of [...(field.features ?? []), ...(field.unless ? [field.unless] : [])]) {
        const bit = featureBit(name);
        assert.ok(
          bit !== undefined && DEVICE_FEATURES[type.name]?.[bit] === name,
          `${type.name}.${field.name}: ${name}`,
        );
      }
    }
    for (const group of type.queues) {
      if (group.count)
        assert.ok(
          type.config.some((field) => field.name === group.count),
          `${type.name}: ${group.count}`,
        );
      if (group.feature) assert.ok(featureBit(group.feature) !== undefined, `${type.name}: ${group.feature}`);
    }
  }
});

test('§5: the size of each configuration space, counted by hand from the structures', () => {
  const sizes = Object.fromEntries(Object.values(DEVICE_TYPES).map((type) => [type.name, configSize(type)]));
  assert.deepEqual(sizes, {
    net: 28,
    block: 93, // 96 with the padding after `model`
    console: 12,
    entropy: 0,
    balloon: 16,
    scsi: 36,
    '9p': 257,
    gpu: 20,
    rtc: 0,
    input: 136,
    vsock: 8,
    crypto: 56,
    iommu: 37, // 40 with the padding after `bypass`
    memory: 56,
    sound: 16,
    fs: 44,
    pmem: 16,
    rpmb: 3,
    scmi: 0,
    i2c: 0,
    can: 2,
    gpio: 8,
    spi: 32,
    media: 40,
  });
});

test('§5.2.4: a block device’s space, written down by hand', () => {
  const bytes = Uint8Array.of(
    ...[0, 0, 8, 0, 0, 0, 0, 0], // capacity 0x80000 sectors
    ...[0, 0, 1, 0], // size_max 65536
    ...[126, 0, 0, 0], // seg_max
    ...[0, 2, 16, 63], // cylinders 512, heads 16, sectors 63
    ...[0, 16, 0, 0], // blk_size 4096
    ...[3, 0, 1, 0, 8, 0, 0, 0], // topology
    ...[1, 0, 4, 0], // writeback, unused, num_queues 4
  );
  const agreed = features(
    'BLK_F_SIZE_MAX',
    'BLK_F_SEG_MAX',
    'BLK_F_GEOMETRY',
    'BLK_F_BLK_SIZE',
    'BLK_F_TOPOLOGY',
    'BLK_F_CONFIG_WCE',
    'BLK_F_MQ',
  );
  assert.deepEqual(must(decodeConfig(typeOf('block'), agreed, bytes)), {
    capacity: 0x80000,
    size_max: 65536,
    seg_max: 126,
    'geometry.cylinders': 512,
    'geometry.heads': 16,
    'geometry.sectors': 63,
    blk_size: 4096,
    'topology.physical_block_exp': 3,
    'topology.alignment_offset': 0,
    'topology.min_io_size': 1,
    'topology.opt_io_size': 8,
    writeback: 1,
    num_queues: 4,
  });
  assert.deepEqual(must(decodeConfig(typeOf('block'), NO_FEATURES, bytes)), { capacity: 0x80000 });
  assert.deepEqual(
    must(encodeConfig(typeOf('block'), agreed, must(decodeConfig(typeOf('block'), agreed, bytes)))),
    bytes,
  );
});

test('§5.1.4: a network card’s space, written down by hand', () => {
  const bytes = Uint8Array.of(...[0x52, 0x54, 0, 1, 2, 3], ...[1, 0], ...[4, 0], ...[0xdc, 5]);
  const agreed = features('NET_F_STATUS', 'NET_F_MQ', 'NET_F_CTRL_VQ', 'NET_F_MTU', 'NET_F_MAC');
  const values = must(decodeConfig(typeOf('net'), agreed, bytes));
  assert.deepEqual(values, { mac: [0x52, 0x54, 0, 1, 2, 3], status: 1, max_virtqueue_pairs: 4, mtu: 1500 });
  const names = must(queueNames(typeOf('net'), agreed, values));
  assert.deepEqual(names.slice(0, 3), ['receiveq1', 'transmitq1', 'receiveq2']);
  assert.deepEqual([names.length, names[8]], [9, 'controlq']);
});

test('9p and fs: text of a host never reaches a terminal as it is', () => {
  const agreed = features('9P_MOUNT_TAG');
  const tag = Uint8Array.of(5, 0, 0x1b, 0x5b, 0x41, 0xff, 0x62);
  assert.deepEqual(must(decodeConfig(typeOf('9p'), agreed, tag)), { tag_len: 5, tag: '\\x1b[A\\xffb' });
  assert.equal(code(decodeConfig(typeOf('9p'), agreed, tag.slice(0, 6))), 'config-too-short');
  assert.equal(code(decodeConfig(typeOf('9p'), agreed, Uint8Array.of(0, 0))), 'config-value-invalid');
  assert.equal(code(decodeConfig(typeOf('9p'), agreed, Uint8Array.of(1, 0, 0x0a))), 'config-value-invalid');
  const fs = new Uint8Array(40);
  fs.set([0x68, 0x69, 0, 0x78], 0);
  fs[36] = 1;
  assert.deepEqual(must(decodeConfig(typeOf('fs'), NO_FEATURES, fs)), { tag: 'hi', num_request_queues: 1 });
});

test('64-bit values: whole numbers below 2^53, or two words where more is meant', () => {
  const iommu = new Uint8Array(40).fill(0xff);
  assert.deepEqual(must(decodeConfig(typeOf('iommu'), NO_FEATURES, iommu)), {
    page_size_mask: [0xffffffff, 0xffffffff],
  });
  assert.equal(
    code(decodeConfig(typeOf('memory'), NO_FEATURES, new Uint8Array(56).fill(0xff))),
    'config-value-invalid',
  );
  assert.equal(
    code(decodeConfig(typeOf('vsock'), NO_FEATURES, Uint8Array.of(3, 0, 0, 0, 1, 0, 0, 0))),
    'config-value-invalid',
  );
  assert.deepEqual(must(decodeConfig(typeOf('vsock'), NO_FEATURES, Uint8Array.of(3, 0, 0, 0, 0, 0, 0, 0))), {
    guest_cid: 3,
  });
});

test('values that a type forbids', () => {
  const wrong: readonly (readonly [string, string[], Record<string, number>])[] = [
    ['net', ['NET_F_MQ', 'NET_F_CTRL_VQ'], { max_virtqueue_pairs: 0 }],
    ['net', ['NET_F_MQ', 'NET_F_CTRL_VQ'], { max_virtqueue_pairs: 0x8001 }],
    ['net', ['NET_F_MTU'], { mtu: 67 }],
    ['block', ['BLK_F_MQ'], { num_queues: 0 }],
    ['block', ['BLK_F_BLK_SIZE'], { blk_size: 511 }],
    ['block', ['BLK_F_BLK_SIZE'], { blk_size: 513 }],
    ['block', ['BLK_F_SEG_MAX'], { seg_max: 0 }],
    ['console', ['CONSOLE_F_MULTIPORT'], { max_nr_ports: 0 }],
    ['console', ['CONSOLE_F_MULTIPORT'], { max_nr_ports: 0xffffffff }],
    ['gpu', [], { num_scanouts: 17 }],
    ['gpu', [], { num_scanouts: 1, num_capsets: 0xffffffff }],
    ['scsi', [], { num_queues: 0 }],
    ['crypto', [], { max_dataqueues: 0 }],
    ['fs', [], { num_request_queues: 0 }],
    ['vsock', [], { guest_cid: 2 }],
    ['vsock', [], { guest_cid: 0xffffffff }],
    ['rpmb', [], { capacity: 0x81 }],
    ['memory', [], { block_size: 3 }],
    ['input', [], { size: 129 }],
  ];
  for (const [name, agreed, values] of wrong) {
    const type = typeOf(name);
    assert.equal(code(encodeConfig(type, features(...agreed), values)), 'config-value-invalid', JSON.stringify(values));
    const bytes = new Uint8Array(configSize(type));
    const view = new DataView(bytes.buffer);
    for (const [field, value] of Object.entries(values)) {
      const { offset, width } = type.config.find((one) => one.name === field) as ConfigField;
      for (let i = 0; i < width; i++) view.setUint8(offset + i, Math.floor(value / 256 ** i) & 0xff);
    }
    assert.equal(code(decodeConfig(type, features(...agreed), bytes)), 'config-value-invalid', JSON.stringify(values));
  }
  assert.equal(code(encodeConfig(typeOf('net'), NO_FEATURES, { mok: 1 })), 'config-field-unknown');
});

test('any bytes, any features: a whole value or a coded problem', () => {
  const word = fc.integer({ min: 0, max: 0xffffffff });
  fc.assert(
    fc.property(
      fc.constantFrom(...Object.values(DEVICE_TYPES)),
      fc.tuple(word, word, word, word),
      fc.uint8Array({ maxLength: 300 }),
      (type, agreed, bytes) => {
        const decoded = decodeConfig(type, agreed, bytes);
        if (!decoded.ok) {
          assert.ok(decoded.error.code in DEVICE_ERRORS);
          return;
        }
        assert.deepEqual(
          Object.keys(decoded.value),
          presentFields(type, agreed).map((field) => field.name),
        );
        const names = queueNames(type, agreed, decoded.value);
        assert.ok(names.ok ? names.value.length <= 65536 : names.error.code in DEVICE_ERRORS);
        const encoded = encodeConfig(type, agreed, decoded.value);
        // Text may hold escapes that are longer than what was there; everything else comes back as it was.
        if (encoded.ok && !type.config.some((field) => field.text)) {
          assert.deepEqual(must(decodeConfig(type, agreed, encoded.value)), decoded.value);
        }
      },
    ),
    { numRuns: 3000 },
  );
});

/** A device that answers from bytes, with a generation that can change. */
function device(bytes: Uint8Array, generation: () => number = () => 0): ConfigAccess & { readonly reads: number[] } {
  const reads: number[] = [];
  const view = new DataView(bytes.buffer);
  return {
    reads,
    generation,
    read(offset, width) {
      for (let i = 0; i < width; i++) reads.push(offset + i);
      return width === 1
        ? view.getUint8(offset)
        : width === 2
          ? view.getUint16(offset, true)
          : view.getUint32(offset, true);
    },
  };
}

test('§2.5.1: every byte is read once between two equal generations', () => {
  for (const type of Object.values(DEVICE_TYPES)) {
    const bytes = new Uint8Array(configSize(type));
    const one = device(bytes);
    const result = readConfig(type, everyFeature(type), one);
    assert.ok(result.ok || result.error.code === 'config-value-invalid');
    assert.equal(new Set(one.reads).size, one.reads.length, type.name);
    for (const field of type.config) {
      if (!hasField(field, everyFeature(type)) || typeof field.count === 'string') continue;
      assert.ok(one.reads.includes(field.offset), `${type.name}.${field.name} was not read`);
    }
  }
});

test('§2.5.1: a change while reading is read again; one that never ends is given up', () => {
  const bytes = new Uint8Array(8);
  let calls = 0;
  const changing = device(bytes, () => (calls++ < 3 ? calls : 100));
  bytes[0] = 5;
  assert.deepEqual(must(readConfig(typeOf('vsock'), NO_FEATURES, changing)), { guest_cid: 5 });
  let endless = 0;
  const result = readConfig(
    typeOf('vsock'),
    NO_FEATURES,
    device(bytes, () => endless++),
  );
  assert.equal(code(result), 'config-unstable');
  assert.equal(endless, 2 * GENERATION_TRIES);
});

test('a transport that gives more than was asked for, or no number, is no way in', () => {
  for (const value of [-1, 2 ** 40, Number.NaN, 0.5]) {
    const result = readConfig(typeOf('net'), everyFeature(typeOf('net')), { generation: () => 0, read: () => value });
    assert.ok(result.ok || result.error.code in DEVICE_ERRORS);
  }
});

test('a device whose tag says that it is longer than there is', () => {
  const agreed = features('9P_MOUNT_TAG');
  let most = 0;
  const result = readConfig(typeOf('9p'), agreed, {
    generation: () => 0,
    read: (offset, width) => {
      most = Math.max(most, offset + width);
      return 0xffff;
    },
  });
  assert.equal(code(result), 'config-value-invalid');
  assert.ok(most <= configSize(typeOf('9p')));
});

test('a driver writes only what is its to write', () => {
  const scsi = typeOf('scsi');
  assert.deepEqual(must(encodeChange(scsi, NO_FEATURES, 'sense_size', 0x102)), {
    offset: 20,
    bytes: Uint8Array.of(2, 1, 0, 0),
  });
  assert.equal(code(encodeChange(scsi, NO_FEATURES, 'num_queues', 1)), 'config-read-only');
  assert.equal(code(encodeChange(scsi, NO_FEATURES, 'nothing', 1)), 'config-field-unknown');
  assert.equal(code(encodeChange(scsi, NO_FEATURES, 'sense_size', 2 ** 32)), 'config-value-invalid');
  assert.equal(code(encodeChange(typeOf('block'), NO_FEATURES, 'writeback', 1)), 'config-field-absent');

  assert.equal(code(checkChange(scsi, NO_FEATURES, 20, 4)), 'ok');
  assert.equal(code(checkChange(scsi, NO_FEATURES, 22, 2)), 'ok');
  assert.equal(code(checkChange(scsi, NO_FEATURES, 18, 4)), 'config-read-only');
  assert.equal(code(checkChange(scsi, NO_FEATURES, 0, 4)), 'config-read-only');
  assert.equal(code(checkChange(scsi, NO_FEATURES, 36, 1)), 'config-too-short');
  for (const [offset, length] of [
    [-1, 4],
    [20, 0],
    [20, -4],
    [2 ** 53, 4],
    [Number.NaN, 4],
  ] as const) {
    assert.equal(code(checkChange(scsi, NO_FEATURES, offset, length)), 'config-too-short');
  }
  assert.equal(code(checkChange(typeOf('block'), NO_FEATURES, 32, 1)), 'config-read-only');
  assert.equal(code(checkChange(typeOf('block'), features('BLK_F_CONFIG_WCE'), 32, 1)), 'ok');
});

test('virtqueues by type, in the order of their numbers', () => {
  const names = (name: string, agreed: string[] = [], values = {}) =>
    must(queueNames(typeOf(name), features(...agreed), values));
  assert.deepEqual(names('block'), ['requestq1']);
  assert.deepEqual(names('block', ['BLK_F_MQ'], { num_queues: 3 }), ['requestq1', 'requestq2', 'requestq3']);
  assert.deepEqual(names('console'), ['receiveq(port0)', 'transmitq(port0)']);
  assert.deepEqual(names('console', ['CONSOLE_F_MULTIPORT'], { max_nr_ports: 2 }), [
    'receiveq(port0)',
    'transmitq(port0)',
    'control receiveq',
    'control transmitq',
    'receiveq(port1)',
    'transmitq(port1)',
  ]);
  assert.deepEqual(names('balloon', ['BALLOON_F_PAGE_REPORTING']), ['inflateq', 'deflateq', 'reporting_vq']);
  assert.deepEqual(names('crypto', [], { max_dataqueues: 2 }), ['dataq1', 'dataq2', 'controlq']);
  assert.deepEqual(names('fs', [], { num_request_queues: 2 }), ['hiprio', 'requestq1', 'requestq2']);
  assert.deepEqual(names('sound'), ['controlq', 'eventq', 'txq', 'rxq']);
  for (const count of [undefined, Number.NaN, -1, 70_000, 'x']) {
    const values = count === undefined ? {} : { num_queues: count };
    assert.equal(code(queueNames(typeOf('scsi'), NO_FEATURES, values)), 'config-value-invalid');
  }
});
