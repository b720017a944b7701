/**
 * The TSM's side of TDISP, PCIe 6.1 §11.3: lock, read the report, start, stop. Every answer must be the one asked for and
 * for this interface; the state that the device states after each step must be the one that the step leads to.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { concat, sameBytes } from '@airlock/evidence/bytes.ts';
import type { PciAsk } from '../doe/pci-protocol.ts';
import { functionText, nextTdiState, type TdiEvent, type TdiState } from './interface.ts';
import {
  decodeTdispResponse,
  encodeTdispRequest,
  type LockParameters,
  TDISP_ERROR,
  TDISP_REQUEST,
  TDISP_VERSION,
  type TdispCapabilities,
  type TdispRequest,
  type TdispRequestName,
  type TdispResponse,
  tdispErrorName,
} from './messages.ts';
import { decodeInterfaceReport, type InterfaceReport, REPORT_LIMIT } from './report.ts';

export interface TdispInterface {
  readonly interfaceId: number;
  readonly capabilities: TdispCapabilities;
  /** As this side knows it; `state()` asks. */
  readonly expected: TdiState;
  /** What the device answered the lock with, until the interface is started or stopped. */
  readonly lockNonce: Uint8Array | null;
  /** What the device says. Codes: of `ask`, `tdisp-*`. */
  state(): Promise<Result<TdiState>>;
  /** CONFIG_UNLOCKED to CONFIG_LOCKED; the nonce for `start` is kept here. Codes: as `state`, `tdisp-state`. */
  lock(parameters: LockParameters): Promise<Result<void>>;
  /**
   * The whole report with its bytes, read twice: a device that answers differently is refused with
   * `tdisp-report-invalid`. Codes: as `lock`.
   */
  report(): Promise<Result<{ readonly bytes: Uint8Array; readonly report: InterfaceReport }>>;
  /** CONFIG_LOCKED to RUN, with the nonce of the lock. Codes: as `lock`. */
  start(): Promise<Result<void>>;
  /** To CONFIG_UNLOCKED, from any state. Codes: as `state`. */
  stop(): Promise<Result<void>>;
  /** RUN only. Codes: as `lock`. */
  bindP2p(stream: number): Promise<Result<void>>;
  unbindP2p(stream: number): Promise<Result<void>>;
}

export interface TdispOptions {
  readonly ask: PciAsk;
  readonly interfaceId: number;
  /** Bytes of the report in one portion; at least 16. */
  readonly portion?: number;
  /** How often a device that says BUSY is asked again. */
  readonly busyLimit?: number;
  /** Between two such questions. */
  readonly wait?: () => Promise<void>;
}

const PORTION_COUNT_LIMIT = 4096;

type Answer<Name extends TdispRequestName> = Extract<TdispResponse, { readonly name: Name }>;

