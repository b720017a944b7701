/**
 * What was learnt of a function's TDISP interface, kept beside the device's signed answers. TDISP is spoken in a session,
 * whose messages only its two ends can check: a record is the word of whoever made it, and says who that was.
 */
import { hex } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { fromHex } from '@airlock/evidence/bytes.ts';
import { isObject, type JsonObject } from '@airlock/evidence/json.ts';
import type { BoundInterface } from '@airlock/evidence/machine/binding.ts';
import type { MemoryBar } from './check-report.ts';
import { TDI_STATES, type TdiState } from './interface.ts';
import { NONCE_SIZE } from './messages.ts';
import { REPORT_LIMIT } from './report.ts';

/** `tsm`: the platform's TSM, through the kernel. `requester`: the same program that asked the device over SPDM. */
export const RECORD_AUTHORS = ['tsm', 'requester'] as const;
export type RecordAuthor = (typeof RECORD_AUTHORS)[number];

/** What the machine showed of the function when the record was made. */
export interface FunctionFacts {
  /** `0000:01:00.0`; null where the facts were given and nobody knows of which function they are. */
  readonly function: string | null;
  /** May the addresses of BARs be others than those that the device decodes, since a hypervisor maps them? */
  readonly virtual: boolean;
  /** The header before the first step, 64 bytes. */
  readonly before: Uint8Array;
  /** Configuration space after the report was read, as much of it as could be read. */
  readonly config: Uint8Array;
  readonly bars: readonly MemoryBar[];
}

export interface InterfaceLock {
  /** FLAGS and MMIO_REPORTING_OFFSET of the lock; null where the TSM chose them and does not tell. */
  readonly flags: number | null;
  readonly offset: bigint | null;
  /** What the device answered each LOCK_INTERFACE with, in order; the last lock is the one that was reported on. */
  readonly nonces: readonly Uint8Array[];
}

export interface InterfaceRecord {
  readonly by: RecordAuthor;
  /** The TSM's name in the kernel, `tsm0`. */
  readonly tsm: string | null;
  /** FUNCTION_ID; null where the TSM does not tell. */
  readonly functionId: number | null;
  /** SHA-384 of the certificate chain whose key authenticated the session in which the interface answered. */
  readonly chainDigest: Uint8Array | null;
  /** The state before the first step, the one from which the report is, and the one at the end; null: not known. */
  readonly found: TdiState | null;
  readonly reached: TdiState | null;
  readonly left: TdiState | null;
  /** Null: nobody who is known here locked it. */
  readonly lock: InterfaceLock | null;
  readonly report: Uint8Array | null;
  readonly facts: FunctionFacts | null;
  /** Why it ended early. */
  readonly problem: { readonly code: string; readonly message: string } | null;
}

const LOCK_LIMIT = 8;
const CONFIG_LIMIT = 4096;
const HEADER = 64;
const DIGEST = 48;
const TEXT_LIMIT = 1024;

const hexOrNull = (bytes: Uint8Array | null) => (bytes === null ? null : hex(bytes));
const numeral = (value: bigint) => `0x${value.toString(16)}`;

/**
 * What a machine shows of an interface: that the platform’s TSM holds it. What somebody locked to look at it is unlocked
 * again, and binds nothing.
 */
export function shownInterface(record: InterfaceRecord | undefined): BoundInterface | null {
  if (record === undefined || record.by !== 'tsm' || record.left === null || record.report === null) return null;
  return { state: record.left, lockNonce: record.lock?.nonces.at(-1) ?? null, report: record.report };
}

/** As plain JSON values. */
export function encodeRecord(record: InterfaceRecord): JsonObject {
  const { by, tsm, functionId, found, reached, left, lock, facts, problem } = record;
  return {
    ...{ by, tsm, function: functionId, chain: hexOrNull(record.chainDigest), found, reached, left },
    lock:
      lock === null
        ? null
        : {
            flags: lock.flags,
            offset: lock.offset === null ? null : numeral(lock.offset),
            nonces: lock.nonces.map(hex),
          },
    report: hexOrNull(record.report),
    facts:
      facts === null
        ? null
        : {
            ...{ function: facts.function, virtual: facts.virtual },
            ...{ before: hex(facts.before), config: hex(facts.config) },
            bars: facts.bars.map(({ index, start, size }) => ({ index, start: numeral(start), size: numeral(size) })),
          },
    problem,
  };
}

