import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseUevent, UEVENT_ACTIONS, UEVENT_LIMIT } from '@airlock/transport/uevent.ts';
import fc from 'fast-check';

const bytes = (text: string) => Uint8Array.from(text, (character) => character.charCodeAt(0));
const good =
  'add@/devices/pci0000:00/0000:00:05.0\0ACTION=add\0DEVPATH=/devices/pci0000:00/0000:00:05.0\0SUBSYSTEM=pci\0PCI_ID=1AF4:1041\0SEQNUM=1234\0';

test('a message of the kernel is read whole', () => {
  const event = parseUevent(bytes(good));
  assert.ok(event.ok);
  assert.equal(event.value.action, 'add');
  assert.equal(event.value.devpath, '/devices/pci0000:00/0000:00:05.0');
  assert.equal(event.value.subsystem, 'pci');
  assert.equal(event.value.seqnum, 1234);
  assert.equal(event.value.values.get('PCI_ID'), '1AF4:1041');
});

const wrong: Record<string, string> = {
  'nothing at all': '',
  'no path': 'add\0ACTION=add\0',
  'an unknown action': 'explode@/devices/x\0',
  "udev's own message": 'libudev\0\xfe\xed\xca\xfe\0add@/devices/x\0',
  'a relative path': 'add@devices/x\0',
  'a path that climbs': 'add@/devices/../../etc\0',
  'a path with an empty part': 'add@/devices//x\0',
  'a key twice': 'add@/devices/x\0A=1\0A=2\0',
  'a part without a value': 'add@/devices/x\0JUNK\0',
  'a part without a key': 'add@/devices/x\0=1\0',
  'a key with an escape': 'add@/devices/x\0A\x1b[2J=1\0',
  'an empty part': 'add@/devices/x\0\0A=1\0',
  'an action that contradicts the header': 'add@/devices/x\0ACTION=remove\0',
  'a path that contradicts the header': 'add@/devices/x\0DEVPATH=/devices/y\0',
  'a sequence number that is none': 'add@/devices/x\0SEQNUM=1e9\0',
  'too many keys': `add@/devices/x\0${Array.from({ length: 65 }, (_, i) => `K${i}=v\0`).join('')}`,
};
for (const [name, text] of Object.entries(wrong)) {
  test(`${name} is malformed`, () => {
    const event = parseUevent(bytes(text));
    assert.equal(event.ok ? 'accepted' : event.error.code, 'uevent-malformed');
  });
}

test('a message longer than the kernel sends is refused before it is looked at', () => {
  const event = parseUevent(new Uint8Array(UEVENT_LIMIT + 1));
  assert.equal(event.ok ? 'accepted' : event.error.code, 'uevent-too-large');
});

test('arbitrary bytes never throw and never give an unprintable character', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 600 }), fc.boolean(), (tail, withHeader) => {
      const event = parseUevent(withHeader ? Uint8Array.from([...bytes('change@/devices/a\0'), ...tail]) : tail);
      if (!event.ok) return /^[\x20-\x7e]*$/.test(event.error.message);
      const texts = [
        event.value.devpath,
        event.value.subsystem,
        ...event.value.values.keys(),
        ...event.value.values.values(),
      ];
      return texts.every((text) => /^[\x20-\x7e]*$/.test(text));
    }),
    { numRuns: 2000 },
  );
});

test('what is written comes back', () => {
  const word = fc.stringMatching(/^[a-zA-Z0-9_.:-]{1,12}$/).filter((text) => text !== '.' && text !== '..');
  const keys = fc.dictionary(fc.stringMatching(/^X[A-Z0-9_]{0,10}$/), fc.stringMatching(/^[ -~]{0,40}$/), {
    maxKeys: 20,
  });
  fc.assert(
    fc.property(
      fc.constantFrom(...UEVENT_ACTIONS),
      fc.array(word, { minLength: 1, maxLength: 8 }),
      keys,
      (action, path, values) => {
        const entries = Object.entries(values);
        const text = [`${action}@/${path.join('/')}`, ...entries.map(([key, value]) => `${key}=${value}`)].join('\0');
        const event = parseUevent(bytes(`${text}\0`));
        assert.ok(event.ok);
        assert.equal(event.value.action, action);
        assert.equal(event.value.devpath, `/${path.join('/')}`);
        assert.deepEqual([...event.value.values], entries);
      },
    ),
  );
});
