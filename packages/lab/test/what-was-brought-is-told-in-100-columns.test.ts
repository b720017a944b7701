import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DriveAct, PluggedDevice } from '../src/exhibit.ts';
import { renderReport } from '../src/render.ts';
import type { DeviceLine, LabReport } from '../src/report.ts';

const DIGEST = '0123456789abcdef'.repeat(6);
const RULE =
  '  - id: lab-plugged-block\n    match: { bus: virtio, type: block, hotplugged: true }\n    level: limited\n';

const line = (id: string, more: Partial<DeviceLine>): DeviceLine => ({
  ...{ id, name: 'NVMe drive with SPDM', origin: 'boot', level: 'disconnected', rule: 'lab-drive' },
  ...{ reason: 'requirement-failed', detail: '', status: 'enforced', because: [], driver: 'virtio_console' },
  agrees: true,
  ...more,
});

const disk: PluggedDevice = {
  ...{ type: 'block', transport: 'vhost-user', id: 'pci:0000:03:00.0', what: 'disk.img', rule: RULE, complaints: [] },
  sandbox: [
    { layer: 'user', status: 'enforced', detail: '' },
    { layer: 'root', status: 'not-enforceable', detail: "unshare: unrecognized option '--kill-child'" },
  ],
};

const act = (conduct: DriveAct['conduct'], used: boolean, more: Partial<DriveAct> = {}): DriveAct => ({
  ...{ conduct, tier: 'attested', because: 'lab-maker.pem vouches for it, freshly', failed: [] },
  ...{ milliseconds: 900, answered: 7, asExpected: true, driver: used ? 'nvme' : null },
  decision: {
    ...{ level: used ? 'limited' : 'disconnected', rule: 'lab-drive', detail: '' },
    reason: used ? 'rule-matched' : 'requirement-failed',
  },
  ...more,
});

const report = (more: Partial<LabReport>): LabReport => ({
  ...{ version: 1, kernel: { series: '7.2', release: '7.2.12' }, policy: 'policies/lab.yaml', added: null },
  ...{ accelerator: { name: 'tcg', because: '' }, mode: 'enforce', gateMilliseconds: 900, problems: [], machine: [] },
  ...{ agentFault: null, attempts: [], undecided: [], held: true, seconds: 60, drive: null, proof: null, plugged: [] },
  devices: [line('pci:0000:03:00.0', {}), line('vdpa:lab-block-2', { name: 'our block, vhost-user' })],
  ...more,
});

const narrow = (text: string) =>
  assert.deepEqual(
    text.split('\n').filter((one) => one.length > 100),
    [],
  );

test('a device of ours that is denied comes with the rule that lets it in; one that is let in by it does not', () => {
  const denied = renderReport(report({ plugged: [disk] }), false);
  narrow(denied);
  assert.match(denied, /confined \(user\)/);
  assert.match(denied, /lacks root: unshare: unrecognized option/);
  assert.match(denied, /--allow adds them.*\n {4}- id: lab-plugged-block\n {6}match: /);
  const all = `version: 1\nrules:\n${RULE}`;
  const added = renderReport(report({ plugged: [disk], added: all }), false);
  assert.doesNotMatch(added, /--allow adds them/);
  assert.match(added, /Rules that came after those of policies\/lab\.yaml\n {4}- id: lab-plugged-block/);
});

test('drives: what was found out, which check failed, and why a relay that passes gets no further', () => {
  const wrong = {
    id: 'measurement.value',
    subject: 'block 1',
    expected: `sha384 ${DIGEST}`,
    found: `\x1b[2J${DIGEST}`,
  };
  const text = renderReport(
    report({
      drive: {
        id: 'pci:0000:03:00.0',
        acts: [act('honest', true), act('wrong-measurement', false, { failed: [wrong] }), act('relay', true)],
      },
    }),
    false,
  );
  narrow(text);
  assert.match(text, /honest +limited, driver nvme/);
  assert.match(text, /wrong-measurement +disconnected, no driver/);
  assert.match(
    text,
    /measurement\.value \(block 1\): expected sha384 0123456789ab\.\.\., found \\x1b\[2J0123456789ab\.\.\./,
  );
  assert.match(text, /no question over SPDM could tell it.*lab-drive-private \(tcb\) asks for\s+`bound`/s);
  assert.equal(text.match(/no question over SPDM/g)?.length, 1, 'of the honest one that is not said');
});

test('a proof that was taken for what it is not makes the whole wrong', () => {
  const verdict = { against: 'another policy', accepted: true, failed: [], asExpected: false } as const;
  const proof = { cmdline: 'console=ttyS0', initramfs: DIGEST.slice(0, 64), verdicts: [verdict] };
  const text = renderReport(report({ proof, held: false }), false);
  narrow(text);
  assert.match(text, /against another policy +accepted/);
  assert.match(text, /The policy does not hold/);
  assert.match(text, /!! the proof, against another policy: not as it must be/);
});

test('a device that the guest did not see is a fault', () => {
  const text = renderReport(report({ plugged: [{ ...disk, id: null }], held: false }), false);
  assert.match(text, /not seen by the guest/);
  assert.match(text, /!! the guest did not see our block/);
});
