/** What was brought to the lab, as a person reads it. Pure. */
import { isConnected } from '@airlock/core/level.ts';
import { wrapText } from '@airlock/core/wrap.ts';
import type { DriveAct, FailedCheck, PluggedDevice, ProofVerdict } from './exhibit.ts';
import { type Paint, safe } from './paint.ts';
import type { LabReport } from './report.ts';

const WIDTH = 96;

export function exhibitLines(report: LabReport, paint: Paint): string[] {
  return [
    ...pluggedLines(report, paint),
    ...driveLines(report, paint),
    ...proofLines(report, paint),
    ...addedLines(report, paint),
  ];
}

/** Lines below a first one that stands `indent` to the right. */
function hanging(text: string, indent: number): string[] {
  return wrapText(text, WIDTH - indent).map((line) => `${' '.repeat(indent)}${line}`);
}

function pluggedLines({ plugged, devices, added }: LabReport, paint: Paint): string[] {
  if (plugged.length === 0) return [];
  const shut = plugged.filter(({ id, rule }) => {
    const line = devices.find((device) => device.id === id);
    return line !== undefined && !isConnected(line.level) && added?.includes(rule) !== true;
  });
  const rules = [...new Set(shut.map(({ rule }) => rule))];
  const hint =
    rules.length === 0
      ? []
      : [
          '  What is denied is let in by these rules: --allow adds them, or put them into your --policy',
          ...rules.flatMap((rule) => rule.trimEnd().split('\n')).map((line) => paint.dim(`  ${line}`)),
        ];
  return [`  ${paint.bold('Devices of ours')}`, ...plugged.flatMap((one) => pluggedLine(one, paint)), ...hint, ''];
}

function pluggedLine(one: PluggedDevice, paint: Paint): string[] {
  const holds = one.sandbox.filter(({ status }) => status === 'enforced').map(({ layer }) => layer);
  const lacks = one.sandbox.filter(({ status }) => status !== 'enforced');
  const confined = holds.length === 0 ? 'its process is not confined' : `its process is confined (${holds.join(', ')})`;
  const where = one.id === null ? paint.bad('not seen by the guest') : one.id.replace(/^pci:0000:/, '');
  const what = one.what === '' ? '' : `${safe(one.what)}; `;
  return [
    `  ${safe(one.type)} over ${safe(one.transport)}, ${where}`,
    ...hanging(`${what}${confined}`, 4),
    ...lacks.flatMap(({ layer, detail }) => hanging(`its sandbox lacks ${layer}: ${safe(detail)}`, 4)).map(paint.warn),
    ...one.complaints.flatMap((text) => hanging(safe(text), 4)).map(paint.warn),
  ];
}

function driveLines({ drive }: LabReport, paint: Paint): string[] {
  if (drive === null) return [];
  const width = Math.max(...drive.acts.map(({ conduct }) => conduct.length));
  return [
    `  ${paint.bold(`What stood at ${drive.id.replace(/^pci:0000:/, '')}, one after the other, and was asked who it is`)}`,
    ...drive.acts.flatMap((act) => actLines(act, width, paint)),
    '',
  ];
}

function actLines(act: DriveAct, width: number, paint: Paint): string[] {
  const { conduct, decision, driver, failed, tier } = act;
  const used = driver !== null;
  const word = used ? `${decision.level}, driver ${safe(driver)}` : `${decision.level}, no driver`;
  const told = act.asExpected ? (used ? paint.good(word) : paint.dim(word)) : paint.bad(word);
  const rule = decision.rule === null ? decision.reason : `rule ${decision.rule}: ${decision.reason}`;
  const lines = [
    `${safe(tier)} (${safe(act.because)}); ${rule}; ${act.answered} messages, ${act.milliseconds} ms`,
    ...(conduct === 'relay' && used ? [relayText(act)] : []),
  ];
  return [
    `  ${conduct.padEnd(width)}  ${told}`,
    ...lines.flatMap((line) => hanging(line, 4)),
    ...failed.flatMap((check) => hanging(checkText(check), 4)).map(paint.bad),
  ];
}

function checkText({ id, subject, expected, found }: FailedCheck): string {
  const whose = subject === null ? '' : ` (${safe(subject)})`;
  return `${safe(id)}${whose}: expected ${shortened(safe(expected))}, found ${shortened(safe(found))}`;
}

/** Digests by their first bytes. */
function shortened(text: string): string {
  return text.replace(/[0-9a-f]{24,}/g, (digits) => `${digits.slice(0, 12)}...`);
}

function relayText({ answered }: DriveAct): string {
  return (
    `It passed, and no question over SPDM could tell it: what stands in the slot did not answer; a genuine drive ` +
    `elsewhere did, all ${answered} times. So \`attested\` lets it be used as any device of an untrusted host ` +
    `(shared memory, bounced) and opens no private memory: the rule lab-drive-private (tcb) asks for \`bound\`, ` +
    `and for that TDISP has to lock the very function that does the DMA to this VM.`
  );
}

function proofLines({ proof }: LabReport, paint: Paint): string[] {
  if (proof === null) return [];
  const width = Math.max(...proof.verdicts.map(({ against }) => against.length));
  return [
    `  ${paint.bold('What the TPM proves of the boot: quote and event log from the guest, judged by airlock verify')}`,
    ...hanging(`initramfs ${proof.initramfs}`, 2),
    ...hanging(`command line ${safe(proof.cmdline)}`, 2),
    ...proof.verdicts.flatMap((verdict) => verdictLines(verdict, width, paint)),
    '',
  ];
}

function verdictLines({ against, accepted, failed, asExpected }: ProofVerdict, width: number, paint: Paint): string[] {
  const word = accepted ? 'accepted' : 'refused';
  const told = asExpected ? (accepted ? paint.good(word) : paint.dim(word)) : paint.bad(word);
  return [
    `  against ${against.padEnd(width)}  ${told}`,
    ...failed.flatMap((line) => hanging(shortened(safe(line)), 4)),
  ];
}

function addedLines({ added, policy }: LabReport, paint: Paint): string[] {
  if (added === null) return [];
  return [
    `  ${paint.bold(`Rules that came after those of ${safe(policy)}`)}`,
    ...added
      .split('\n')
      .slice(2, -1)
      .map((line) => paint.dim(`  ${line}`)),
    '',
  ];
}
