/** One boot: a TPM, devices of ours over each transport, and drives that take each other's place, behind one policy. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { bootProof } from '../src/boot-proof.ts';
import { CHECKOUT } from '../src/cache.ts';
import { type DeviceOrder, readDeviceOrder } from '../src/device-order.ts';
import { driveTour, SHORT_TOUR } from '../src/drive-tour.ts';
import { pluggedDevices } from '../src/plugged-devices.ts';
import { renderReport } from '../src/render.ts';
import { runScenario } from '../src/scenario.ts';
import { imagesOrSkip } from './guests.ts';

const ORDERS = ['block,transport=vhost-user', 'entropy', 'block,transport=vduse'];

/** Of the devices above this lets in all but the disk over vhost-user. */
const RULES = `
  - id: our-entropy
    match: { bus: virtio, type: entropy, hotplugged: true }
    level: limited
  - id: our-vduse-disk
    match: { bus: vdpa, location: lab-block-2 }
    level: limited
`;

test('a TPM, devices of ours and drives that prove who they are, in one guest behind one policy', {
  timeout: 900_000,
}, async (t) => {
  if ((await imagesOrSkip(t, '7.2')) === undefined) return;
  const folder = mkdtempSync(join(tmpdir(), 'airlock-brought-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const policy = join(folder, 'policy.yaml');
  writeFileSync(policy, readFileSync(join(CHECKOUT, 'policies/lab.yaml'), 'utf8') + RULES);
  const orders: DeviceOrder[] = [];
  for (const text of ORDERS) {
    const order = await readDeviceOrder(text, '7.2');
    assert.ok(order.ok, JSON.stringify(order));
    orders.push(order.value);
  }
  const tour = driveTour(SHORT_TOUR);
  assert.ok(tour.ok);
  const notes: string[] = [];
  const run = await runScenario({
    ...{ series: '7.2', policy, compare: false },
    exhibits: [bootProof(), pluggedDevices(orders, folder, false), tour.value],
    tell: (event) => {
      if (event.kind === 'note') notes.push(event.text);
    },
  });
  assert.ok(run.ok, `${JSON.stringify(run)} ${notes.join('; ')}`);
  const report = run.value;
  const text = renderReport(report, false);

  await t.test('the whole holds, and says so', () => {
    assert.equal(report.held, true, text);
    assert.match(text, /The policy holds/);
    assert.deepEqual(
      text.split('\n').filter((line) => line.length > 100),
      [],
      'a terminal of 100 columns takes it',
    );
  });

  await t.test('each device of ours is as the policy says, and its process is confined', () => {
    const lines = report.plugged.map(({ id, transport }) => {
      const line = report.devices.find((device) => device.id === id);
      return [transport, line?.level, line?.rule, line?.driver];
    });
    assert.deepEqual(lines, [
      ['vhost-user', 'disconnected', null, null],
      ['vfio-user', 'limited', 'our-entropy', 'virtio_rng'],
      ['vduse', 'limited', 'our-vduse-disk', 'virtio_blk'],
    ]);
    for (const { sandbox, transport, complaints } of report.plugged) {
      assert.deepEqual(complaints, []);
      const held = sandbox.filter(({ status }) => status === 'enforced').map(({ layer }) => layer);
      assert.ok(held.includes('system-calls'), `${transport}: ${held}`);
    }
    assert.match(
      text,
      /--allow adds them.*\n {4}- id: lab-plugged-block\n {6}match: \{ bus: virtio, type: block, hotplugged: true \}/,
    );
  });

  await t.test('an honest drive is in use, one that measures otherwise is not, a relay is and gets no further', () => {
    const acts = report.drive?.acts ?? [];
    assert.deepEqual(
      acts.map(({ conduct, tier, decision, driver }) => [conduct, tier, decision.level, decision.rule, driver]),
      [
        ['honest', 'attested', 'limited', 'lab-drive', 'nvme'],
        ['wrong-measurement', 'attested', 'disconnected', 'lab-drive', null],
        ['relay', 'attested', 'limited', 'lab-drive', 'nvme'],
      ],
    );
    const [, wrong, relay] = acts;
    assert.equal(wrong?.decision.reason, 'requirement-failed');
    assert.deepEqual([...new Set(wrong?.failed.map(({ id }) => id))], ['measurement.value']);
    assert.ok((relay?.answered ?? 0) >= 7, 'a drive elsewhere answered');
    assert.match(text, /no question over SPDM could tell it.*lab-drive-private \(tcb\) asks for\s+`bound`/s);
  });

  await t.test('the boot is what was started, and nothing else', () => {
    assert.deepEqual(
      report.proof?.verdicts.map(({ against, accepted }) => [against, accepted]),
      [
        ['what was started', true],
        ['another command line', false],
        ['another policy', false],
        ['another nonce', false],
      ],
    );
    const reasons = report.proof?.verdicts.map(({ failed }) => failed.join(' ')) ?? [];
    assert.match(reasons[1] ?? '', /Linux command line is /);
    assert.match(reasons[2] ?? '', /Linux initrd is /);
    assert.match(reasons[3] ?? '', /freshness\.nonce/);
  });
});
