/** `airlock device evidence verify`: judges what `device attest --save` kept, without the device. */
import { decodeEvidence } from '@airlock/spdm/attest/evidence.ts';
import {
  APPRAISAL_HELP,
  APPRAISAL_OPTIONS,
  appraisalInput,
  complain,
  judge,
  readUserFile,
} from '../device-appraisal.ts';
import { show } from '../device-verdict-view.ts';
import { type Context, UsageError, type Values, type Verb } from '../verb.ts';

export const verb: Verb = {
  name: 'device evidence verify',
  summary: 'judge what a device said of itself, from the file that device attest --save wrote',
  usage: 'FILE --roots FILE --nonce HEX [--reference FILE] [--json]',
  help: `
FILE is what airlock device attest --save wrote, - is standard input. Every signature is verified again over the messages
that it covers, and everything about the device is read out of those messages.

  --nonce HEX         the 32 bytes that the device was asked with: without them nobody knows when this was said
  --function NAME     the PCI function that the certificate should name (Vendor=…:Device=…:CC=…:REV=…:SSVID=…:SSID=…)
${APPRAISAL_HELP}

Exit codes: 0 accepted, 1 rejected, 2 usage.

  airlock device evidence verify evidence.json --roots maker.pem --nonce 6f1d...
`,
  options: APPRAISAL_OPTIONS,
  run,
};

async function run(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  const [path, ...more] = positionals;
  if (path === undefined) throw new UsageError('which FILE? airlock device attest --save writes one');
  if (more.length > 0) throw new UsageError('one file at a time');
  const input = await appraisalInput(context, values);
  const text =
    path === '-' ? await context.readStdin() : new TextDecoder().decode(await readUserFile(context, '', path));
  const evidence = decodeEvidence(text);
  if (!evidence.ok) return complain(context, 'device evidence verify', evidence);
  const verdict = judge(evidence.value, path === '-' ? 'standard input' : path, input);
  if (!verdict.ok) return complain(context, 'device evidence verify', verdict);
  return show(context, values, verdict.value, input, { device: evidence.value.device });
}
