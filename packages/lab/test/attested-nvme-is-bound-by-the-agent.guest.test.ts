import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Guest } from '../src/guest.ts';
import { driveMaker } from '../src/spdm-drive.ts';
import { bootFor, driveFor, imagesOrSkip } from './guests.ts';

const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64');

const POLICY = `version: 1
mode: enforce
default: limited
rules:
  - id: drive
    match: { bus: pci, class: nvme }
    require: { identity: attested, roots: [maker.pem] }
    level: limited
    otherwise: { level: disconnected }
`;

/** One look of the agent in the guest: what was decided on the drive, why, and the driver that it is left with. */
async function look(guest: Guest, roots: string): Promise<{ readonly told: string; readonly driver: string }> {
  const answer = await guest.run(
    `mkdir -p /tmp/p; echo ${base64(Buffer.from(roots))} | base64 -d > /tmp/p/maker.pem; echo ${base64(Buffer.from(POLICY))} | base64 -d > /tmp/p/policy.yaml
rm -f /run/airlock/events.ndjson; airlock agent run --policy /tmp/p/policy.yaml --once --enforce > /tmp/out 2>&1
grep '"kind":"attested"' /run/airlock/events.ndjson | tail -n 1; echo "driver=$(basename $(readlink /sys/bus/pci/devices/0000:00:0a.0/driver) 2>/dev/null)"; grep -v 0a.0 /tmp/out | head -c 1500 >&2`,
    120,
  );
  assert.ok(answer.ok, JSON.stringify(answer));
  const { stdout, stderr } = answer.value;
  const driver = /driver=(\S*)/.exec(stdout)?.[1];
  assert.ok(driver !== undefined, `${stdout} ${stderr}`);
  return { told: `${stdout.split('\n')[0]} ${stderr}`, driver };
}

test('the agent binds an NVMe drive that proves who it is, and not one that another root vouches for', {
  timeout: 600_000,
}, async (t) => {
  const images = await imagesOrSkip(t, '7.2');
  if (images === undefined) return;
  const maker = driveMaker(['honest', 'wrong-root']);
  assert.ok(maker.ok);
  const drive = await driveFor(t, maker.value, 'honest');
  const guest = await bootFor(t, images, images.plain, {
    cmdline: 'lab.agent=off',
    tweaks: { '0a.0': { spdm_port: String(drive.port) } },
  });

  const good = await look(guest, maker.value.roots);
  assert.equal(good.driver, 'nvme', good.told);
  assert.match(good.told, /"tier":"attested".*maker\.pem vouches/);

  await drive.become('wrong-root');
  const bad = await look(guest, maker.value.roots);
  assert.equal(bad.driver, '', bad.told);
  assert.match(bad.told, /"tier":"claimed".*chain\.root/);
  t.diagnostic(good.told.slice(0, 300));
});
