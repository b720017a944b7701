/** The DSM's side of TDISP, PCIe 6.1 §11.3: interfaces with their states, for tests and for made-up devices. */
import { ok, type Result } from '@airlock/core/result.ts';
import { sameBytes } from '@airlock/evidence/bytes.ts';
import { nextTdiState, type TdiState } from './interface.ts';
import {
  decodeTdispHeader,
  decodeTdispRequest,
  encodeTdispResponse,
  LOCK_FLAG,
  type LockParameters,
  NONCE_SIZE,
  TDISP_ERROR,
  TDISP_REQUEST,
  TDISP_VERSION,
  type TdispErrorName,
  type TdispRequest,
  type TdispResponse,
} from './messages.ts';
import { encodeInterfaceReport, type InterfaceReport } from './report.ts';

export interface TdispResponderOptions {
  /** What each interface reports once it is locked, by FUNCTION_ID. */
  readonly interfaces: ReadonlyMap<number, (lock: LockParameters) => InterfaceReport>;
  readonly random: (length: number) => Uint8Array;
  /** Flags of LOCK_INTERFACE that are taken; the first three when not given. */
  readonly lockFlags?: number;
  readonly addressWidth?: number;
  /** The most of a report that one answer carries, in bytes. */
  readonly portion?: number;
}

export interface TdispResponder {
  /** The answer to one request in `session`. Codes: `tdisp-message-invalid` where not even a header is there. */
  answer(session: number, request: Uint8Array): Result<Uint8Array>;
  /** `undefined` for an interface that the device does not have. */
  state(interfaceId: number): TdiState | undefined;
  /** The device notices something that the lock forbids. */
  violate(interfaceId: number): void;
  /** Interfaces that were locked in a session that ended are violated. */
  endSession(session: number): void;
}

interface Tdi {
  state: TdiState;
  session: number | null;
  nonce: Uint8Array | null;
  report: Uint8Array | null;
  p2p: boolean;
  readonly streams: Set<number>;
}

const TAKEN = [
  'GET_VERSION',
  'GET_CAPABILITIES',
  'LOCK_INTERFACE',
  'GET_DEVICE_INTERFACE_REPORT',
  'GET_DEVICE_INTERFACE_STATE',
  'START_INTERFACE',
  'STOP_INTERFACE',
  'BIND_P2P_STREAM',
  'UNBIND_P2P_STREAM',
] as const;

const DEFAULT_FLAGS = LOCK_FLAG.noFirmwareUpdate | LOCK_FLAG.systemCacheLineSize | LOCK_FLAG.lockMsix;

