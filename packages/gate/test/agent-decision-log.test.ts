import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Event, EventBody } from '@airlock/core/event.ts';
import { fail } from '@airlock/core/result.ts';
import { fakeFiles } from '@airlock/linux/fake-files.ts';
import { openDecisionLog, RECENT } from '../src/agent/decision-log.ts';
import { STATE } from '../src/agent/state.ts';
import { fakeMachine, NIC, NVME, ROOT_DISK } from './agent-fake-machine.ts';
import { startAgent } from './agent-harness.ts';

const body: EventBody = { kind: 'violation', device: 'pci:x', rule: '', detail: 'd' };
const lines = (text: unknown): Event[] =>
  String(text)
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));

test("numbers go on from the gate's, over a restart, and over a line that was cut off", async () => {
  const files = fakeFiles({
    [STATE.events]: '{"kind":"x","sequence":41}\n{"kind":"x","sequence":42}\n{"kind":"x","sequ',
  });
  const log = await openDecisionLog(files, () => 7);
  assert.equal(log.add(body).sequence, 43);
  await log.flush();
  const text = String(files.tree.get(STATE.events));
  assert.match(text, /"sequ\n\{"kind":"violation".*"at":7,"sequence":43\}\n$/);
  const again = await openDecisionLog(files, () => 8);
  assert.equal(again.add(body).sequence, 44);
});

test('numbers go on from the older half when the newer one is empty', async () => {
  const files = fakeFiles({ [STATE.eventsBefore]: '{"sequence":9}\n', [STATE.events]: '' });
  assert.equal((await openDecisionLog(files, () => 0)).add(body).sequence, 10);
});

for (const [name, content] of Object.entries({
  'arbitrary bytes': new Uint8Array([0xff, 0xfe, 0, 10, 0x7b]),
  'a number that is none': '{"sequence":"many"}\n{"sequence":-4}\n{"sequence":1e999}\n[]\nnull\n',
  nothing: '',
})) {
  test(`a log that holds ${name} begins with 1`, async () => {
    const log = await openDecisionLog(fakeFiles({ [STATE.events]: content }), () => 0);
    assert.equal(log.add(body).sequence, 1);
  });
}

test('the log stays bounded, and its newest events are there', async () => {
  const files = fakeFiles();
  const log = await openDecisionLog(files, () => 0);
  const long: EventBody = { ...body, detail: 'x'.repeat(2000) };
  for (let i = 0; i < 4000; i++) {
    log.add(long);
    if (i % 100 === 0) await log.flush();
  }
  await log.flush();
  const sizes = [STATE.events, STATE.eventsBefore].map((path) => Buffer.from(files.tree.get(path) as string).length);
  assert.ok(
    sizes.every((size) => size < 3 * 1024 * 1024),
    String(sizes),
  );
  const all = lines(`${Buffer.from(files.tree.get(STATE.eventsBefore) as string)}${files.tree.get(STATE.events)}`);
  assert.equal(all.at(-1)?.sequence, 4000);
  assert.ok(all.every((event, i) => i === 0 || event.sequence === (all[i - 1]?.sequence ?? 0) + 1));
  assert.equal(log.lost.count, 0);
  assert.equal(log.recent().length, RECENT);
});

test('a burst that cannot be written is dropped and counted, never kept without bound', async () => {
  const files = fakeFiles();
  const log = await openDecisionLog(files, () => 0);
  const heard: Event[] = [];
  log.listen((event) => void heard.push(event));
  for (let i = 0; i < 20_000; i++) log.add({ ...body, detail: 'x'.repeat(200) });
  await log.flush();
  assert.equal(heard.length, 20_000, 'who watches hears all of it');
  assert.ok(log.lost.count > 0);
  assert.equal(lines(files.tree.get(STATE.events)).length + log.lost.count, 20_000);
});

test('a full /run does not stop the agent: it enforces, says so, and writes again once it can', async (t) => {
  const machine = fakeMachine([ROOT_DISK, NIC]);
  const { append, save } = machine.files;
  let full = true;
  const broken = async (path: string) => fail('file-io', `${path}: ENOSPC`);
  Object.assign(machine.files, {
    append: (path: string, data: string) => (full ? broken(path) : append(path, data)),
    save: (path: string, data: string, mode?: number) => (full ? broken(path) : save(path, data, mode)),
  });
  const { agent, settle, act } = await startAgent(machine);
  t.after(() => agent.close('test'));
  assert.equal(machine.driverOf(NIC.slot), 'virtio_net');
  machine.plug(NVME);
  machine.bind(NVME.slot);
  const status = await settle();
  assert.equal(machine.driverOf(NVME.slot), null, 'it goes on enforcing');
  assert.ok(status.lostEvents > 0);
  assert.match(JSON.stringify(status.problems), /ENOSPC/);
  const blocked = await act({ verb: 'block', device: '00:03.0', permanent: false });
  assert.ok(blocked.ok);
  assert.match(blocked.value.notes.join(), /will not survive a restart/);
  full = false;
  machine.unplug(NVME.slot);
  await settle();
  await agent.close('test');
  assert.ok(lines(machine.files.tree.get(STATE.events)).some(({ kind }) => kind === 'device-removed'));
  assert.ok(machine.files.tree.has(STATE.enforcement));
});
