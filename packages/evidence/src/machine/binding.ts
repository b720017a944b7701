/**
 * What ties the evidence of a machine's devices to the evidence of its VM: one statement over all of them, whose digest the
 * VM puts where its own evidence has room for data of its choice. docs/evidence.md, Machines, describes it byte by byte.
 */
import { asciiBytes, concat } from '../bytes.ts';
import type { Crypto } from '../crypto.ts';

export const STATEMENT_LABEL = 'airlock machine binding 1';
export const NONCE_LEAST = 8;
export const NONCE_MOST = 64;
export const NAME_LIMIT = 64;
export const DEVICE_LIMIT = 64;
const DEVICE_NONCE = 32;

/** By their numbers: PCIe 6.0 §11.3.13, TDI_STATE. */
export const INTERFACE_STATES = ['CONFIG_UNLOCKED', 'CONFIG_LOCKED', 'RUN', 'ERROR'] as const;
export type InterfaceState = (typeof INTERFACE_STATES)[number];

export interface BoundInterface {
  readonly state: InterfaceState;
  /** 32 bytes: what the device answered LOCK_INTERFACE with; null where the TSM keeps it to itself. */
  readonly lockNonce: Uint8Array | null;
  /** As the device gave it. */
  readonly report: Uint8Array;
}

export interface BoundDevice {
  /** As the guest names it, printable ASCII: `0000:01:00.0`. */
  readonly name: string;
  /** What was asked of the device and what it answered, whole. */
  readonly evidence: Uint8Array;
  /** There when the interface is, or was, locked (TDISP). */
  readonly interface: BoundInterface | null;
}

/** The nonce that every device is asked with: the verifier's own where it is 32 bytes, else its SHA-256. */
export function deviceNonce(crypto: Crypto, nonce: Uint8Array): Uint8Array {
  return nonce.length === DEVICE_NONCE ? nonce : crypto.hash('sha256', nonce);
}

/**
 * label, 0, length of the nonce (1 byte), nonce, number of devices (2 bytes, big-endian); then for each device, in the
 * order of their names: length of the name (1), name, SHA-384 of its evidence (48), and 0; or 1 with the interface's state (1),
 * the lock nonce (32) and SHA-384 of the interface report (48); or 2 with the same but for the nonce, which is not known.
 */
export function bindingStatement(crypto: Crypto, nonce: Uint8Array, devices: readonly BoundDevice[]): Uint8Array {
  const parts = [asciiBytes(STATEMENT_LABEL), Uint8Array.of(0, nonce.length), nonce];
  parts.push(Uint8Array.of(devices.length >> 8, devices.length & 0xff));
  for (const { name, evidence, interface: locked } of [...devices].sort((a, b) => order(a.name, b.name))) {
    parts.push(Uint8Array.of(name.length), asciiBytes(name), crypto.hash('sha384', evidence));
    if (locked === null) parts.push(Uint8Array.of(0));
    else {
      const state = INTERFACE_STATES.indexOf(locked.state);
      const { lockNonce } = locked;
      parts.push(lockNonce === null ? Uint8Array.of(2, state) : concat(Uint8Array.of(1, state), lockNonce));
      parts.push(crypto.hash('sha384', locked.report));
    }
  }
  return concat(...parts);
}

export interface BindingDigests {
  /** SHA-512, 64 bytes: REPORT_DATA of SEV-SNP and TDX, the challenge of Arm CCA. */
  readonly reportData: Uint8Array;
  /** SHA-256, 32 bytes: the qualifying data of a TPM quote, which need not have room for more. */
  readonly qualifyingData: Uint8Array;
}

export function bindingDigests(crypto: Crypto, nonce: Uint8Array, devices: readonly BoundDevice[]): BindingDigests {
  const statement = bindingStatement(crypto, nonce, devices);
  return { reportData: crypto.hash('sha512', statement), qualifyingData: crypto.hash('sha256', statement) };
}

function order(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
