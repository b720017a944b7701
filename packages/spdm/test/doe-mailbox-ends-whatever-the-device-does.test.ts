import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { answerDiscovery } from '../src/doe/discovery.ts';
import { DOE_REGISTER, type Mailbox, openMailbox } from '../src/doe/mailbox.ts';
import { decodeDoeObject, encodeDoeObject } from '../src/doe/object.ts';
import { MAILBOX_AT, type MailboxDevice, mailboxDevice } from './support/mailbox-device.ts';
import { codeOf, must } from './support/must.ts';

const payload = Uint8Array.of(0x10, 0x84, 0, 0);

/** Answers each SPDM object with the same bytes turned around. */
function honest(): MailboxDevice {
  return mailboxDevice((object) => {
    const { vendor, type, payload: given } = must(decodeDoeObject(object));
    if (type === 0) {
      const features = [0, 1, 2].map((one) => ({ vendor: 1, type: one }));
      return must(encodeDoeObject(vendor, type, must(answerDiscovery(features, given))));
    }
    return must(encodeDoeObject(vendor, type, given.slice().reverse()));
  });
}

const open = (device: MailboxDevice, version = 1): Mailbox =>
  openMailbox({ config: device, clock: device.clock, offset: MAILBOX_AT, version, limits: { bytes: 4096 } });

/** After the one that each user of a mailbox begins with. */
const abortsOf = (device: MailboxDevice): number => device.aborts - 1;

test('an exchange gives the answer, at once or after a while', async () => {
  for (const delay of [0, 1, 20, 500]) {
    const device = honest();
    device.delay = delay;
    assert.deepEqual(must(await open(device).exchange(1, 1, payload)), Uint8Array.of(0, 0, 0x84, 0x10));
    assert.equal(abortsOf(device), 0);
  }
});

test('half an object that somebody who was killed left in the mailbox is no part of ours', async () => {
  const device = honest();
  for (const dword of [0x0001_0001, 5, 0x1111_1111]) {
    must(await device.write32(MAILBOX_AT + DOE_REGISTER.write, dword));
  }
  assert.deepEqual(must(await open(device).exchange(1, 1, payload)), Uint8Array.of(0, 0, 0x84, 0x10));
});

test('discovery states its version where the capability is new enough', async () => {
  for (const [version, stated] of [
    [1, 0],
    [2, 2],
    [3, 2],
  ] as const) {
    const device = honest();
    const seen: number[] = [];
    const { answer } = device;
    device.answer = (object) => {
      seen.push(object[9] ?? -1);
      return answer(object);
    };
    assert.equal(must(await open(device, version).discover()).length, 3);
    assert.deepEqual(seen, [stated, stated, stated]);
  }
});

test('a mailbox that stays busy is left alone', async () => {
  const device = honest();
  device.busy = true;
  assert.equal(codeOf(await open(device).exchange(1, 1, payload)), 'doe-busy');
  assert.deepEqual(device.writes, []);
});

test('an error or an answer that nobody took is aborted first', async () => {
  for (const wrong of ['error', 'neverEmpty'] as const) {
    const device = honest();
    device[wrong] = true;
    must(await open(device).exchange(1, 1, payload));
    assert.equal(device.aborts, 1, wrong);
  }
});

test('an abort that does nothing ends too', async () => {
  const device = honest();
  device.error = true;
  device.abortable = false;
  assert.equal(codeOf(await open(device).exchange(1, 1, payload)), 'doe-timeout');
});

test('no answer: time is over, and the mailbox is cleaned', async () => {
  const device = mailboxDevice(() => undefined);
  assert.equal(codeOf(await open(device).exchange(1, 1, payload)), 'doe-timeout');
  assert.equal(abortsOf(device), 1);
  assert.ok(device.clock.now() < 3000);
});

test('a function that is gone is said to be gone', async () => {
  const before = honest();
  before.gone = true;
  assert.equal(codeOf(await open(before).exchange(1, 1, payload)), 'doe-gone');
  const during = honest();
  during.answer = () => {
    during.gone = true;
    return undefined;
  };
  assert.equal(codeOf(await open(during).exchange(1, 1, payload)), 'doe-gone');
});

const lies: Readonly<Record<string, { readonly answer: readonly number[]; readonly code: string }>> = {
  'another vendor': { answer: [0x86, 0x80, 1, 0, 3, 0, 0, 0, 1, 2, 3, 4], code: 'doe-answer-invalid' },
  'another type': { answer: [1, 0, 2, 0, 3, 0, 0, 0, 1, 2, 3, 4], code: 'doe-answer-invalid' },
  'a length of one dword': { answer: [1, 0, 1, 0, 1, 0, 0, 0], code: 'doe-object-invalid' },
  'reserved bits': { answer: [1, 0, 1, 0, 3, 0, 4, 0, 1, 2, 3, 4], code: 'doe-object-invalid' },
  'the largest length there is': { answer: [1, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4], code: 'doe-object-too-large' },
  'one dword above the limit': { answer: [1, 0, 1, 0, 1, 4, 0, 0, 1, 2, 3, 4], code: 'doe-object-too-large' },
  'more than there is': { answer: [1, 0, 1, 0, 0, 4, 0, 0, 1, 2, 3, 4], code: 'doe-answer-invalid' },
  'less than there is': { answer: [1, 0, 1, 0, 3, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8], code: 'doe-answer-invalid' },
  'all ones': { answer: [255, 255, 255, 255, 255, 255, 255, 255], code: 'doe-gone' },
};

