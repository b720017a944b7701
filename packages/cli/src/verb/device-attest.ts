/** `airlock device attest`: asks a device who it is and what it runs, over SPDM, and judges the answer. */
import { randomBytes } from 'node:crypto';
import { existsSync, statSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { fail, formatProblem, ok, type Result } from '@airlock/core/result.ts';
import { printable } from '@airlock/linux/attribute.ts';
import { findDevice } from '@airlock/linux/find-device.ts';
import { readInventory } from '@airlock/linux/inventory.ts';
import { nodeFiles } from '@airlock/linux/node-files.ts';
import { type DeviceEvidence, encodeEvidence } from '@airlock/spdm/attest/evidence.ts';
import { gatherEvidence } from '@airlock/spdm/attest/gather.ts';
import { doeBinding } from '@airlock/spdm/doe/binding.ts';
import type { PciIdentity } from '@airlock/spdm/identity/pci-name.ts';
import { nodeSpdmCrypto } from '@airlock/spdm/node-crypto.ts';
import { Connection } from '@airlock/spdm/requester/connection.ts';
import { drive, type Link } from '@airlock/spdm/requester/procedure.ts';
import type { Binding } from '@airlock/spdm/secured/binding.ts';
import { openSocketLink } from '@airlock/spdm/tcp/node-link.ts';
import { SOCKET_FORMS, type SocketForm } from '@airlock/spdm/tcp/socket-form.ts';
import { APPRAISAL_HELP, APPRAISAL_OPTIONS, appraisalInput, complain, judge, show } from '../device-appraisal.ts';
import { openFunctionLink } from '../function-link.ts';
import { type Context, UsageError, type Values, type Verb } from '../verb.ts';

export const verb: Verb = {
  name: 'device attest',
  summary: 'ask a device who it is and what it runs (SPDM), and judge the answer',
  usage: 'DEVICE|tcp://HOST:PORT --roots FILE [--reference FILE] [--save FILE] [--json]',
  help: `
DEVICE is an id as airlock list shows it, an address (00:04.0), a kernel name or an interface (nvme0n1): a PCI function
with a DOE mailbox, which is asked through its configuration space, with or without a driver; needs root. tcp://HOST:PORT
is a responder on a socket.

  --transport FORM    what is spoken on the socket: ${SOCKET_FORMS.join(', ')} (default: ${SOCKET_FORMS[0]}, DSP0287)
  --slot N            the certificate slot, 0 to 7 (default: the lowest that has a chain)
  --nonce HEX         32 bytes that the answer has to carry (default: random)
  --raw               values of measurements in place of their digests, where the device can
  --function NAME     for a socket: the PCI function that the certificate should name (Vendor=…:Device=…:…)
  --save FILE         the evidence, so that another party can judge it: airlock device evidence verify FILE
${APPRAISAL_HELP}
  --root DIR          a copy of a machine's /sys and /proc instead of this machine

Exit codes: 0 accepted, 1 rejected, or the device did not keep to SPDM, 2 usage, 3 it could not be asked.

  airlock device attest nvme0n1 --roots maker.pem --reference firmware.yaml
  airlock device attest tcp://127.0.0.1:2323 --transport emulator-doe --roots ca.cert.der --save evidence.json
`,
  options: {
    ...APPRAISAL_OPTIONS,
    transport: { type: 'string' },
    slot: { type: 'string' },
    raw: { type: 'boolean' },
    save: { type: 'string' },
    root: { type: 'string' },
  },
  run,
};

interface Reached {
  readonly name: string;
  readonly binding: Binding;
  readonly link: Link;
  readonly function: PciIdentity | null;
  close(): Promise<void>;
}

async function run(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  const [word, ...more] = positionals;
  if (word === undefined) throw new UsageError('which device? airlock list shows them');
  if (more.length > 0) throw new UsageError('one device at a time');
  const slot = slotOf(values);
  const input = await appraisalInput(context, values);
  const nonce = input.nonce ?? new Uint8Array(randomBytes(32));
  const reached = word.includes('://') ? await reachSocket(word, values) : await reachFunction(context, word, values);
  if (!reached.ok) return complain(context, 'device attest', reached);
  const { name, binding, link } = reached.value;
  if (reached.value.function !== null && input.function !== null)
    throw new UsageError('--function is for sockets: of a PCI function it is known');

  let messages = 0;
  const counted: Link = {
    exchange: (bytes, within) => {
      messages += 2;
      return link.exchange(bytes, within);
    },
    wait: (milliseconds) => link.wait(milliseconds),
  };
  // Any chain is taken for now: who vouches for it is judged with everything else, and told.
  const connection = new Connection({ crypto: nodeSpdmCrypto(), binding, trust: () => ok(null) });
  const began = performance.now();
  const asked = { device: name, nonce, raw: values['raw'] === true, ...(slot === undefined ? {} : { slot }) };
  const evidence = await drive(gatherEvidence(connection, asked), counted);
  const milliseconds = Math.round(performance.now() - began);
  await reached.value.close();
  if (!evidence.ok) return complain(context, 'device attest', evidence);

  const judged = { ...input, nonce, function: reached.value.function ?? input.function };
  const verdict = judge(evidence.value, name, judged);
  if (!verdict.ok) return complain(context, 'device attest', verdict);
  const saved = await save(context, values, evidence.value);
  if (!saved.ok) return complain(context, 'device attest', saved);
  const code = show(context, values, verdict.value, judged, {
    device: name,
    nonce: Buffer.from(nonce).toString('hex'),
    messages,
    milliseconds,
  });
  if (values['json'] !== true)
    context.stdout(
      `asked in ${messages} messages and ${milliseconds} ms${saved.value === null ? '' : `; evidence in ${printable(saved.value)}`}\n`,
    );
  return code;
}

function slotOf(values: Values): number | undefined {
  const text = values['slot'];
  if (typeof text !== 'string') return undefined;
  if (!/^[0-7]$/.test(text)) throw new UsageError('--slot: 0 to 7');
  return Number(text);
}

async function reachSocket(word: string, values: Values): Promise<Result<Reached>> {
  const match = /^tcp:\/\/(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):(\d{1,5})\/?$/.exec(word);
  const port = Number(match?.[2]);
  if (match === null || port < 1 || port > 65535)
    throw new UsageError(`${printable(word)}: tcp://HOST:PORT is the form`);
  const form = values['transport'] ?? SOCKET_FORMS[0];
  const known = SOCKET_FORMS.find((one): one is SocketForm => one === form);
  if (known === undefined)
    throw new UsageError(`--transport ${printable(String(form))}: one of ${SOCKET_FORMS.join(', ')}`);
  const host = (match[1] ?? '').replace(/^\[|\]$/g, '');
  const link = await openSocketLink({ host, port, form: known });
  if (!link.ok) return link;
  return ok({
    name: word,
    binding: link.value.binding,
    link: link.value,
    function: null,
    close: () => link.value.close(),
  });
}

async function reachFunction(context: Context, word: string, values: Values): Promise<Result<Reached>> {
  if (values['transport'] !== undefined) throw new UsageError('--transport is for sockets');
  if (values['function'] !== undefined)
    throw new UsageError('--function is for sockets: of a PCI function it is known');
  const root = typeof values['root'] === 'string' ? resolve(context.cwd, values['root']) : '/';
  if (!existsSync(root) || !statSync(root).isDirectory()) throw new UsageError(`no such folder: ${printable(root)}`);
  // Nothing is written through these: the mailbox's registers have a hand of their own.
  const files = nodeFiles({ root, writes: 'nothing' });
  const inventory = await readInventory(files);
  if (!inventory.ok) return inventory;
  const found = findDevice(inventory.value.devices, word);
  if (!found.ok) throw new UsageError(formatProblem(found.error));
  const opened = await openFunctionLink(root, found.value);
  if (!opened.ok) return opened;
  const { link, close } = opened.value;
  return ok({
    name: found.value.id,
    binding: doeBinding,
    link,
    function: opened.value.function,
    close: async () => close(),
  });
}

async function save(context: Context, values: Values, evidence: DeviceEvidence): Promise<Result<string | null>> {
  const path = values['save'];
  if (typeof path !== 'string') return ok(null);
  try {
    await writeFile(resolve(context.cwd, path), encodeEvidence(evidence));
    return ok(path);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : '';
    return fail('file-refused', `--save ${printable(path)}: ${code}`);
  }
}