export function createTdispResponder(options: TdispResponderOptions): TdispResponder {
  const { interfaces, random, lockFlags = DEFAULT_FLAGS, addressWidth = 52, portion = 1024 } = options;
  const tdis = new Map<number, Tdi>(
    [...interfaces.keys()].map((id) => [
      id,
      { state: 'CONFIG_UNLOCKED', session: null, nonce: null, report: null, p2p: false, streams: new Set() },
    ]),
  );
  const refuse = (name: TdispErrorName): TdispResponse => ({
    name: 'ERROR',
    error: TDISP_ERROR[name],
    data: 0,
    extended: new Uint8Array(),
  });

  function unlock(tdi: Tdi): void {
    tdi.state = 'CONFIG_UNLOCKED';
    tdi.session = null;
    tdi.nonce = null;
    tdi.report = null;
    tdi.streams.clear();
  }

  function lock(id: number, tdi: Tdi, session: number, request: LockParameters): TdispResponse {
    if (nextTdiState(tdi.state, 'lock') === undefined) return refuse('INVALID_INTERFACE_STATE');
    const { flags, mmioReportingOffset } = request;
    if ((flags & ~lockFlags) !== 0 || mmioReportingOffset % 4096n !== 0n) return refuse('INVALID_REQUEST');
    const nonce = random(NONCE_SIZE);
    if (nonce.length !== NONCE_SIZE) return refuse('INSUFFICIENT_ENTROPY');
    const report = interfaces.get(id)?.(request);
    if (report === undefined) return refuse('INVALID_INTERFACE');
    tdi.state = 'CONFIG_LOCKED';
    tdi.session = session;
    tdi.nonce = nonce;
    tdi.report = encodeInterfaceReport(report);
    tdi.p2p = (flags & LOCK_FLAG.bindP2p) !== 0;
    return { name: 'LOCK_INTERFACE', nonce };
  }

  function start(tdi: Tdi, nonce: Uint8Array): TdispResponse {
    if (nextTdiState(tdi.state, 'start') === undefined) return refuse('INVALID_INTERFACE_STATE');
    if (tdi.nonce === null || !sameBytes(tdi.nonce, nonce)) return refuse('INVALID_NONCE');
    tdi.nonce = null;
    tdi.state = 'RUN';
    return { name: 'START_INTERFACE' };
  }

  function readPortion(tdi: Tdi, offset: number, length: number): TdispResponse {
    if (tdi.report === null || (tdi.state !== 'CONFIG_LOCKED' && tdi.state !== 'RUN'))
      return refuse('INVALID_INTERFACE_STATE');
    if (length === 0 || offset >= tdi.report.length) return refuse('INVALID_REQUEST');
    const part = tdi.report.slice(offset, offset + Math.min(length, portion));
    return {
      name: 'GET_DEVICE_INTERFACE_REPORT',
      remainder: tdi.report.length - offset - part.length,
      portion: part,
    };
  }

  function bind(tdi: Tdi, name: 'BIND_P2P_STREAM' | 'UNBIND_P2P_STREAM', stream: number): TdispResponse {
    if (tdi.state !== 'RUN' || !tdi.p2p) return refuse('INVALID_INTERFACE_STATE');
    if (name === 'BIND_P2P_STREAM') tdi.streams.add(stream);
    else if (!tdi.streams.delete(stream)) return refuse('INVALID_REQUEST');
    return { name };
  }

  function requests(): Uint8Array {
    const bits = new Uint8Array(16);
    for (const name of TAKEN) {
      const bit = TDISP_REQUEST[name] & 0x7f;
      bits[bit >> 3] = (bits[bit >> 3] ?? 0) | (1 << (bit & 7));
    }
    return bits;
  }

  function respond(id: number, tdi: Tdi, session: number, request: TdispRequest): TdispResponse {
    switch (request.name) {
      case 'GET_VERSION':
        return { name: 'GET_VERSION', versions: [TDISP_VERSION] };
      case 'GET_CAPABILITIES': {
        const capabilities = { dsmCapabilities: 0, requests: requests(), lockFlags, addressWidth };
        return { name: 'GET_CAPABILITIES', capabilities: { ...capabilities, requestsThis: 1, requestsAll: 1 } };
      }
      case 'GET_DEVICE_INTERFACE_STATE':
        return { name: 'GET_DEVICE_INTERFACE_STATE', state: tdi.state };
      case 'LOCK_INTERFACE':
        return lock(id, tdi, session, request);
      case 'GET_DEVICE_INTERFACE_REPORT':
        return readPortion(tdi, request.offset, request.length);
      case 'START_INTERFACE':
        return start(tdi, request.nonce);
      case 'STOP_INTERFACE':
        unlock(tdi);
        return { name: 'STOP_INTERFACE' };
      case 'BIND_P2P_STREAM':
      case 'UNBIND_P2P_STREAM':
        return bind(tdi, request.name, request.stream);
      default:
        return refuse('UNSUPPORTED_REQUEST');
    }
  }

  function violate(tdi: Tdi): void {
    tdi.state = nextTdiState(tdi.state, 'violation') ?? tdi.state;
    if (tdi.state !== 'ERROR') return;
    tdi.nonce = null;
    tdi.report = null;
    tdi.streams.clear();
  }

  return {
    answer(session, bytes) {
      const header = decodeTdispHeader(bytes);
      if (!header.ok) return header;
      const id = header.value.interface;
      const say = (response: TdispResponse) => ok(encodeTdispResponse(id, response));
      if (header.value.version !== TDISP_VERSION) return say(refuse('VERSION_MISMATCH'));
      const request = decodeTdispRequest(bytes);
      if (!request.ok)
        return say(refuse(request.error.code === 'tdisp-unexpected' ? 'UNSUPPORTED_REQUEST' : 'INVALID_REQUEST'));
      const tdi = tdis.get(id);
      if (tdi === undefined) return say(refuse('INVALID_INTERFACE'));
      // Who locked an interface is the only one that it answers until it is unlocked.
      if (tdi.session !== null && tdi.session !== session) return say(refuse('INVALID_INTERFACE'));
      return say(respond(id, tdi, session, request.value.message));
    },
    state: (id) => tdis.get(id)?.state,
    violate(id) {
      const tdi = tdis.get(id);
      if (tdi !== undefined) violate(tdi);
    },
    endSession(session) {
      for (const tdi of tdis.values()) {
        if (tdi.session !== session) continue;
        violate(tdi);
        // Nobody holds it any more: the next session may stop it and lock it anew.
        tdi.session = null;
      }
    },
  };
}