for (const [what, { answer, code }] of Object.entries(lies)) {
  test(`an answer with ${what} is refused`, async () => {
    const device = mailboxDevice(() => Uint8Array.from(answer));
    assert.equal(codeOf(await open(device).exchange(1, 1, payload)), code);
    assert.ok(device.reads < 1000);
    if (code !== 'doe-gone') assert.equal(abortsOf(device), 1);
  });
}

test('after a lie the mailbox works again', async () => {
  const device = honest();
  const { answer } = device;
  const mailbox = open(device);
  device.answer = () => Uint8Array.from([1, 0, 2, 0, 3, 0, 0, 0, 1, 2, 3, 4]);
  assert.equal(codeOf(await mailbox.exchange(1, 1, payload)), 'doe-answer-invalid');
  device.answer = answer;
  must(await mailbox.exchange(1, 1, payload));
});

test('a write that is forbidden keeps its own code', async () => {
  const device = honest();
  device.forbids = 'file-denied';
  assert.equal(codeOf(await open(device).exchange(1, 1, payload)), 'file-denied');
});

test('any device at all: every exchange ends, within its time', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uint8Array({ maxLength: 64 }),
      fc.nat(2000),
      fc.boolean(),
      fc.boolean(),
      fc.boolean(),
      async (answer, delay, error, abortable, neverEmpty) => {
        const device = mailboxDevice(() => {
          device.error = error;
          device.neverEmpty = neverEmpty;
          return answer;
        });
        Object.assign(device, { delay, abortable });
        const result = await open(device).exchange(1, 1, payload);
        assert.ok(device.clock.now() <= 3010, `${device.clock.now()} ms`);
        if (result.ok) assert.deepEqual(result.value, answer.slice(8));
        else assert.match(result.error.code, /^doe-/);
      },
    ),
    { numRuns: 300 },
  );
});

/** `slow` accesses of the honest device take so many milliseconds each: the host completes them when it likes. */
function slowed(device: MailboxDevice, milliseconds: number) {
  let time = 0;
  let turns = 0;
  const clock = {
    now: () => time,
    wait: async (given: number) => {
      time += given;
      turns++;
    },
  };
  const config = {
    read32: (offset: number) => {
      time += milliseconds;
      return device.read32(offset);
    },
    write32: (offset: number, value: number) => {
      time += milliseconds;
      return device.write32(offset, value);
    },
  };
  return { config, clock, turns: () => turns };
}

test('one that trickles is given up, however slow each access is, and others have their turn meanwhile', async () => {
  for (const milliseconds of [1, 20, 300]) {
    const device = mailboxDevice(() => must(encodeDoeObject(1, 1, new Uint8Array(200_000))));
    const { config, clock, turns } = slowed(device, milliseconds);
    const mailbox = openMailbox({ config, clock, offset: MAILBOX_AT, version: 1 });
    assert.equal(codeOf(await mailbox.exchange(1, 1, payload)), 'doe-timeout');
    assert.ok(clock.now() < 6000 + 40 * milliseconds, `${clock.now()} ms`);
    assert.ok(turns() >= Math.min(300, 1500 / milliseconds), `${turns()} turns`);
    assert.equal(abortsOf(device), 1);
  }
});

test('so is one that takes what it is asked as slowly', async () => {
  const device = honest();
  const { config, clock } = slowed(device, 100);
  const mailbox = openMailbox({ config, clock, offset: MAILBOX_AT, version: 1 });
  assert.equal(codeOf(await mailbox.exchange(1, 1, new Uint8Array(4000))), 'doe-timeout');
  assert.ok(clock.now() < 8000, `${clock.now()} ms`);
  assert.equal(abortsOf(device), 1);
});

for (const [when, delay] of [
  ['while the answer is waited for', 10_000],
  ['while it is taken', 0],
] as const) {
  test(`who does not wait any more leaves a clean mailbox: ${when}`, async () => {
    const device = mailboxDevice(() => must(encodeDoeObject(1, 1, new Uint8Array(40_000))));
    device.delay = delay;
    const { config, clock } = slowed(device, 0.1);
    let over = 200;
    const cancelled = () => clock.now() >= over;
    const mailbox = openMailbox({ config, clock, offset: MAILBOX_AT, version: 1, cancelled });
    assert.equal(codeOf(await mailbox.exchange(1, 1, payload)), 'doe-cancelled');
    assert.ok(clock.now() < 210, `${clock.now()} ms`);
    assert.equal(abortsOf(device), 1);
    const { length } = device.writes;
    assert.equal(codeOf(await mailbox.exchange(1, 1, payload)), 'doe-cancelled');
    assert.equal(codeOf(await mailbox.discover()), 'doe-cancelled');
    assert.equal(device.writes.length, length, 'nothing new is begun');
    over = Number.POSITIVE_INFINITY;
    device.delay = 0;
    must(await mailbox.exchange(1, 1, payload));
    assert.equal(abortsOf(device), 1, 'the next one finds it clean');
  });
}