/** Strict: unknown members and wrong sizes are refused. Codes: `device-evidence-invalid`. */
export function decodeRecord(value: unknown): Result<InterfaceRecord> {
  const refuse = (what: string): Result<never> => fail('device-evidence-invalid', `interface: ${what}`);
  const members = ['by', 'tsm', 'function', 'chain', 'found', 'reached', 'left', 'lock', 'report', 'facts', 'problem'];
  if (!holds(value, members)) return refuse('not these members');
  const by = RECORD_AUTHORS.find((one) => one === value['by']);
  if (by === undefined) return refuse(`by is ${RECORD_AUTHORS.join(' or ')}`);
  const tsm = nullOr(value['tsm'], (one) => (typeof one === 'string' && /^tsm\d{1,9}$/.test(one) ? one : undefined));
  if (tsm === undefined || (tsm === null) !== (by === 'requester')) return refuse('tsm');
  const functionId = nullOr(value['function'], (one) => integer(one, 2 ** 25 - 1));
  const chainDigest = nullOr(value['chain'], (one) => bytes(one, DIGEST, DIGEST));
  const [found, reached, left] = ['found', 'reached', 'left'].map((name) =>
    nullOr(value[name], (one) => TDI_STATES.find((state) => state === one)),
  );
  const report = nullOr(value['report'], (one) => bytes(one, 0, REPORT_LIMIT));
  const lock = nullOr(value['lock'], decodeLock);
  const facts = nullOr(value['facts'], decodeFacts);
  const problem = nullOr(value['problem'], decodeProblem);
  if (functionId === undefined || chainDigest === undefined || report === undefined) return refuse('a wrong value');
  if (found === undefined || reached === undefined || left === undefined) return refuse('a state');
  if (lock === undefined) return refuse('lock');
  if (facts === undefined) return refuse('facts');
  if (problem === undefined) return refuse('problem');
  return ok({ by, tsm, functionId, chainDigest, found, reached, left, lock, report, facts, problem });
}

function decodeLock(value: unknown): InterfaceLock | undefined {
  if (!holds(value, ['flags', 'offset', 'nonces'])) return undefined;
  const flags = nullOr(value['flags'], (one) => integer(one, 0xffff));
  const offset = nullOr(value['offset'], wide);
  const given = value['nonces'];
  if (flags === undefined || offset === undefined || !Array.isArray(given) || given.length > LOCK_LIMIT)
    return undefined;
  const nonces = (given as readonly unknown[]).map((one) => bytes(one, NONCE_SIZE, NONCE_SIZE));
  return nonces.every((one) => one !== undefined) ? { flags, offset, nonces } : undefined;
}

function decodeFacts(value: unknown): FunctionFacts | undefined {
  if (!holds(value, ['function', 'virtual', 'before', 'config', 'bars'])) return undefined;
  const name = nullOr(value['function'], (one) =>
    typeof one === 'string' && /^[\x21-\x7e]{1,64}$/.test(one) ? one : undefined,
  );
  const { virtual } = value;
  const before = bytes(value['before'], HEADER, HEADER);
  const config = bytes(value['config'], HEADER, CONFIG_LIMIT);
  const given = value['bars'];
  if (name === undefined || typeof virtual !== 'boolean' || before === undefined || config === undefined)
    return undefined;
  if (!Array.isArray(given) || given.length > 6) return undefined;
  const bars: MemoryBar[] = [];
  for (const one of given as readonly unknown[]) {
    if (!holds(one, ['index', 'start', 'size'])) return undefined;
    const index = integer(one['index'], 5);
    const [start, size] = [wide(one['start']), wide(one['size'])];
    if (index === undefined || start === undefined || size === undefined || size === 0n) return undefined;
    if (bars.some((before) => before.index >= index)) return undefined;
    bars.push({ index, start, size });
  }
  return { function: name, virtual, before, config, bars };
}

function decodeProblem(value: unknown): InterfaceRecord['problem'] | undefined {
  if (!holds(value, ['code', 'message'])) return undefined;
  const { code, message } = value;
  if (typeof code !== 'string' || !/^[a-z0-9-]{1,64}$/.test(code)) return undefined;
  return typeof message === 'string' && message.length <= TEXT_LIMIT ? { code, message } : undefined;
}

/** An object with exactly these members. */
function holds(value: unknown, members: readonly string[]): value is JsonObject {
  return (
    isObject(value) &&
    Object.keys(value).length === members.length &&
    members.every((name) => Object.hasOwn(value, name))
  );
}

function nullOr<T>(value: unknown, read: (value: unknown) => T | undefined): T | null | undefined {
  return value === null ? null : read(value);
}

function integer(value: unknown, most: number): number | undefined {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= most ? value : undefined;
}

function wide(value: unknown): bigint | undefined {
  return typeof value === 'string' && /^0x[0-9a-f]{1,16}$/.test(value) ? BigInt(value) : undefined;
}

function bytes(value: unknown, least: number, most: number): Uint8Array | undefined {
  if (value === '' && least === 0) return new Uint8Array();
  const read = typeof value === 'string' && /^[0-9a-f]*$/.test(value) ? fromHex(value) : undefined;
  return read !== undefined && read.length >= least && read.length <= most ? read : undefined;
}
