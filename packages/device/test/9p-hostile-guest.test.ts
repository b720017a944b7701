import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { P9Device } from '@airlock/device/9p/p9-device.ts';
import { FID_LIMIT, MSIZE_LIMIT } from '@airlock/device/9p/session.ts';
import { DONE } from '@airlock/virtio/ring/queue.ts';
import fc from 'fast-check';
import { drive } from './support/in-memory-driver.ts';
import { encodeMessage, type Field, P9Client, ROOT } from './support/p9-client.ts';
import { openDescriptors } from './support/real-reactor.ts';

const EPROTO = 71;
const EOPNOTSUPP = 95;
const ENFILE = 23;

const errnoOf = (reply: Uint8Array) =>
  reply[4] === 7 ? new DataView(reply.buffer, reply.byteOffset).getUint32(7, true) : 0;

/** Every request with fields that make sense for fids 0 and 1. */
const REQUESTS: readonly [string, number, readonly Field[]][] = [
  ['statfs', 8, [['u32', 0]]],
  [
    'lopen',
    12,
    [
      ['u32', 1],
      ['u32', 0],
    ],
  ],
  [
    'lcreate',
    14,
    [
      ['u32', 1],
      ['text', 'n'],
      ['u32', 2],
      ['u32', 0o644],
      ['u32', 0],
    ],
  ],
  [
    'symlink',
    16,
    [
      ['u32', 0],
      ['text', 'n'],
      ['text', 't'],
      ['u32', 0],
    ],
  ],
  [
    'mknod',
    18,
    [
      ['u32', 0],
      ['text', 'n'],
      ['u32', 0o100644],
      ['u32', 0],
      ['u32', 0],
      ['u32', 0],
    ],
  ],
  [
    'rename',
    20,
    [
      ['u32', 1],
      ['u32', 0],
      ['text', 'n'],
    ],
  ],
  ['readlink', 22, [['u32', 1]]],
  [
    'getattr',
    24,
    [
      ['u32', 0],
      ['u64', 0],
    ],
  ],
  [
    'setattr',
    26,
    [
      ['u32', 1],
      ['u32', 0],
      ['u32', 0],
      ['u32', 0],
      ['u32', 0],
      ['u64', 0],
      ['u64', 0],
      ['u64', 0],
      ['u64', 0],
      ['u64', 0],
    ],
  ],
  [
    'xattrwalk',
    30,
    [
      ['u32', 0],
      ['u32', 5],
      ['text', ''],
    ],
  ],
  [
    'xattrcreate',
    32,
    [
      ['u32', 1],
      ['text', 'user.x'],
      ['u64', 1],
      ['u32', 0],
    ],
  ],
  [
    'readdir',
    40,
    [
      ['u32', 0],
      ['u64', 0],
      ['u32', 100],
    ],
  ],
  [
    'fsync',
    50,
    [
      ['u32', 0],
      ['u32', 0],
    ],
  ],
  [
    'lock',
    52,
    [
      ['u32', 1],
      ['u8', 0],
      ['u32', 0],
      ['u64', 0],
      ['u64', 0],
      ['u32', 0],
      ['text', 'c'],
    ],
  ],
  [
    'getlock',
    54,
    [
      ['u32', 1],
      ['u8', 0],
      ['u64', 0],
      ['u64', 0],
      ['u32', 0],
      ['text', 'c'],
    ],
  ],
  [
    'link',
    70,
    [
      ['u32', 0],
      ['u32', 1],
      ['text', 'n'],
    ],
  ],
  [
    'mkdir',
    72,
    [
      ['u32', 0],
      ['text', 'n'],
      ['u32', 0o755],
      ['u32', 0],
    ],
  ],
  [
    'renameat',
    74,
    [
      ['u32', 0],
      ['text', 'n'],
      ['u32', 0],
      ['text', 'm'],
    ],
  ],
  [
    'unlinkat',
    76,
    [
      ['u32', 0],
      ['text', 'n'],
      ['u32', 0],
    ],
  ],
  [
    'version',
    100,
    [
      ['u32', 8192],
      ['text', '9P2000.L'],
    ],
  ],
  [
    'attach',
    104,
    [
      ['u32', 7],
      ['u32', 0xffffffff],
      ['text', 'u'],
      ['text', ''],
      ['u32', 0],
    ],
  ],
  ['flush', 108, [['u16', 1]]],
  [
    'walk',
    110,
    [
      ['u32', 0],
      ['u32', 5],
      ['u16', 1],
      ['text', 'n'],
    ],
  ],
  [
    'read',
    116,
    [
      ['u32', 1],
      ['u64', 0],
      ['u32', 100],
    ],
  ],
  [
    'write',
    118,
    [
      ['u32', 1],
      ['u64', 0],
      ['u32', 3],
      ['bytes', 'abc'],
    ],
  ],
  ['clunk', 120, [['u32', 5]]],
  ['remove', 122, [['u32', 5]]],
];

