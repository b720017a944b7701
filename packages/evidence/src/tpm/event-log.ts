/** TCG event logs in the crypto agile format, and what PCRs (or RTMRs) they replay to. TCG PC Client PFP §10. */
import { asciiText } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { concat, u16le, u32le } from '../bytes.ts';
import { type Crypto, HASH_SIZE, type Hash } from '../crypto.ts';
import { TPM_HASHES } from './quote.ts';

const EVENT_LIMIT = 65_536;
const REGISTER_LIMIT = 32;
const ALGORITHM_LIMIT = 8;
const NO_ACTION = 3;
const END = 0xffffffff;
const SPEC_ID = 'Spec ID Event03';
const STARTUP_LOCALITY = 'StartupLocality';

export interface LogEvent {
  readonly register: number;
  readonly type: number;
  readonly digests: Readonly<Partial<Record<Hash, Uint8Array>>>;
  readonly data: Uint8Array;
}

export interface EventLog {
  readonly banks: readonly Hash[];
  readonly events: readonly LogEvent[];
}

export function isEventLog(bytes: Uint8Array): boolean {
  return bytes.length > 65 && u32le(bytes, 4) === NO_ACTION && asciiText(bytes.subarray(32, 47)) === SPEC_ID;
}

/** Padding of zeros or ones after the last event is the table's that it was read from. Codes: `event-log-invalid`. */
export function readEventLog(given: Uint8Array): Result<EventLog> {
  const wrong = (what: string, at: number) => fail('event-log-invalid', `${what}, at byte ${at}`);
  const bytes = given.slice();
  if (!isEventLog(bytes)) return wrong('no Spec ID event', 0);
  const headerEnd = 32 + u32le(bytes, 28);
  const algorithms = u32le(bytes, 56);
  if (headerEnd > bytes.length || algorithms > ALGORITHM_LIMIT || 60 + algorithms * 4 + 1 > headerEnd)
    return wrong('the Spec ID event contradicts itself', 28);
  const sizes = new Map<number, number>();
  for (let i = 0; i < algorithms; i++) {
    const [id, size] = [u16le(bytes, 60 + i * 4), u16le(bytes, 62 + i * 4)];
    const hash = TPM_HASHES[id];
    if (size > 64 || (hash !== undefined && HASH_SIZE[hash] !== size)) return wrong('a digest of a wrong size', 60);
    sizes.set(id, size);
  }
  const banks = [...sizes.keys()].flatMap((id) => TPM_HASHES[id] ?? []);
  const events: LogEvent[] = [];
  for (let at = headerEnd; at < bytes.length; ) {
    const rest = bytes.subarray(at);
    if (
      u32le(bytes, at) === END ||
      (rest.length < 16 && isFill(rest)) ||
      (u32le(bytes, at + 8) === 0 && isFill(rest))
    ) {
      if (isFill(rest)) break;
      return wrong('something follows the end of the log', at);
    }
    if (events.length >= EVENT_LIMIT) return wrong(`more than ${EVENT_LIMIT} events`, at);
    if (rest.length < 16) return wrong('an event is cut off', at);
    const [register, type, count] = [u32le(bytes, at), u32le(bytes, at + 4), u32le(bytes, at + 8)];
    if (register >= REGISTER_LIMIT) return wrong(`register ${register}`, at);
    if (count !== sizes.size) return wrong(`${count} digests where the log has ${sizes.size} banks`, at);
    let next = at + 12;
    const digests: Partial<Record<Hash, Uint8Array>> = {};
    const seen = new Set<number>();
    for (let i = 0; i < count; i++) {
      const id = next + 2 <= bytes.length ? u16le(bytes, next) : -1;
      const size = sizes.get(id);
      if (size === undefined || seen.has(id) || next + 2 + size > bytes.length) return wrong('a digest', next);
      seen.add(id);
      const hash = TPM_HASHES[id];
      if (hash !== undefined) digests[hash] = bytes.subarray(next + 2, next + 2 + size);
      next += 2 + size;
    }
    const length = next + 4 <= bytes.length ? u32le(bytes, next) : Number.POSITIVE_INFINITY;
    if (next + 4 + length > bytes.length) return wrong('an event is cut off', at);
    events.push({ register, type, digests, data: bytes.subarray(next + 4, next + 4 + length) });
    at = next + 4 + length;
  }
  return ok({ banks, events });
}

function isFill(bytes: Uint8Array): boolean {
  const [first] = bytes;
  return (first === 0 || first === 0xff) && bytes.every((byte) => byte === first);
}

const replayed = new WeakMap<Crypto, WeakMap<EventLog, Map<Hash, ReadonlyMap<number, Uint8Array>>>>();

/** Registers that the log extends, by number. Remembered: a file can hold many quotes beside a long log. */
export function replay(crypto: Crypto, log: EventLog, bank: Hash): ReadonlyMap<number, Uint8Array> {
  let logs = replayed.get(crypto);
  if (logs === undefined) {
    logs = new WeakMap();
    replayed.set(crypto, logs);
  }
  const banks = logs.get(log) ?? new Map<Hash, ReadonlyMap<number, Uint8Array>>();
  logs.set(log, banks);
  const registers = banks.get(bank) ?? extendAll(crypto, log, bank);
  banks.set(bank, registers);
  return registers;
}

function extendAll(crypto: Crypto, log: EventLog, bank: Hash): Map<number, Uint8Array> {
  const registers = new Map<number, Uint8Array>();
  let locality = 0;
  for (const { register, type, digests, data } of log.events) {
    if (type === NO_ACTION) {
      if (register === 0 && data.length === 17 && asciiText(data.subarray(0, 15)) === STARTUP_LOCALITY)
        locality = data[16] ?? 0;
      continue;
    }
    const digest = digests[bank];
    if (digest === undefined) continue;
    const before = registers.get(register) ?? initialRegister(register, HASH_SIZE[bank], locality);
    registers.set(register, crypto.hash(bank, concat(before, digest)));
  }
  return registers;
}

/** What a register holds before anything extends it. PCR 0 starts with the locality that the TPM was started from; those of a dynamic launch start with ones. */
export function initialRegister(register: number, size: number, locality: number): Uint8Array {
  const value = new Uint8Array(size).fill(register >= 17 && register <= 22 ? 0xff : 0);
  if (register === 0) value[size - 1] = locality;
  return value;
}
