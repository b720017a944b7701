/**
 * IBM Secure Execution: the file that pvattest hands back and forth, the request (ARCB) in it, and the header of the
 * guest's image. s390-tools, pvattest; every number is big-endian.
 */
import { hex } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { latin1, u32be } from '../bytes.ts';

const MAGIC = 'pvattest';
const HEADER_MAGIC = 'IBMSecEx';
const VERSION = 0x0100;
const HEAD = 64;
const EXCHANGE_LIMIT = 1024 * 1024;
const USER_LIMIT = 256;
const MEASUREMENT = 64;
const CONFIG_UID = 16;
const ARCB_HEAD = 48;
const CUSTOMER_KEY = 160;
const KEY_SLOT = 80;
const KEY_HASH = 32;
const TAG = 16;
const MEASUREMENT_KEY = 64;
const HMAC_SHA512 = 1;

export interface SeResponse {
  /** The request, as it was sent. */
  readonly request: Uint8Array;
  /** HMAC-SHA512. */
  readonly measurement: Uint8Array;
  readonly additional: Uint8Array;
  readonly user: Uint8Array;
  readonly configUid: Uint8Array;
}

export function isSeExchange(bytes: Uint8Array): boolean {
  return bytes.length >= HEAD && latin1(bytes.subarray(0, 8)) === MAGIC;
}

/** Codes: `se-exchange-invalid`, also for a request that nobody answered yet. */
export function readSeResponse(given: Uint8Array): Result<SeResponse> {
  const wrong = (what: string) => fail('se-exchange-invalid', what);
  const bytes = given.slice();
  if (!isSeExchange(bytes)) return wrong('no marker pvattest');
  if (bytes.length > EXCHANGE_LIMIT) return wrong(`${bytes.length} bytes`);
  if (u32be(bytes, 8) !== VERSION) return wrong(`version 0x${u32be(bytes, 8).toString(16)}; 0x100 is known`);
  if (u32be(bytes, 12) !== bytes.length) return wrong(`it says ${u32be(bytes, 12)} bytes and has ${bytes.length}`);
  const part = (at: number): Uint8Array | null => {
    const [size, offset] = [u32be(bytes, at), u32be(bytes, at + 4)];
    if (size === 0) return new Uint8Array();
    return offset < HEAD || offset + size > bytes.length ? null : bytes.subarray(offset, offset + size);
  };
  // Of a request the sizes of what is to come are there, and their places are not.
  const answered = u32be(bytes, 0x24) !== 0;
  if (!answered) return wrong('a request without an answer: give what the guest returned');
  const [request, measurement, additional, user, configUid] = [0x18, 0x20, 0x28, 0x30, 0x38].map(part);
  if (request == null || measurement == null || additional == null || user == null || configUid == null)
    return wrong('a part lies outside of the file');
  if (measurement.length !== MEASUREMENT)
    return wrong(`a measurement of ${measurement.length} bytes; ${MEASUREMENT} are needed`);
  if (configUid.length !== CONFIG_UID) return wrong('a configuration id of a wrong length');
  if (user.length > USER_LIMIT) return wrong(`user data of ${user.length} bytes`);
  return ok({ request, measurement, additional, user, configUid });
}

export interface SeRequest {
  /** What the tag covers besides the sealed part. */
  readonly authenticated: Uint8Array;
  readonly iv: Uint8Array;
  /** Measurement key, and a nonce of 16 bytes where there is one. */
  readonly sealed: Uint8Array;
  readonly tag: Uint8Array;
  /** Of each host key that can open the request, the hash, in hex. */
  readonly hostKeys: readonly string[];
  readonly flags: {
    readonly nonce: boolean;
    readonly imageHostKey: boolean;
    readonly attestationHostKey: boolean;
    readonly secretStore: boolean;
    readonly firmware: boolean;
  };
}