/** Agrees on a version and reads the capabilities. Codes: those of `ask`, `tdisp-version-unsupported`, `tdisp-*`. */
export async function openTdispInterface(options: TdispOptions): Promise<Result<TdispInterface>> {
  const { ask, interfaceId, portion = 1024, busyLimit = 8, wait } = options;

  async function send(request: TdispRequest): Promise<Result<TdispResponse>> {
    for (let busy = 0; ; busy++) {
      const answer = await ask(encodeTdispRequest(interfaceId, request));
      if (!answer.ok) return answer;
      const response = decodeTdispResponse(answer.value);
      if (!response.ok) return response;
      const { version, interface: id, message } = response.value;
      if (version !== TDISP_VERSION)
        return fail('tdisp-version-unsupported', `an answer in TDISP version 0x${version.toString(16)}`);
      if (id !== interfaceId)
        return fail('tdisp-unexpected', `an answer for ${functionText(id)}, asked was ${functionText(interfaceId)}`);
      if (message.name !== 'ERROR') return ok(message);
      if (message.error !== TDISP_ERROR.BUSY || busy >= busyLimit)
        return fail('tdisp-refused', `${request.name} was refused: ${tdispErrorName(message.error)}`);
      await wait?.();
    }
  }

  async function exchange<Name extends TdispRequestName>(
    request: TdispRequest & { readonly name: Name },
  ): Promise<Result<Answer<Name>>> {
    const response = await send(request);
    if (!response.ok) return response;
    return response.value.name === request.name
      ? ok(response.value as Answer<Name>)
      : fail('tdisp-unexpected', `${response.value.name} in answer to ${request.name}`);
  }

  const versions = await exchange({ name: 'GET_VERSION' });
  if (!versions.ok) return versions;
  if (!versions.value.versions.includes(TDISP_VERSION))
    return fail('tdisp-version-unsupported', `the device speaks ${versions.value.versions.length} versions, not 1.0`);
  const caps = await exchange({ name: 'GET_CAPABILITIES', tsmCapabilities: 0 });
  if (!caps.ok) return caps;
  const { capabilities } = caps.value;
  const taken = (name: TdispRequestName) => {
    const bit = TDISP_REQUEST[name] & 0x7f;
    return (((capabilities.requests[bit >> 3] ?? 0) >> (bit & 7)) & 1) === 1;
  };
  const needed = ['LOCK_INTERFACE', 'GET_DEVICE_INTERFACE_REPORT', 'START_INTERFACE', 'STOP_INTERFACE'] as const;
  const missing = needed.find((name) => !taken(name));
  if (missing !== undefined) return fail('tdisp-unexpected', `the device does not take ${missing}`);

  async function state(): Promise<Result<TdiState>> {
    const answer = await exchange({ name: 'GET_DEVICE_INTERFACE_STATE' });
    return answer.ok ? ok(answer.value.state) : answer;
  }

  const first = await state();
  if (!first.ok) return first;
  let expected: TdiState = first.value;
  let nonce: Uint8Array | null = null;

  /** What the device says must be what this side knows. */
  async function confirm(): Promise<Result<void>> {
    const found = await state();
    if (!found.ok) return found;
    if (found.value === expected) return ok(undefined);
    const told = `the interface is in ${found.value}, it should be in ${expected}`;
    expected = found.value;
    nonce = null;
    return fail('tdisp-state', told);
  }

  async function step(event: TdiEvent, request: TdispRequest): Promise<Result<TdispResponse>> {
    const next = nextTdiState(expected, event);
    if (next === undefined) return fail('tdisp-state', `${request.name} in ${expected}`);
    // What is stopped is stopped from any state, and at once: there may be no time for another question.
    const before = event === 'stop' ? ok(undefined) : await confirm();
    if (!before.ok) return before;
    const answer = await exchange(request);
    if (!answer.ok) return answer;
    expected = next;
    const after = await confirm();
    return after.ok ? answer : after;
  }

  async function readReport(): Promise<Result<Uint8Array>> {
    const parts: Uint8Array[] = [];
    let offset = 0;
    let total: number | undefined;
    for (let count = 0; count < PORTION_COUNT_LIMIT; count++) {
      const length = Math.min(portion, REPORT_LIMIT - offset, (total ?? REPORT_LIMIT) - offset);
      const answer = await exchange({ name: 'GET_DEVICE_INTERFACE_REPORT', offset, length });
      if (!answer.ok) return answer;
      const { portion: part, remainder } = answer.value;
      if (part.length === 0 || part.length > length)
        return fail('tdisp-report-invalid', `a portion of ${part.length} bytes, ${length} were asked for`);
      offset += part.length;
      if (offset + remainder > REPORT_LIMIT || (total !== undefined && offset + remainder !== total))
        return fail('tdisp-report-invalid', `the report’s length changes to ${offset + remainder}`);
      total = offset + remainder;
      parts.push(part);
      if (remainder === 0) return ok(concat(...parts));
    }
    return fail('tdisp-report-invalid', `more than ${PORTION_COUNT_LIMIT} portions`);
  }

  const p2p = async (name: 'BIND_P2P_STREAM' | 'UNBIND_P2P_STREAM', stream: number): Promise<Result<void>> => {
    if (expected !== 'RUN') return fail('tdisp-state', `${name} in ${expected}`);
    const answer = await exchange({ name, stream });
    return answer.ok ? ok(undefined) : answer;
  };

  return ok({
    interfaceId,
    capabilities,
    get expected() {
      return expected;
    },
    get lockNonce() {
      return nonce;
    },
    state,
    async lock(parameters) {
      if ((parameters.flags & ~capabilities.lockFlags) !== 0)
        return fail('tdisp-unexpected', 'the device does not support these flags of the lock');
      const answer = await step('lock', { name: 'LOCK_INTERFACE', ...parameters });
      if (!answer.ok) return answer;
      if (answer.value.name === 'LOCK_INTERFACE') nonce = answer.value.nonce;
      return ok(undefined);
    },
    async report() {
      if (expected !== 'CONFIG_LOCKED' && expected !== 'RUN')
        return fail('tdisp-state', `GET_DEVICE_INTERFACE_REPORT in ${expected}`);
      const bytes = await readReport();
      if (!bytes.ok) return bytes;
      const again = await readReport();
      if (!again.ok) return again;
      if (!sameBytes(bytes.value, again.value))
        return fail('tdisp-report-invalid', 'the report is another one when it is read again');
      const report = decodeInterfaceReport(bytes.value);
      return report.ok ? ok({ bytes: bytes.value, report: report.value }) : report;
    },
    async start() {
      const own = nonce;
      if (own === null) return fail('tdisp-state', 'the interface was not locked from here');
      // A nonce is for one start, whatever comes of it.
      nonce = null;
      const answer = await step('start', { name: 'START_INTERFACE', nonce: own });
      return answer.ok ? ok(undefined) : answer;
    },
    async stop() {
      nonce = null;
      const answer = await step('stop', { name: 'STOP_INTERFACE' });
      return answer.ok ? ok(undefined) : answer;
    },
    bindP2p: (stream) => p2p('BIND_P2P_STREAM', stream),
    unbindP2p: (stream) => p2p('UNBIND_P2P_STREAM', stream),
  });
}