test('a message that ends too early, or goes on too long, changes nothing: EPROTO', async () => {
  const client = await P9Client.open();
  for (const [name, type, fields] of REQUESTS) {
    const whole = encodeMessage(type, 1, fields);
    for (let length = 7; length < whole.length; length++) {
      // The older form of Tfsync ends before its last field.
      if (name === 'fsync' && length === 11) continue;
      assert.equal(errnoOf(client.raw(whole.slice(0, length))), EPROTO, `${name} cut to ${length}`);
    }
    assert.equal(errnoOf(client.raw(Uint8Array.from([...whole, 0]))), EPROTO, `${name} with a byte too many`);
  }
  assert.equal(client.session.fids.size, 1);
  client.end();
});

test('texts whose length lies are not read beyond the message', async () => {
  const client = await P9Client.open();
  // What the message before left in memory is no part of this one.
  client.raw(
    encodeMessage(72, 1, [
      ['u32', ROOT],
      ['text', 'left-over-name'],
      ['u32', 0o755],
      ['u32', 0],
    ]),
  );
  const message = encodeMessage(110, 1, [
    ['u32', ROOT],
    ['u32', 5],
    ['u16', 1],
    ['u16', 14],
  ]);
  assert.equal(errnoOf(client.raw(message)), EPROTO);
  assert.equal(
    errnoOf(
      client.raw(
        encodeMessage(110, 1, [
          ['u32', ROOT],
          ['u32', 5],
          ['u16', 3],
          ['text', 'a'],
        ]),
      ),
    ),
    EPROTO,
  );
  const write = encodeMessage(118, 1, [
    ['u32', ROOT],
    ['u64', 0],
    ['u32', 0xffffffff],
    ['bytes', 'abc'],
  ]);
  assert.equal(errnoOf(client.raw(write)), EPROTO);
  client.end();
});

test('requests that do not exist, replies, and the requests of other dialects', async () => {
  const client = await P9Client.open();
  const known = new Set(REQUESTS.map(([, type]) => type));
  for (let type = 0; type < 256; type++) {
    if (known.has(type)) continue;
    assert.equal(errnoOf(client.raw(encodeMessage(type, 1, []))), EOPNOTSUPP, String(type));
  }
  client.end();
});

test('where the reply has no room an error comes, and where even that has none, nothing', async () => {
  const client = await P9Client.open({ prepare: (share) => writeFileSync(`${share}/n`, 'content') });
  for (let room = 0; room < 160; room++) {
    for (const [name, type, fields] of REQUESTS) {
      if (['version', 'remove', 'unlinkat', 'rename', 'renameat'].includes(name)) continue;
      client.walk(ROOT, 1, 'n');
      const reply = client.raw(encodeMessage(type, 9, fields), room);
      assert.ok(reply.length <= room);
      if (room < 7) assert.equal(reply.length, 0, name);
      if (reply.length > 0) assert.equal(new DataView(reply.buffer).getUint32(0, true), reply.length, name);
      for (const fid of [1, 5, 7]) client.clunk(fid);
    }
  }
  client.end();
});