/** Attestation request control block, version 1, measured with HMAC-SHA512. Codes: `se-exchange-invalid`. */
export function readSeRequest(bytes: Uint8Array): Result<SeRequest> {
  const wrong = (what: string) => fail('se-exchange-invalid', `request: ${what}`);
  if (bytes.length < ARCB_HEAD + 16 + CUSTOMER_KEY + KEY_SLOT + MEASUREMENT_KEY + TAG) return wrong('cut off');
  if (u32be(bytes, 0) !== 0 || u32be(bytes, 4) !== 0 || u32be(bytes, 8) !== VERSION) return wrong('not version 1');
  if (u32be(bytes, 12) !== bytes.length) return wrong(`it says ${u32be(bytes, 12)} bytes and has ${bytes.length}`);
  const [slots, sealedSize] = [u32be(bytes, 0x24), u32be(bytes, 0x2c)];
  const sealedAt = ARCB_HEAD + 16 + CUSTOMER_KEY + slots * KEY_SLOT;
  if (u32be(bytes, 0x20) !== 0 || slots === 0 || slots > 512 || sealedAt + sealedSize + TAG !== bytes.length)
    return wrong('its sizes contradict each other');
  if (sealedSize !== MEASUREMENT_KEY && sealedSize !== MEASUREMENT_KEY + 16) return wrong(`${sealedSize} sealed bytes`);
  if (u32be(bytes, 0x38) !== HMAC_SHA512) return wrong('measured with something other than HMAC-SHA512');
  const first = bytes[0x30] ?? 0;
  const flag = (bit: number) => (first & (0x80 >> bit)) !== 0;
  if (flag(1) !== sealedSize > MEASUREMENT_KEY) return wrong('its flags and its nonce contradict each other');
  const slotAt = ARCB_HEAD + 16 + CUSTOMER_KEY;
  const hostKeys = Array.from({ length: slots }, (_, i) =>
    hex(bytes.subarray(slotAt + i * KEY_SLOT, slotAt + i * KEY_SLOT + KEY_HASH)),
  );
  return ok({
    hostKeys,
    authenticated: bytes.subarray(0, sealedAt),
    iv: bytes.subarray(0x10, 0x1c),
    sealed: bytes.subarray(sealedAt, sealedAt + sealedSize),
    tag: bytes.subarray(sealedAt + sealedSize),
    flags: {
      nonce: flag(1),
      imageHostKey: flag(2),
      attestationHostKey: flag(3),
      secretStore: flag(4),
      firmware: flag(5),
    },
  });
}

/** What the Ultravisor measures of an image: its header's digests and its tag, 208 bytes. */
export interface SeHeader {
  readonly tags: Uint8Array;
}

export function isSeHeader(bytes: Uint8Array): boolean {
  return bytes.length >= 0x1f0 && latin1(bytes.subarray(0, 8)) === HEADER_MAGIC;
}

/** The header alone, as pvextract-hdr writes it. Codes: `se-header-invalid`. */
export function readSeHeader(given: Uint8Array): Result<SeHeader> {
  const wrong = (what: string) => fail('se-header-invalid', what);
  const bytes = given.slice();
  if (!isSeHeader(bytes)) return wrong('no marker IBMSecEx');
  const [size, slots, sealed] = [u32be(bytes, 12), u32be(bytes, 0x24), u32be(bytes, 0x2c)];
  if (size !== bytes.length || size > 8192) return wrong(`it says ${size} bytes and has ${bytes.length}`);
  const digestsEnd = 0x40 + CUSTOMER_KEY + 3 * 64;
  if (digestsEnd + slots * KEY_SLOT + sealed + TAG !== size) return wrong('its sizes contradict each other');
  const tags = new Uint8Array(3 * 64 + TAG);
  tags.set(bytes.subarray(0x40 + CUSTOMER_KEY, digestsEnd));
  tags.set(bytes.subarray(size - TAG), 3 * 64);
  return ok({ tags });
}
