/** `airlock device attest`: asks a device who it is and what it runs, over SPDM, and judges the answer. */
import { randomBytes } from 'node:crypto';
import { existsSync, statSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { fail, formatProblem, ok, type Result } from '@airlock/core/result.ts';
import { printable } from '@airlock/linux/attribute.ts';
import { findDevice } from '@airlock/linux/find-device.ts';
import { readFunctionFacts } from '@airlock/linux/function-layout.ts';
import { readInventory } from '@airlock/linux/inventory.ts';
import { nodeFiles } from '@airlock/linux/node-files.ts';
import { isTsmName } from '@airlock/linux/tsm.ts';
import { type DeviceEvidence, encodeEvidence } from '@airlock/spdm/attest/evidence.ts';
import { gatherEvidence } from '@airlock/spdm/attest/gather.ts';
import { type AskInterface, gatherInterface, type InterfaceStep } from '@airlock/spdm/attest/gather-interface.ts';
import { doeBinding } from '@airlock/spdm/doe/binding.ts';
import type { PciIdentity } from '@airlock/spdm/identity/pci-name.ts';
import { nodeSpdmCrypto } from '@airlock/spdm/node-crypto.ts';
import { Connection } from '@airlock/spdm/requester/connection.ts';
import { drive, type Link, limitTime } from '@airlock/spdm/requester/procedure.ts';
import type { Binding } from '@airlock/spdm/secured/binding.ts';
import { openSocketLink } from '@airlock/spdm/tcp/node-link.ts';
import { SOCKET_FORMS, type SocketForm } from '@airlock/spdm/tcp/socket-form.ts';
import { parseFunctionId } from '@airlock/spdm/tdisp/interface.ts';
import { attestByTsm, type TsmAnswer } from '../attest-by-tsm.ts';
import { APPRAISAL_HELP, APPRAISAL_OPTIONS, appraisalInput, complain, judge } from '../device-appraisal.ts';
import { show } from '../device-verdict-view.ts';
import { openFunctionLink } from '../function-link.ts';
import { type Context, UsageError, type Values, type Verb } from '../verb.ts';

export const verb: Verb = {
  name: 'device attest',
  summary: 'ask a device who it is and what it runs (SPDM), and judge the answer',
  usage: 'DEVICE|tcp://HOST:PORT --roots FILE [--reference FILE] [--interface ID [--lock]] [--save FILE] [--json]',
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

  --interface ID      also ask about this TDISP interface, in a session: own (the function's address), an address, or
                      FUNCTION_ID (0xbeef); only looks at its state, and at its report where it is locked
  --lock              lock the interface, compare its report with the function, and unlock it again: changes the device's
                      state, and needs a function without a driver
  --start             as --lock, and start the interface in between (TDISP RUN); it is stopped and unlocked all the same
  --tsm NAME          ask the kernel's TSM (tsm0, see airlock list) in place of the mailbox, about a function that it holds
                      for this VM; with --lock it locks and unlocks the function, with --start it locks it and, when
                      everything is accepted, lets it run. Needs interfaces that no released kernel has yet
  --facts DIR         for a socket: a folder with the config and resource files of the function, to compare the report with

${APPRAISAL_HELP}
  --root DIR          a copy of a machine's /sys and /proc instead of this machine

Exit codes: 0 accepted, 1 rejected, or the device did not keep to SPDM, 2 usage, 3 it could not be asked.

  airlock device attest nvme0n1 --roots maker.pem --reference firmware.yaml
  airlock device attest 0000:3d:02.1 --roots maker.pem --interface own --lock
  airlock device attest tcp://127.0.0.1:2323 --transport emulator-doe --roots ca.cert.der --save evidence.json
`,
  options: {
    ...APPRAISAL_OPTIONS,
    transport: { type: 'string' },
    slot: { type: 'string' },
    raw: { type: 'boolean' },
    save: { type: 'string' },
    interface: { type: 'string' },
    lock: { type: 'boolean' },
    start: { type: 'boolean' },
    facts: { type: 'string' },
    tsm: { type: 'string' },
    root: { type: 'string' },
  },
  run,
};

interface Reached {
  readonly name: string;
  readonly binding: Binding;
  readonly link: Link;
  readonly function: PciIdentity | null;
  /** The function's address, and what drives it; null for a socket. */
  readonly address: string | null;
  readonly driver: string | null;
  readonly readFacts: AskInterface['readFacts'];
  close(): Promise<void>;
}

interface InterfaceWish {
  /** `own`, or FUNCTION_ID. */
  readonly id: number | 'own';
  readonly step: InterfaceStep;
}

/** Milliseconds for all that a device is asked, whatever it says that it needs. */
const ATTEST_TIME = 60_000;

async function run(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  const [word, ...more] = positionals;
  if (word === undefined) throw new UsageError('which device? airlock list shows them');
  if (more.length > 0) throw new UsageError('one device at a time');
  const slot = slotOf(values);
  const wish = wishOf(values);
  const input = await appraisalInput(context, values);
  const nonce = input.nonce ?? new Uint8Array(randomBytes(32));
  const tsm = tsmOf(values, word);
  if (tsm !== null) {
    const step = stepOf(values);
    const answer = await attestByTsm({ word, tsm, step, slot: slot ?? 0, input: { ...input, nonce } });
    return answer.ok ? tell(context, values, answer.value, { tsm }) : complain(context, 'device attest', answer);
  }
  const reached = word.includes('://')
    ? await reachSocket(context, word, values)
    : await reachFunction(context, word, values);
  if (!reached.ok) return complain(context, 'device attest', reached);
  const { name, binding, link } = reached.value;
  const functionId = wish === null ? null : idOf(wish, reached.value);
  if (wish !== null && wish.step !== 'look' && reached.value.driver !== null) {
    await reached.value.close();
    const driver = printable(reached.value.driver);
    const message = `${name} is driven by ${driver}: a lock of its interface would break what the driver does`;
    return complain(context, 'device attest', fail('tdisp-in-use', message, { hint: 'unbind the driver first' }));
  }
  if (reached.value.function !== null && input.function !== null)
    throw new UsageError('--function is for sockets: of a PCI function it is known');

  let messages = 0;
  const limited = limitTime(link, ATTEST_TIME, () => performance.now());
  const counted: Link = {
    exchange: (bytes, within) => {
      messages += 2;
      return limited.exchange(bytes, within);
    },
    wait: (milliseconds) => limited.wait(milliseconds),
  };
  // Any chain is taken for now: who vouches for it is judged with everything else, and told.
  const connection = new Connection({ crypto: nodeSpdmCrypto(), binding, trust: () => ok(null) });
  const began = performance.now();
  const asked = { device: name, nonce, raw: values['raw'] === true, ...(slot === undefined ? {} : { slot }) };
  const said = await drive(gatherEvidence(connection, asked), counted);
  const record =
    said.ok && wish !== null && functionId !== null
      ? await gatherInterface({
          ...{ connection, link: counted, slot: said.value.slot, functionId, step: wish.step },
          chainDigest: nodeSpdmCrypto().hash('sha384', said.value.chain),
          readFacts: reached.value.readFacts,
        })
      : null;
  const milliseconds = Math.round(performance.now() - began);
  await reached.value.close();
  if (!said.ok) return complain(context, 'device attest', said);
  const evidence: DeviceEvidence = record === null ? said.value : { ...said.value, interface: record };

  const judged = { ...input, nonce, function: reached.value.function ?? input.function };
  const verdict = judge(evidence, name, judged, reached.value.address);
  if (!verdict.ok) return complain(context, 'device attest', verdict);
  return tell(
    context,
    values,
    { device: { id: name }, evidence, judged, verdict: verdict.value },
    { messages, milliseconds },
  );
}

/** Saves and shows; `more` is how it was asked. */
async function tell(
  context: Context,
  values: Values,
  answer: Omit<TsmAnswer, 'device'> & { readonly device: Pick<TsmAnswer['device'], 'id'> },
  more: { readonly tsm?: string; readonly messages?: number; readonly milliseconds?: number },
): Promise<number> {
  const { device, evidence, judged, verdict } = answer;
  const saved = await save(context, values, evidence);
  if (!saved.ok) return complain(context, 'device attest', saved);
  const nonce = Buffer.from(judged.nonce ?? []).toString('hex');
  const code = show(context, values, verdict, judged, { device: device.id, nonce, ...more });
  if (values['json'] === true) return code;
  const how =
    more.tsm === undefined
      ? `in ${more.messages} messages and ${more.milliseconds} ms`
      : `through the kernel’s ${more.tsm}`;
  context.stdout(`asked ${how}${saved.value === null ? '' : `; evidence in ${printable(saved.value)}`}\n`);
  return code;
}

function slotOf(values: Values): number | undefined {
  const text = values['slot'];
  if (typeof text !== 'string') return undefined;
  if (!/^[0-7]$/.test(text)) throw new UsageError('--slot: 0 to 7');
  return Number(text);
}

function wishOf(values: Values): InterfaceWish | null {
  const text = values['interface'];
  const step = stepOf(values);
  if (typeof text !== 'string') {
    if (values['tsm'] !== undefined) return null;
    if (step !== 'look') throw new UsageError(`--${step}: which interface? --interface own, or its FUNCTION_ID`);
    if (values['facts'] !== undefined)
      throw new UsageError('--facts: is what the report of --interface is compared with');
    return null;
  }
  const id = text === 'own' ? text : parseFunctionId(text);
  if (id === undefined)
    throw new UsageError(`--interface ${printable(text)}: own, an address (0000:3d:02.1) or a FUNCTION_ID (0xbeef)`);
  return { id, step };
}

function tsmOf(values: Values, word: string): string | null {
  const name = values['tsm'];
  if (typeof name !== 'string') return null;
  if (!isTsmName(name)) throw new UsageError(`--tsm ${printable(name)}: the name of a TSM, as tsm0`);
  if (word.includes('://')) throw new UsageError('--tsm: is for PCI functions');
  const other = ['interface', 'facts', 'transport', 'raw'].find((one) => values[one] !== undefined);
  if (other !== undefined) throw new UsageError(`--${other}: a TSM is asked without it`);
  if (values['root'] !== undefined)
    throw new UsageError('--tsm: asks the kernel that runs; --root is a copy of a machine');
  return name;
}

function stepOf(values: Values): InterfaceStep {
  return values['start'] === true ? 'start' : values['lock'] === true ? 'lock' : 'look';
}

function idOf({ id }: InterfaceWish, { address }: Reached): number {
  if (id !== 'own') return id;
  if (address === null) throw new UsageError('--interface own: a socket has no address; give the FUNCTION_ID');
  const own = parseFunctionId(address);
  if (own === undefined) throw new UsageError(`--interface own: ${address} has no FUNCTION_ID; give one`);
  return own;
}

async function reachSocket(context: Context, word: string, values: Values): Promise<Result<Reached>> {
  const match = /^tcp:\/\/(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):(\d{1,5})\/?$/.exec(word);
  const port = Number(match?.[2]);
  if (match === null || port < 1 || port > 65535)
    throw new UsageError(`${printable(word)}: tcp://HOST:PORT is the form`);
  const form = values['transport'] ?? SOCKET_FORMS[0];
  const known = SOCKET_FORMS.find((one): one is SocketForm => one === form);
  if (known === undefined)
    throw new UsageError(`--transport ${printable(String(form))}: one of ${SOCKET_FORMS.join(', ')}`);
  const facts = typeof values['facts'] === 'string' ? resolve(context.cwd, values['facts']) : null;
  if (facts !== null && !existsSync(join(facts, 'config')))
    throw new UsageError(`--facts ${printable(facts)}: no folder with a config file`);
  const host = (match[1] ?? '').replace(/^\[|\]$/g, '');
  const link = await openSocketLink({ host, port, form: known });
  if (!link.ok) return link;
  return ok({
    name: word,
    binding: link.value.binding,
    link: link.value,
    function: null,
    address: null,
    driver: null,
    readFacts: facts === null ? null : () => readFunctionFacts(nodeFiles({ root: facts, writes: 'nothing' }), '', null),
    close: () => link.value.close(),
  });
}

async function reachFunction(context: Context, word: string, values: Values): Promise<Result<Reached>> {
  if (values['transport'] !== undefined) throw new UsageError('--transport is for sockets');
  if (values['function'] !== undefined)
    throw new UsageError('--function is for sockets: of a PCI function it is known');
  if (values['facts'] !== undefined) throw new UsageError('--facts is for sockets: of a PCI function they are read');
  const root = typeof values['root'] === 'string' ? resolve(context.cwd, values['root']) : '/';
  if (!existsSync(root) || !statSync(root).isDirectory()) throw new UsageError(`no such folder: ${printable(root)}`);
  // Nothing is written through these: the mailbox's registers have a hand of their own.
  const files = nodeFiles({ root, writes: 'nothing' });
  const inventory = await readInventory(files);
  if (!inventory.ok) return inventory;
  const found = findDevice(inventory.value.devices, word);
  if (!found.ok) throw new UsageError(formatProblem(found.error));
  const opened = await openFunctionLink(root, found.value);
  const holder = found.value.tsm?.locked;
  if (!opened.ok && typeof holder === 'string')
    return fail(opened.error.code, opened.error.message, {
      hint: `the kernel's TSM holds it: --tsm ${holder} asks there`,
    });
  if (!opened.ok) return opened;
  const { link, close, readFacts } = opened.value;
  return ok({
    name: found.value.id,
    binding: doeBinding,
    link,
    function: opened.value.function,
    address: found.value.location,
    driver: found.value.nodes.find(({ driver }) => driver !== null)?.driver ?? null,
    readFacts,
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
