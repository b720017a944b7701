/**
 * What a device said of itself, kept so that another party can judge it offline: the chain of a slot and the messages that
 * it signed. Everything else about the device is read out of those messages again; nothing beside them is believed.
 */
import { hex } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { fromHex } from '@airlock/evidence/bytes.ts';
import { isObject, type JsonObject, readJson } from '@airlock/evidence/json.ts';
import { HASHES, type HashName, SPDM_VERSIONS, type SpdmVersion } from '../algorithms.ts';
import { type PciIdentity, parsePciName, pciNameText } from '../identity/pci-name.ts';
import { decodeRecord, encodeRecord, type InterfaceRecord } from '../tdisp/record.ts';

export const EVIDENCE_FORMAT = 'airlock-device-evidence';

export type StatementKind = 'challenge' | 'measurements';

export interface SignedStatement {
  readonly kind: StatementKind;
  /** All that the signature covers, message by message, the last without it. */
  readonly messages: readonly Uint8Array[];
  readonly signature: Uint8Array;
}

export interface DeviceEvidence {
  /** How whoever asked called the device; not part of what is signed. */
  readonly device: string;
  readonly version: SpdmVersion;
  readonly hash: HashName;
  readonly slot: number;
  /** The slot’s chain as SPDM carries it. */
  readonly chain: Uint8Array;
  /** GET_VERSION to ALGORITHMS; signatures of 1.1 over measurements do not cover it. */
  readonly vca: readonly Uint8Array[];
  readonly statements: readonly SignedStatement[];
  /** What the function's configuration space showed whoever saved this, and nobody signed. */
  readonly function?: PciIdentity;
  /** What was learnt of the TDISP interface: the word of whoever saved this, signed by nobody. */
  readonly interface?: InterfaceRecord;
}

const STATEMENT_LIMIT = 8;
const MESSAGE_LIMIT = 4096;

export function encodeEvidence(evidence: DeviceEvidence): string {
  const { device, version, hash, slot, chain, vca, statements } = evidence;
  const whole = {
    format: EVIDENCE_FORMAT,
    formatVersion: 1,
    ...{ device, version, hash, slot, chain: hex(chain), vca: vca.map(hex) },
    statements: statements.map(({ kind, messages, signature }) => ({
      kind,
      messages: messages.map(hex),
      signature: hex(signature),
    })),
    ...(evidence.function === undefined ? {} : { function: pciNameText(evidence.function) }),
    ...(evidence.interface === undefined ? {} : { interface: encodeRecord(evidence.interface) }),
  };
  return `${JSON.stringify(whole, null, 2)}\n`;
}

/** Strict: an unknown member is an error. Codes: `device-evidence-invalid`, `json-invalid`. */
export function decodeEvidence(text: string): Result<DeviceEvidence> {
  const document = readJson(text);
  if (!document.ok) return document;
  const refuse = (message: string): Result<never> => fail('device-evidence-invalid', message);
  const { value } = document.value;
  if (!isObject(value) || value['format'] !== EVIDENCE_FORMAT) return refuse(`no ${EVIDENCE_FORMAT}`);
  const names = [
    'format',
    'formatVersion',
    'device',
    'version',
    'hash',
    'slot',
    'chain',
    'vca',
    'statements',
    'function',
    'interface',
  ];
  const wrong = unknown(value, names);
  if (wrong !== undefined) return refuse(`unknown member ${wrong}`);
  if (value['formatVersion'] !== 1) return refuse('formatVersion is not 1');
  const { device, slot } = value;
  const version = SPDM_VERSIONS.find((one) => one === value['version']);
  const hash = HASHES.find((one) => one === value['hash']);
  const chain = bytes(value['chain']);
  const vca = messages(value['vca']);
  if (typeof device !== 'string' || device.length > 256) return refuse('device');
  if (version === undefined) return refuse('version');
  if (hash === undefined) return refuse('hash');
  if (typeof slot !== 'number' || !Number.isInteger(slot) || slot < 0 || slot > 7) return refuse('slot');
  if (chain === undefined) return refuse('chain');
  if (vca === undefined) return refuse('vca');
  const given = value['statements'];
  if (!Array.isArray(given) || given.length > STATEMENT_LIMIT) return refuse('statements');
  const statements: SignedStatement[] = [];
  for (const one of given as readonly unknown[]) {
    if (!isObject(one) || unknown(one, ['kind', 'messages', 'signature']) !== undefined) return refuse('a statement');
    const { kind } = one;
    const list = messages(one['messages']);
    const signature = bytes(one['signature']);
    if ((kind !== 'challenge' && kind !== 'measurements') || list === undefined || signature === undefined)
      return refuse('a statement');
    statements.push({ kind, messages: list, signature });
  }
  const named = typeof value['function'] === 'string' ? parsePciName(value['function']) : undefined;
  if (value['function'] !== undefined && named === undefined) return refuse('function');
  const shown = named === undefined ? {} : { function: named };
  const whole = { device, version, hash, slot, chain, vca, statements, ...shown };
  if (value['interface'] === undefined) return ok(whole);
  const record = decodeRecord(value['interface']);
  return record.ok ? ok({ ...whole, interface: record.value }) : record;
}

function unknown(value: JsonObject, known: readonly string[]): string | undefined {
  return Object.keys(value).find((name) => !known.includes(name));
}

function bytes(value: unknown): Uint8Array | undefined {
  return typeof value === 'string' && !value.startsWith('0x') ? fromHex(value) : undefined;
}

function messages(value: unknown): readonly Uint8Array[] | undefined {
  if (!Array.isArray(value) || value.length > MESSAGE_LIMIT) return undefined;
  const list = (value as readonly unknown[]).map(bytes);
  return list.every((one) => one !== undefined) ? list : undefined;
}