test('fids, open files and attributes in being written have limits; everything is given back', async () => {
  const client = await P9Client.open({
    prepare(share) {
      mkdirSync(`${share}/many`);
      for (let i = 0; i < 50; i++) writeFileSync(`${share}/many/${i}`, '');
    },
  });
  const before = openDescriptors();
  let made = 0;
  for (let fid = 1; fid <= FID_LIMIT + 10; fid++) {
    const reply = client.walk(ROOT, fid, 'many', String(fid % 50));
    if (reply.errno !== 0) {
      assert.equal(reply.errno, ENFILE);
      break;
    }
    made++;
  }
  assert.equal(made, FID_LIMIT - 1);
  assert.equal(openDescriptors(), before + 51, 'many fids, one descriptor for each file');
  client.version();
  assert.equal(openDescriptors(), before);
  client.attach(ROOT);
  let writing = 0;
  for (let fid = 1; fid < 200; fid++) {
    client.walk(ROOT, fid, 'many', '1');
    if (client.xattrcreate(fid, 'user.x', 65536) === 0) writing++;
  }
  assert.equal(writing, 64);
  client.version();
  assert.equal(openDescriptors(), before);
  client.end();
});

const field = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: 0, max: 4 }).map((value): Field => ['u32', value]) },
  fc.constantFrom<Field>(['u32', 0xffffffff], ['u32', 0o1101], ['u64', 0], ['u64', 2n ** 63n], ['u16', 1], ['u8', 1]),
  fc.constantFrom('a', 'b', 'c', '..', 'user.x', '').map((value): Field => ['text', value]),
);
const message = fc.oneof(
  fc.record({
    type: fc.constantFrom(...REQUESTS.map(([, type]) => type).filter((type) => type !== 100)),
    fields: fc.array(field, { maxLength: 8 }),
  }),
  // Whole messages with other fids and names.
  fc
    .constantFrom(...REQUESTS.filter(([name]) => name !== 'version'))
    .chain(([, type, fields]) =>
      fc
        .tuple(
          ...fields.map((one) =>
            one[0] === 'u32'
              ? fc
                  .oneof(fc.integer({ min: 0, max: 4 }), fc.constant(one[1]))
                  .map((value): Field => ['u32', value as number])
              : one[0] === 'text'
                ? fc.constantFrom('a', 'b', 'c', '..').map((value): Field => ['text', value])
                : fc.constant(one),
          ),
        )
        .map((changed) => ({ type, fields: changed })),
    ),
);

test('whatever is sent, every answer is a whole message that fits, nothing throws, and no descriptor is lost', async () => {
  const client = await P9Client.open({ prepare: (_share, outside) => writeFileSync(`${outside}/secret`, 'secret') });
  const before = openDescriptors();
  fc.assert(
    fc.property(fc.array(message, { maxLength: 60 }), fc.integer({ min: 11, max: 5000 }), (messages, room) => {
      client.version(8192);
      client.attach(ROOT);
      for (const { type, fields } of messages) {
        const sent = encodeMessage(type, 3, fields);
        const reply = client.raw(sent, room);
        assert.ok(reply.length >= 7);
        assert.equal(new DataView(reply.buffer).getUint32(0, true), reply.length);
        assert.ok(reply[4] === 7 || reply[4] === type + 1);
        assert.ok(!new TextDecoder().decode(reply).includes('secret'));
      }
      client.session.reset();
      assert.equal(openDescriptors(), before);
    }),
    { numRuns: 250 },
  );
  client.end();
});

test('random bytes for a message', async () => {
  const client = await P9Client.open();
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 130 }), fc.uint8Array({ maxLength: 80 }), (type, bytes) => {
      const sent = encodeMessage(type, 3, [['bytes', bytes]]);
      const reply = client.raw(sent, 4096);
      assert.ok(reply.length >= 7 && reply.length <= 4096);
    }),
    { numRuns: 2000 },
  );
  client.end();
});

