import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { agentIsUp } from '../src/agent-word.ts';
import { bootFor, gated, imagesOrSkip, shell } from './guests.ts';

const POLICY = `version: 1
mode: enforce
default: disconnected
boot-critical: [disk]
rules:
  - id: disk
    match: { bus: virtio, type: block }
    level: limited
  - id: nic
    match: { bus: virtio, type: net }
    level: limited
  - id: entropy
    match: { bus: virtio, type: entropy }
    level: limited
  - id: lab-serial
    match: { bus: platform, type: serial }
    level: limited
on:
  needs-reset: [log, reset, quarantine]
  driver-violation: [remove]
  ring-violation: [halt]
`;

/**
 * As root may: sets FAILED in the status of a device that is in use, through the configuration window of its function
 * (VIRTIO 1.4 §4.1.4.9), as if its driver had given it up.
 */
const FAIL_DEVICE = `const fs = require('fs');
const path = '/sys/bus/pci/devices/0000:00:03.0/config';
const c = fs.readFileSync(path);
let common, window;
for (let at = c[0x34], i = 0; at && i < 48; at = c[at + 1], i++) {
  if (c[at] !== 9) continue;
  if (c[at + 3] === 1) common = { bar: c[at + 4], offset: c.readUInt32LE(at + 8) };
  if (c[at + 3] === 5) window = at;
}
const fd = fs.openSync(path, 'r+');
const put = (bytes, at) => fs.writeSync(fd, Buffer.from(bytes), 0, bytes.length, at);
const word = (n) => [n & 255, (n >> 8) & 255, (n >> 16) & 255, (n >>> 24) & 255];
put([common.bar], window + 4);
put(word(common.offset + 20), window + 8);
put(word(1), window + 12);
put([0x8f], window + 16);
`;

test('a card that failed is reset and quarantined, a device that root binds is taken off its bus', {
  timeout: 400_000,
}, async (t) => {
  const images = await imagesOrSkip(t, '7.2');
  if (images === undefined) return;
  const policy = join(tmpdir(), `airlock-violations-${process.pid}.yaml`);
  writeFileSync(policy, POLICY);
  t.after(() => rmSync(policy, { force: true }));
  const guest = await bootFor(t, images, await gated(images, policy));
  const up = await agentIsUp(guest, 120);
  assert.deepEqual(up, { ok: true, value: null });
  assert.match(await shell(guest, 'ls /sys/class/net'), /eth0/);
  const before = await shell(
    guest,
    'cat /sys/bus/pci/devices/0000:00:03.0/virtio*/status; ls /sys/bus/pci/devices/0000:00:03.0/',
  );
  t.diagnostic(before.replaceAll('\n', ' '));

  await shell(guest, `node -e '${FAIL_DEVICE.replaceAll("'", '"')}'`, 60);
  const said = await until(guest, '"action":"quarantine"');
  t.diagnostic(said);
  assert.match(said, /"kind":"violation".*"device":"pci:0000:00:03.0".*FAILED.*"violation":"needs-reset"/);
  assert.match(said, /"kind":"response".*"action":"reset"/);
  assert.match(said, /"kind":"response".*"action":"quarantine".*"status":"enforced"/);
  assert.doesNotMatch(await shell(guest, 'ls /sys/class/net'), /eth0/);

  // The agent is killed: the next one knows.
  await shell(guest, 'kill -9 $(pidof node); sleep 1', 30);
  await shell(guest, '(airlock agent run --enforce >/run/agent2.log 2>&1 &) ; true');
  await shell(
    guest,
    'tries=0; until airlock status --json >/run/status.json 2>&1; [ -s /run/status.json ] && grep -q agent /run/status.json; do tries=$((tries+1)); [ $tries -lt 20 ] || break; sleep 1; done',
    200,
  );
  const status = await shell(guest, 'airlock status', 60);
  t.diagnostic(status);
  assert.match(status, /quarantine, needs-reset/);
  assert.doesNotMatch(await shell(guest, 'ls /sys/class/net'), /eth0/);
  const refused = await shell(guest, 'airlock allow 00:03.0 2>&1; echo "exit $?"', 60);
  assert.match(refused, /in quarantine for needs-reset/);
  assert.match(refused, /exit 1/);

  // Root lets a driver at the NVMe drive, which no rule allows.
  const nvme = (await shell(guest, 'grep -l 0x010802 /sys/bus/pci/devices/*/class')).split('/').at(-2) ?? '';
  assert.match(nvme, /^0000:/);
  await shell(
    guest,
    `modprobe nvme; echo > /sys/bus/pci/devices/${nvme}/driver_override; echo ${nvme} > /sys/bus/pci/drivers/nvme/bind; true`,
    60,
  );
  const removed = await until(guest, '"action":"remove"');
  t.diagnostic(removed);
  assert.match(removed, /"violation":"driver-violation","action":"remove".*"status":"enforced"/);
  assert.equal((await shell(guest, `ls -d /sys/bus/pci/devices/${nvme} 2>/dev/null; true`)).trim(), '');
  await shell(guest, 'echo 1 > /sys/bus/pci/rescan; sleep 3; true', 60);
  const late = await shell(guest, 'airlock status', 60);
  t.diagnostic(late);
  assert.match(late, /remove, driver-violation/);
  const lifted = await shell(guest, 'airlock allow 00:03.0 --revoke; ls /sys/class/net', 60);
  assert.match(lifted, /the quarantine for needs-reset is lifted/);
  assert.match(lifted, /eth0/);
});

/** The lines of the decision log that tell of violations and answers, once one of them has this text. */
async function until(guest: Parameters<typeof shell>[0], text: string): Promise<string> {
  return shell(
    guest,
    `tries=0
until grep -q '${text}' /run/airlock/events.ndjson; do tries=$((tries + 1)); [ $tries -lt 60 ] || break; sleep 1; done
grep -E '"kind":"(violation|response)"' /run/airlock/events.ndjson`,
    90,
  );
}
