/** A made-up TPM, event logs, and Azure's paravisor around an SNP machine. */
import { createHash, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import type { Hash } from '../../src/crypto.ts';
import { readSnpReport } from '../../src/snp/report.ts';
import { must } from './authority.ts';
import { join } from './der.ts';
import { type SnpMachine, signReport, snpMachine } from './snp-machine.ts';

const u16 = (value: number) => Uint8Array.of(value >> 8, value & 0xff);
const u32 = (value: number) => join(u16(value >>> 16), u16(value & 0xffff));
const u32le = (value: number) => u32(value).reverse();
const u16le = (value: number) => u16(value).reverse();
const sized = (bytes: Uint8Array) => join(u16(bytes.length), bytes);
const IDS: Readonly<Record<Hash, number>> = { sha1: 4, sha256: 0xb, sha384: 0xc, sha512: 0xd };
export const digest = (hash: Hash, ...parts: readonly Uint8Array[]) =>
  new Uint8Array(
    createHash(hash)
      .update(join(...parts))
      .digest(),
  );

export interface Tpm {
  readonly key: KeyObject;
  readonly spki: Uint8Array;
  readonly jwk: { n?: string; e?: string };
}

export function makeTpm(): Tpm {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return {
    key: privateKey,
    spki: new Uint8Array(publicKey.export({ format: 'der', type: 'spki' })),
    jwk: publicKey.export({ format: 'jwk' }) as { n?: string; e?: string },
  };
}

export interface Attest {
  readonly pcrs: readonly Uint8Array[];
  readonly nonce?: Uint8Array;
  readonly magic?: number;
  readonly type?: number;
  readonly selection?: Uint8Array;
}

export function attestBytes({
  pcrs,
  nonce = Uint8Array.of(1, 2, 3),
  magic = 0xff544347,
  type = 0x8018,
  selection,
}: Attest): Uint8Array {
  const bitmap = selection ?? new Uint8Array(3).fill(0xff);
  const chosen = pcrs.filter((_, i) => (((bitmap[i >> 3] ?? 0) >> (i & 7)) & 1) === 1);
  return join(
    ...[u32(magic), u16(type), sized(new Uint8Array(34)), sized(nonce)],
    ...[new Uint8Array(8), u32(3), u32(0), Uint8Array.of(1), new Uint8Array(8)],
    ...[u32(1), u16(0xb), Uint8Array.of(bitmap.length), bitmap, sized(digest('sha256', ...chosen))],
  );
}

/** TPMT_SIGNATURE, RSASSA with SHA-256. */
export function signAttest(attest: Uint8Array, tpm: Tpm): Uint8Array {
  return join(u16(0x14), u16(0xb), sized(new Uint8Array(sign('sha256', attest, tpm.key))));
}

export interface Logged {
  readonly register: number;
  readonly type?: number;
  readonly data: string;
}

/** A log in the crypto agile format, and what it replays to. */
export function eventLog(
  events: readonly Logged[],
  banks: readonly Hash[] = ['sha256'],
): { bytes: Uint8Array; registers: Map<number, Uint8Array> } {
  const spec = join(
    ...[Buffer.from('Spec ID Event03\0'), u32le(0), Uint8Array.of(0, 2, 0, 2), u32le(banks.length)],
    ...banks.flatMap((bank) => [u16le(IDS[bank]), u16le(digest(bank).length)]),
    Uint8Array.of(0),
  );
  const parts = [u32le(0), u32le(3), new Uint8Array(20), u32le(spec.length), spec];
  const registers = new Map<number, Uint8Array>();
  const [first = 'sha256'] = banks;
  for (const { register, type = 0xd, data } of events) {
    const bytes = Buffer.from(data);
    parts.push(u32le(register), u32le(type), u32le(banks.length));
    for (const bank of banks) parts.push(u16le(IDS[bank]), digest(bank, bytes));
    parts.push(u32le(bytes.length), bytes);
    if (type === 3) continue;
    const before = registers.get(register) ?? new Uint8Array(digest(first).length);
    registers.set(register, digest(first, before, digest(first, bytes)));
  }
  return { bytes: join(...parts), registers };
}

/** The paravisor's report around an SNP report that covers the TPM's key. */
export function hclReport(
  tpm: Tpm,
  change: (json: string) => string = (json) => json,
): { bytes: Uint8Array; machine: SnpMachine } {
  const claims = {
    keys: [{ kid: 'HCLAkPub', key_ops: ['sign'], kty: 'RSA', e: tpm.jwk.e, n: tpm.jwk.n }],
    'vm-configuration': { 'secure-boot': true },
  };
  const json = JSON.stringify(claims);
  const machine = snpMachine({ edit: (bytes) => bytes.set(digest('sha256', Buffer.from(json)), 0x50) });
  const runtime = Buffer.from(change(json));
  const bytes = join(
    ...[Buffer.from('HCLA'), u32le(2), new Uint8Array(24), machine.report.bytes],
    ...[u32le(runtime.length + 20), u32le(1), u32le(2), u32le(1), u32le(runtime.length), runtime, new Uint8Array(40)],
  );
  return { bytes, machine };
}

/** The same report with something changed and signed anew. */
export function resigned(machine: SnpMachine, edit: (bytes: Uint8Array) => void): Uint8Array {
  const bytes = machine.report.bytes.slice();
  edit(bytes);
  return must(readSnpReport(signReport(bytes, machine.keys.vcek))).bytes;
}

/** As Azure's tools write a quote. */
export function bincode(attest: Uint8Array, signature: Uint8Array, pcrs: readonly Uint8Array[]): Uint8Array {
  const long = (value: number) => join(u32le(value), new Uint8Array(4));
  return join(long(signature.length), signature, long(attest.length), attest, long(pcrs.length), ...pcrs);
}
