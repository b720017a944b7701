import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { doeBinding } from '@airlock/spdm/doe/binding.ts';
import type { Lie } from '@airlock/spdm/profile/hostile.ts';
import { makeProfileDevice } from '@airlock/spdm/profile/node-device.ts';
import { DEFAULT_PROFILE } from '@airlock/spdm/profile/profile.ts';
import { type Answerer, serveSocket } from '@airlock/spdm/tcp/node-server.ts';
import { parseFunctionId } from '@airlock/spdm/tdisp/interface.ts';
import { RANGE_ATTRIBUTE } from '@airlock/spdm/tdisp/report.ts';
import type { Guest } from '../src/guest.ts';
import { NVME_FUNCTION } from '../src/spdm-drive.ts';
import { bootFor, imagesOrSkip } from './guests.ts';

/** QEMU's NVMe controller: one BAR of 16 KiB with the MSI-X table in its third page and the PBA in its fourth. */
const REPORT = {
  ...{ info: 0b11, msixControl: 64, lnrControl: 0, tphControl: 0, deviceSpecific: new Uint8Array() },
  ranges: [
    { firstPage: 0n, pages: 2, attributes: 0, rangeId: 0 },
    { firstPage: 2n, pages: 1, attributes: RANGE_ATTRIBUTE.msixTable, rangeId: 0 },
    { firstPage: 3n, pages: 1, attributes: RANGE_ATTRIBUTE.msixPba, rangeId: 0 },
  ],
};

interface Drive {
  readonly port: number;
  readonly roots: () => string;
  become(hostile: Lie | null): void;
}

async function drive(t: TestContext): Promise<Drive> {
  const id = parseFunctionId('00:0a.0');
  assert.ok(id !== undefined);
  let root = '';
  let answer: Answerer = () => ({ ok: false, error: { code: 'link-closed', message: 'no drive yet' } });
  const become = (hostile: Lie | null) => {
    const profile = { ...DEFAULT_PROFILE, name: NVME_FUNCTION, tdisp: [{ id, report: REPORT }], hostile };
    const made = makeProfileDevice(profile, Date.now(), null);
    assert.ok(made.ok);
    root = Buffer.from(made.value.root).toString('base64');
    answer = made.value.open(doeBinding);
  };
  become(null);
  const listen = { host: '127.0.0.1', port: 0 };
  const server = await serveSocket({ listen, form: 'emulator-doe', open: () => (message) => answer(message) });
  assert.ok(server.ok);
  t.after(() => server.value.close());
  return {
    port: server.value.port,
    roots: () => `-----BEGIN CERTIFICATE-----\n${root}\n-----END CERTIFICATE-----\n`,
    become,
  };
}

interface Told {
  readonly tier: string;
  readonly milliseconds: number;
  readonly messages: number;
  readonly appraisals: readonly {
    readonly title: string;
    readonly checks: readonly { readonly id: string; readonly status: string; readonly found: string }[];
  }[];
}

async function attest(guest: Guest, roots: string, ...more: readonly string[]) {
  const root = Buffer.from(roots).toString('base64');
  const answer = await guest.run(
    `echo ${root} | base64 -d > /tmp/root.pem; airlock device attest 00:0a.0 --roots /tmp/root.pem --json ${more.join(' ')} > /tmp/told 2>/tmp/err; status=$?; cat /tmp/err >&2; base64 /tmp/told; exit $status`,
    120,
  );
  assert.ok(answer.ok, JSON.stringify(answer));
  const { status, stdout, stderr } = answer.value;
  const text = Buffer.from(stdout.replaceAll('\n', ''), 'base64').toString('utf8');
  const told = text === '' ? null : (JSON.parse(text) as Told);
  const of = (wanted: string) =>
    told?.appraisals.flatMap(({ checks }) => checks.filter((one) => one.status === wanted).map(({ id }) => id)) ?? [];
  return { code: status, told, failed: of('failed'), passed: of('passed'), err: stderr };
}

test('an NVMe drive’s interface: locked, compared with what the guest sees of the function, and unlocked, through sysfs', {
  timeout: 600_000,
}, async (t) => {
  const images = await imagesOrSkip(t, '7.2');
  if (images === undefined) return;
  const served = await drive(t);
  const guest = await bootFor(t, images, images.plain, {
    cmdline: 'lab.agent=off',
    tweaks: { '0a.0': { spdm_port: String(served.port) } },
  });

  const listed = await guest.run('airlock list', 60);
  assert.ok(listed.ok);
  assert.match(listed.value.stdout, /pci:0000:00:0a\.0 .* SPDM/);

  const looked = await attest(guest, served.roots(), '--interface own');
  assert.equal(looked.code, 0, looked.err + looked.failed.join());
  await guest.run('echo 0000:00:0a.0 > /sys/bus/pci/drivers/nvme/unbind', 60);
  const good = await attest(guest, served.roots(), '--interface own --start');
  assert.deepEqual([good.code, good.failed, good.told?.tier], [0, [], 'attested'], good.err);
  for (const id of ['session', 'function', 'state', 'nonce', 'stopped', 'ranges', 'coverage', 'msix', 'config'])
    assert.ok(good.passed.includes(`tdisp.${id}`), `${id}: ${JSON.stringify(good.told?.appraisals[1])}`);
  t.diagnostic(`locked, reported, started, stopped: ${good.told?.milliseconds} ms, ${good.told?.messages} messages`);

  served.become('tdisp-other-bars');
  const other = await attest(guest, served.roots(), '--interface own --lock');
  assert.deepEqual([other.code, other.failed], [1, ['tdisp.ranges', 'tdisp.overlap', 'tdisp.msix']], other.err);
  served.become('tdisp-error');
  const error = await attest(guest, served.roots(), '--interface own --lock');
  assert.deepEqual([error.code, error.failed], [1, ['tdisp.answer', 'tdisp.state']], error.err);
});
