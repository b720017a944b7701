/** `airlock device attest`: asks a device who it is and what it runs, over SPDM, and judges the answer. */
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { printable } from '@airlock/linux/attribute.ts';
import { isTsmName } from '@airlock/linux/tsm.ts';
import { type DeviceEvidence, encodeEvidence } from '@airlock/spdm/attest/evidence.ts';
import { gatherEvidence } from '@airlock/spdm/attest/gather.ts';
import { type AskingEnd, gatherInterface, type InterfaceStep } from '@airlock/spdm/attest/gather-interface.ts';
import { nodeSpdmCrypto } from '@airlock/spdm/node-crypto.ts';
import { Connection } from '@airlock/spdm/requester/connection.ts';
import { drive, type Link, limitTime } from '@airlock/spdm/requester/procedure.ts';
import { SOCKET_FORMS } from '@airlock/spdm/tcp/socket-form.ts';
import { parseFunctionId } from '@airlock/spdm/tdisp/interface.ts';
import { attestByTsm, type TsmAnswer } from '../attest-by-tsm.ts';
import { APPRAISAL_HELP, APPRAISAL_OPTIONS, appraisalInput, complain, judge } from '../device-appraisal.ts';
import { show } from '../device-verdict-view.ts';
import { type Reached, reachDevice } from '../reach-device.ts';
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

interface InterfaceWish {
  /** `own`, or FUNCTION_ID. */
  readonly id: number | 'own';
  readonly step: InterfaceStep;
}

/** Milliseconds for all that a device is asked, whatever it says that it needs. */
const ATTEST_TIME = 60_000;
/** For what was begun within that time in a session, whose ends must stay in step; and for taking a lock back. */
const OVERRUN_TIME = 10_000;
const CLOSING_TIME = 10_000;

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
  const reached = await reachDevice(context, word, values);
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
  const now = () => performance.now();
  const counted: Link = {
    exchange: (bytes, within) => {
      messages += 2;
      return link.exchange(bytes, within);
    },
    wait: (milliseconds) => link.wait(milliseconds),
  };
  const end = endOf(context.signal, counted);
  // Any chain is taken for now: who vouches for it is judged with everything else, and told.
  const connection = new Connection({ crypto: nodeSpdmCrypto(), binding, trust: () => ok(null) });
  const began = now();
  const asked = { device: name, nonce, raw: values['raw'] === true, ...(slot === undefined ? {} : { slot }) };
  const said = await drive(gatherEvidence(connection, asked), end.link);
  const record =
    said.ok && wish !== null && functionId !== null
      ? await gatherInterface({
          ...{ connection, link: end.overrun, slot: said.value.slot, functionId, step: wish.step, end },
          chainDigest: nodeSpdmCrypto().hash('sha384', said.value.chain),
          readFacts: reached.value.readFacts,
        })
      : null;
  const milliseconds = Math.round(now() - began);
  await reached.value.close();
  if (!said.ok) return complain(context, 'device attest', said);
  const shown = reached.value.function;
  const evidence: DeviceEvidence = {
    ...said.value,
    ...(shown === null ? {} : { function: shown }),
    ...(record === null ? {} : { interface: record }),
  };

  const judged = { ...input, nonce, function: shown ?? input.function };
  const verdict = judge(evidence, name, judged, reached.value.address);
  if (!verdict.ok) return complain(context, 'device attest', verdict);
  return tell(
    context,
    values,
    { device: { id: name }, evidence, judged, verdict: verdict.value },
    { messages, milliseconds },
  );
}

/** The asking ends when its time is over, or when somebody interrupts it. */
function endOf(signal: AbortSignal, link: Link): AskingEnd & { readonly link: Link; readonly overrun: Link } {
  const now = () => performance.now();
  const until = now() + ATTEST_TIME;
  const limited = limitTime(link, ATTEST_TIME, now);
  const interrupted = () => fail('link-cancelled', 'it was interrupted before everything was asked');
  return {
    link: { ...limited, exchange: async (...asked) => (signal.aborted ? interrupted() : limited.exchange(...asked)) },
    overrun: limitTime(link, ATTEST_TIME + OVERRUN_TIME, now),
    reached() {
      if (signal.aborted) return interrupted();
      return now() < until ? ok(undefined) : fail('link-timeout', `there was no time left of ${ATTEST_TIME / 1000} s`);
    },
    closing: () => limitTime(link, CLOSING_TIME, now),
  };
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
