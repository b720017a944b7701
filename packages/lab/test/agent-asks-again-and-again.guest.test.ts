import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { gatedInitramfs } from '../src/gated-initramfs.ts';
import type { Guest } from '../src/guest.ts';
import { driveMaker } from '../src/spdm-drive.ts';
import { bootFor, driveFor, imagesOrSkip, shell as run } from './guests.ts';

const POLICY = `version: 1
mode: enforce
default: limited
rules:
  - id: drive
    match: { bus: pci, class: nvme }
    require: { identity: attested, roots: [maker.pem], measurements: [firmware.yaml], spdm: ">=1.2" }
    level: limited
    otherwise: { level: disconnected }
on:
  attestation-failure: [log]
  device-timeout: [log]
`;
const EVENTS = '/run/airlock/events.ndjson';
const START = `airlock agent run --enforce --every 6s > /tmp/agent.log 2>&1 & echo $! > /tmp/agent.pid`;

const shell = (guest: Guest, script: string) => run(guest, script, 240);

/** Until that is told and the drive has a driver, or has none; what the agent said meanwhile of proofs and violations. */
async function until(guest: Guest, bound: boolean, told: string): Promise<string> {
  const there = `[ ${bound ? '' : '! '}-e /sys/bus/pci/devices/0000:00:0a.0/driver ]`;
  const fresh = `tail -n +$(($(cat /tmp/seen 2>/dev/null || echo 0) + 1)) ${EVENTS} 2>/dev/null | grep -E '"kind":"(attested|violation)"'`;
  const said = await shell(
    guest,
    `for i in $(seq 500); do ${there} && ${fresh} | grep -q '${told}' && echo reached && break; sleep 0.25; done
${fresh}; wc -l < ${EVENTS} > /tmp/seen`,
  );
  if (!said.startsWith('reached'))
    assert.fail(`${told}: ${said}\n${await shell(guest, 'tail -c 2000 /tmp/agent.log')}`);
  return said;
}

test('an agent that asks again and again: a drive is taken down when it fails, and why is told', {
  timeout: 600_000,
}, async (t) => {
  const images = await imagesOrSkip(t, '7.2');
  if (images === undefined) return;
  const maker = driveMaker(['honest', 'wrong-measurement', 'endless-busy', 'wrong-root']);
  assert.ok(maker.ok);
  const drive = await driveFor(t, maker.value, 'honest');
  const folder = mkdtempSync(join(tmpdir(), 'airlock-lab-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const files = { 'maker.pem': maker.value.roots, 'firmware.yaml': maker.value.reference, 'policy.yaml': POLICY };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  // What the policy names is measured with it, and the agent takes it from there.
  const policy = join(folder, 'policy.yaml');
  const made = await gatedInitramfs(images.cache, images.kernel, images.plain, policy, join(folder, 'initramfs'));
  assert.ok('path' in made, JSON.stringify(made));
  const guest = await bootFor(t, images, made.path, {
    cmdline: 'lab.agent=off',
    tweaks: { '0a.0': { spdm_port: String(drive.port) } },
  });
  assert.equal(await shell(guest, '[ -e /sys/bus/pci/devices/0000:00:0a.0/driver ] && echo bound'), '', 'by the gate');
  await shell(guest, START);
  const began = performance.now();
  const step = (what: string) => t.diagnostic(`${what}: ${((performance.now() - began) / 1000).toFixed(1)} s`);

  const first = await until(guest, true, '"tier":"attested"');
  assert.match(first, /"way":"answered".*measurements as in firmware\.yaml/);
  assert.doesNotMatch(first, /violation/);
  step('proven and bound');

  await drive.become('wrong-measurement');
  const other = await until(guest, false, '"violation":"attestation-failure"');
  assert.match(other, /not as in firmware\.yaml: measurement\.value/);
  step('other firmware, taken down');

  await drive.become('honest');
  assert.doesNotMatch(await until(guest, true, 'measurements as in firmware'), /"violation":/);
  step('honest again, bound again');

  await drive.become('endless-busy');
  const busy = await until(guest, false, '"violation":"device-timeout"');
  assert.match(busy, /"way":"silent".*once more before that counts/);
  assert.doesNotMatch(busy, /attestation-failure/);
  step('no answer twice, taken down');

  await drive.become('honest');
  await until(guest, true, 'measurements as in firmware');
  // The proof is written down at the end of the turn that bound it.
  const restarted = await shell(
    guest,
    `for i in $(seq 40); do grep -q 0a.0 /run/airlock/proofs.json && break; sleep 0.25; done
kill -9 $(cat /tmp/agent.pid); echo before: $(wc -l < ${EVENTS}); n=$(wc -l < ${EVENTS}); ${START}
for i in $(seq 500); do tail -n +$((n + 1)) ${EVENTS} | grep -q '"kind":"attested"' && break; sleep 0.25; done; sleep 1
tail -n +$((n + 1)) ${EVENTS} | grep -E '"kind":"(attested|step|violation)"' | grep 0a.0; [ -e /sys/bus/pci/devices/0000:00:0a.0/driver ] && echo still bound`,
  );
  assert.match(restarted, /"kind":"attested"/);
  assert.match(restarted, /still bound/);
  assert.doesNotMatch(restarted, /unbind/);
  step('killed, started again, asked before anything was taken down');

  await drive.become('wrong-root');
  const stranger = await until(guest, false, '"violation":"attestation-failure"');
  assert.match(stranger, /chain\.root/);
  step('another root, taken down');
  const asked = [...`${first}${other}`.matchAll(/"milliseconds":(\d+)/g)].map(([, ms]) => Number(ms));
  t.diagnostic(`asked and judged in the guest, in ms: ${asked.join(', ')}`);
});
