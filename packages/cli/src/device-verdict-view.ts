/** How the verdict on a device is shown. */
import { reportText } from '@airlock/evidence/text.ts';
import { printable } from '@airlock/linux/attribute.ts';
import type { AppraiseDevice, DeviceAppraisal } from '@airlock/spdm/attest/appraise.ts';
import type { DeviceVerdict } from './device-appraisal.ts';
import { type Context, EXIT, type Values } from './verb.ts';

/** Prints and gives the exit code; `more` is added to the JSON form. */
export function show(
  context: Context,
  values: Values,
  verdict: DeviceVerdict,
  input: AppraiseDevice,
  more: Readonly<Record<string, unknown>>,
): number {
  const { appraisal, report } = verdict;
  const { tier, compared, unused } = appraisal;
  if (values['json'] === true) {
    context.stdout(`${JSON.stringify({ ...report, ...more, tier, compared, unused }, null, 2)}\n`);
  } else {
    const verbose = values['verbose'] === true;
    context.stdout(reportText(report, { colour: context.terminal, columns: context.columns, verbose }));
    context.stdout(`\n${tierText(verdict, input)}\n`);
    if (compared.length > 0) context.stdout(`${comparedText(appraisal, input, context.columns)}\n`);
  }
  return appraisal.verdict === 'accepted' ? EXIT.fine : EXIT.findings;
}

function tierText({ appraisal, interface: its, recordedBy }: DeviceVerdict, { roots, nonce }: AppraiseDevice): string {
  const { tier, verdict } = appraisal;
  if (tier === 'attested' && recordedBy === 'tsm')
    return 'identity: attested: a root that you trust vouches for it, and it answered just this request.\n          The kernel says that its TSM locked it. Whether it is bound is for somebody outside to say, who sees\n          the VM’s evidence too: airlock evidence collect --device, and airlock verify --tier bound there.';
  if (tier === 'attested' && its !== null)
    return 'identity: attested: a root that you trust vouches for it, and it answered just this request.\n          Not bound, whatever the state of its interface: who asked made the session, and that may be\n          relayed. Only the platform’s TSM locks an interface for a VM: airlock verify MACHINE --tier bound.';
  if (tier === 'attested')
    return 'identity: attested: a root that you trust vouches for it, and it answered just this request.\n          Not bound: what answered may be elsewhere, so this opens no private memory.';
  const why =
    roots.length === 0
      ? 'no root was given (--roots), so nobody vouches for it'
      : verdict === 'accepted' && nonce === null
        ? 'nobody knows when this was said: give the nonce (--nonce)'
        : its?.verdict === 'rejected'
          ? 'its interface was rejected'
          : 'it was rejected';
  return `identity: claimed: ${why}.`;
}

/** A line for each measurement; what it was compared with, where there was something. */
function comparedText({ compared, unused }: DeviceAppraisal, { references }: AppraiseDevice, columns: number): string {
  const count = (status: string) => compared.filter((one) => one.status === status).length;
  const known = references.length > 0;
  const rest = unused.length === 0 ? 'all were used' : `not used: ${unused.map(printable).join(', ')}`;
  const head = known
    ? `${count('matched')} matched, ${count('different')} different, ${count('unlisted')} without a reference value; of the reference values ${rest}`
    : `${compared.length}, compared with nothing (--reference)`;
  const width = Math.max(...compared.map(({ type }) => type.length));
  const lines = compared.map(({ index, type, status, matched, value }) => {
    const said = !known
      ? ''
      : `${(matched.length === 0 ? status : `matched: ${matched.map(printable).join(', ')}`).padEnd(24)} `;
    const line = `  ${String(index).padStart(3)}  ${type.padEnd(width)}  ${said}`;
    return `${line}${value.slice(0, Math.max(16, Math.min(columns, 120) - line.length))}`;
  });
  return [`measurements: ${head}`, ...lines].join('\n');
}
