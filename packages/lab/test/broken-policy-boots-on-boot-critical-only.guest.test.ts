import assert from 'node:assert/strict';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { file, folder, writeCpio } from '@airlock/gate/build/cpio.ts';
import { readEnforcement, readGate } from '../src/airlock-state.ts';
import { CHECKOUT } from '../src/cache.ts';
import { parseView } from '../src/view.ts';
import { bootFor, boundIn, gated, imagesOrSkip, shell } from './guests.ts';

test('a policy that was broken in the initramfs: only what the machine needs to boot', {
  timeout: 300_000,
}, async (t) => {
  const images = await imagesOrSkip(t, '6.12');
  if (images === undefined) return;
  const good = readFileSync(await gated(images, join(CHECKOUT, 'policies/lab.yaml')));
  // The kernel unpacks archives one after another: the last policy.json counts.
  const segment = writeCpio([
    folder('airlock', 0o700),
    file('airlock/policy.json', new TextEncoder().encode('{"version":1,"documents":[{"kind":"map"'), 0o600),
  ]);
  assert.ok(segment.ok);
  const path = join(tmpdir(), `airlock-broken-${process.pid}.cpio`);
  t.after(() => rmSync(path, { force: true }));
  writeFileSync(path, Buffer.concat([good, Buffer.alloc((512 - (good.length % 512)) % 512), segment.value]));

  // The serial lines are no boot device either: the guest keeps what it saw, and only then gets its line back.
  const guest = await bootFor(t, images, path, { cmdline: 'lab.agent=off lab.line=bind' });
  const disks = ['00:02.0 virtio_blk', '00:0a.0 nvme'];
  const view = parseView(await shell(guest, 'cat /tmp/lab/view'));
  assert.ok(view.ok, JSON.stringify(view));
  const bound = boundIn(view.value);
  for (const line of ['pnp/00:00', 'pnp/00:01', 'pnp/00:02']) assert.equal(view.value.drivers.get(line), undefined);
  assert.ok(bound.includes('00:02.0 virtio_blk'), 'the machine boots');
  assert.deepEqual(
    bound.filter((line) => !disks.includes(line)),
    [],
  );
  const gate = await readGate(guest);
  assert.ok(gate.ok, JSON.stringify(gate));
  assert.ok(gate.value.problems.some(({ code }) => code === 'policy-unusable'));
  assert.match(guest.console(), /policy/i);
  const enforcement = await readEnforcement(guest);
  assert.ok(enforcement.ok, JSON.stringify(enforcement));
  for (const { decision } of enforcement.value) assert.match(decision.reason, /^fallback-/);
});