async function served() {
  const client = await P9Client.open({ prepare: (share) => writeFileSync(`${share}/file`, 'content') });
  const device = new P9Device('home', client.session, () => client.share.close());
  const driven = drive(device);
  const driver = driven.queues[0]?.driver;
  assert.ok(driver !== undefined);
  return {
    client,
    device,
    driven,
    /** Sends bytes in pieces and gives pieces for the reply. */
    call(sent: Uint8Array, cuts: readonly number[], room: readonly number[]): Uint8Array {
      let at = 0;
      for (const cut of [...cuts, sent.length]) {
        const piece = sent.subarray(at, Math.max(at, cut));
        at = Math.max(at, cut);
        if (piece.length === 0) continue;
        const address = driven.allocate(piece.length);
        driven.at(address, piece.length).set(piece);
        driver.readable(address, piece.length);
      }
      const replies = room.map((length) => ({ address: driven.allocate(length), length }));
      for (const { address, length } of replies) driver.writable(address, length);
      assert.equal(driver.submit(1), DONE);
      driver.publish();
      assert.equal(device.serve(0), 1);
      assert.equal(driver.complete(), DONE);
      const whole = replies.flatMap(({ address, length }) => [...driven.at(address, length)]);
      return Uint8Array.from(whole.slice(0, driver.written));
    },
    end() {
      driven.stop();
      client.real.end();
    },
  };
}

test('requests and replies lie in any pieces of a chain', async () => {
  const rig = await served();
  const version = encodeMessage(100, 0xffff, [
    ['u32', 8192],
    ['text', '9P2000.L'],
  ]);
  const reply = rig.call(version, [1, 3, 9], [5, 1, 100]);
  assert.equal(reply[4], 101);
  assert.equal(new TextDecoder().decode(reply.subarray(13)), '9P2000.L');
  rig.call(
    encodeMessage(104, 1, [
      ['u32', 0],
      ['u32', 0xffffffff],
      ['text', ''],
      ['text', ''],
      ['u32', 0],
    ]),
    [],
    [64],
  );
  rig.call(
    encodeMessage(110, 1, [
      ['u32', 0],
      ['u32', 1],
      ['u16', 1],
      ['text', 'file'],
    ]),
    [],
    [64],
  );
  rig.call(
    encodeMessage(12, 1, [
      ['u32', 1],
      ['u32', 0],
    ]),
    [],
    [64],
  );
  // As Linux asks without copying: the header into one buffer, the data into pages.
  const read = rig.call(
    encodeMessage(116, 1, [
      ['u32', 1],
      ['u64', 0],
      ['u32', 4096],
    ]),
    [],
    [11, 4, 4096],
  );
  assert.equal(new TextDecoder().decode(read.subarray(11)), 'content');
  rig.end();
});

test('a message of another length than it says, with no header, or with no room for an answer', async () => {
  const rig = await served();
  const good = encodeMessage(108, 0x1234, [['u16', 1]]);
  for (const size of [0, 6, good.length + 1, 0xffffffff, MSIZE_LIMIT + 1]) {
    const lying = good.slice();
    new DataView(lying.buffer).setUint32(0, size, true);
    const reply = rig.call(lying, [], [64]);
    assert.equal(errnoOf(reply), EPROTO, String(size));
    assert.equal(new DataView(reply.buffer).getUint16(5, true), 0x1234);
  }
  assert.equal(rig.call(good.subarray(0, 6), [], [64]).length, 0);
  assert.equal(rig.call(good, [], []).length, 0);
  assert.equal(rig.call(good, [], [6]).length, 0);
  assert.equal(rig.device.malformed, 6);
  // Bytes behind the message are not the message's.
  assert.equal(rig.call(Uint8Array.from([...good, 1, 2, 3]), [], [64])[4], 109);
  rig.end();
});

test('the configuration space holds the tag, and a driver that goes takes its fids with it', async () => {
  const rig = await served();
  assert.equal(new TextDecoder().decode(rig.device.readConfig()), '\x04\0home');
  assert.equal(rig.device.writeConfig(), false);
  assert.equal(rig.client.session.fids.size, 1);
  rig.driven.stop();
  assert.equal(rig.client.session.fids.size, 0);
  rig.client.real.end();
});

test('a broken ring asks for a reset', async () => {
  const rig = await served();
  rig.driven.region.view.setUint16(0x4000 + 2, 5000, true);
  assert.equal(rig.device.serve(0), 0);
  assert.equal(rig.driven.resets[0]?.code, 'avail-index-jump');
  rig.end();
});
