/**
 * An IBM Secure Execution response. Nobody signs it: the verifier made a key for its request, sealed it for the machine, and
 * the Ultravisor answers with an HMAC under that key. So it proves something only to who has the request's protection key.
 */
import { hex } from '@airlock/core/bytes.ts';
import { concat, sameBytes } from '../bytes.ts';
import { type Appraisal, type Checklist, type Claim, createChecklist, verdictOf } from '../check.ts';
import type { Crypto } from '../crypto.ts';
import { checkNonce } from '../expectations.ts';
import type { Certificate } from '../x509/certificate.ts';
import type { TrustedRoot } from '../x509/chain.ts';
import type { RevocationList } from '../x509/crl.ts';
import { readSeRequest, type SeHeader, type SeRequest, type SeResponse } from './exchange.ts';
import { checkHostKey, hostKeyHash, isHostKey } from './host-key.ts';

export interface SeInput {
  readonly crypto: Crypto;
  readonly response: SeResponse;
  /** Of the images that the verifier expects. */
  readonly headers: readonly SeHeader[];
  /** The key that the verifier sealed its request with, 32 bytes. */
  readonly requestKey?: Uint8Array;
  /** Beginning of the user data, filled up with zeros. */
  readonly nonce?: Uint8Array;
  readonly allowed?: ReadonlySet<string>;
  /** Among these the host key documents and what they lead to. */
  readonly certificates?: readonly Certificate[];
  readonly revocationLists?: readonly RevocationList[];
  /** Of the authority that certifies IBM's key signing service. */
  readonly hostKeyRoots?: readonly TrustedRoot[];
  readonly asOf?: number;
}

const HEADER_LIMIT = 16;
const DOCUMENT_LIMIT = 512;
const KEY_HASH = 32;
const STORE_HASH = 64;
const FIRMWARE = 320;

export function verifySe(input: SeInput): Appraisal {
  const { crypto, response, requestKey } = input;
  const list = createChecklist(input.allowed);
  const request = readSeRequest(response.request);
  const opened = request.ok && requestKey !== undefined ? openRequest(crypto, request.value, requestKey) : null;
  list.check('se.request', opened !== null, {
    expected: 'the verifier’s own request, sealed with its key',
    found:
      opened !== null
        ? 'it is'
        : !request.ok
          ? request.error.message
          : requestKey === undefined
            ? 'the key was not given'
            : crypto.openAesGcm === undefined
              ? 'there is no AES-GCM here'
              : 'another’s request, or an altered one',
    where: { field: 'attestation request control block' },
  });
  const headers = input.headers.slice(0, HEADER_LIMIT);
  const matching =
    opened === null
      ? undefined
      : headers.find(({ tags }) => sameBytes(measure(crypto, opened, tags, response), response.measurement));
  list.check('se.measurement', matching !== undefined, {
    expected: 'HMAC-SHA512 over the image’s header, the configuration id, user data, nonce and additional data',
    found:
      matching !== undefined
        ? 'the same'
        : headers.length === 0
          ? 'no image header was given'
          : opened === null
            ? 'not computed without the request’s key'
            : `another, for ${headers.length} image headers`,
    where: { field: 'measurement' },
  });
  const parts = request.ok ? splitAdditional(request.value, response.additional) : null;
  list.check('se.additional', parts !== null, {
    expected: 'what the request’s flags asked for, and no more',
    found: parts === null ? `${response.additional.length} bytes` : Object.keys(parts).join(', ') || 'nothing',
    where: { field: 'additional data' },
  });
  checkNonce(list, input.nonce, response.user, { field: 'user data' });
  if (request.ok) checkHostKeys(list, input, request.value, parts);
  return {
    kind: 'ibm-se',
    title: 'IBM Secure Execution response',
    verdict: verdictOf(list.checks),
    checks: list.checks,
    claims: {
      'config-uid': hex(response.configUid),
      'user-data': hex(response.user),
      'image-phkh': claim(parts, 'image-phkh'),
      'attestation-phkh': claim(parts, 'attestation-phkh'),
      'secret-store': claim(parts, 'secret-store'),
      'firmware-state': claim(parts, 'firmware-state'),
      additional: hex(response.additional),
    },
  };
}

/** The documents of those keys that the request was sealed for. */
function checkHostKeys(
  list: Checklist,
  input: SeInput,
  { hostKeys }: SeRequest,
  parts: Readonly<Record<string, Uint8Array>> | null,
): void {
  const { crypto } = input;
  const certificates = input.certificates ?? [];
  const documents = certificates.filter(isHostKey).slice(0, DOCUMENT_LIMIT);
  const where = { field: 'attestation request control block, key slots' };
  if (documents.length === 0) {
    list.unchecked('se.host-key', { expected: 'host key document', found: 'none was given', where });
    return;
  }
  const wanted = new Set(hostKeys);
  const trusted = new Set<string>();
  for (const document of documents) {
    const hash = hostKeyHash(crypto, document);
    if (!wanted.has(hash)) continue;
    const good = checkHostKey(list, document, {
      ...{ crypto, certificates, revocationLists: input.revocationLists ?? [], roots: input.hostKeyRoots ?? [] },
      asOf: input.asOf ?? 0,
    });
    if (good) trusted.add(hash);
  }
  const strange = hostKeys.filter((hash) => !trusted.has(hash));
  list.check('se.host-key', strange.length === 0, {
    expected: `${hostKeys.length} keys, each of a host key document that holds`,
    found:
      strange.length === 0
        ? 'they are'
        : `${strange
            .map((hash) => `${hash.slice(0, 16)}…`)
            .slice(0, 4)
            .join(
              ', ',
            )}: ${documents.some((one) => hostKeyHash(crypto, one) === strange[0]) ? 'its document does not hold' : 'of no document that was given'}`,
    where,
  });
  const answered = parts?.['attestation-phkh'];
  if (answered === undefined) return;
  const known = trusted.has(hex(answered));
  list.check('se.host-key-answered', known, {
    expected: [...trusted].map((hash) => `${hash.slice(0, 16)}…`).join(' or ') || 'a host key document that holds',
    found: known ? 'one of them' : hex(answered),
    where: { field: 'additional data, attestation-phkh' },
  });
}

function claim(parts: Readonly<Record<string, Uint8Array>> | null, name: string): Claim {
  const value = parts?.[name];
  return value === undefined ? 'absent' : hex(value);
}

interface Opened {
  readonly key: Uint8Array;
  readonly nonce: Uint8Array;
}

function openRequest(crypto: Crypto, request: SeRequest, key: Uint8Array): Opened | null {
  const { iv, authenticated, sealed, tag } = request;
  const plain = key.length === 32 ? (crypto.openAesGcm?.(key, iv, authenticated, sealed, tag) ?? null) : null;
  return plain === null ? null : { key: plain.subarray(0, 64), nonce: plain.subarray(64) };
}

/** The items in their order, with their lengths. s390-tools, attestation measurement. */
export function measure(
  crypto: Crypto,
  { key, nonce }: Opened,
  tags: Uint8Array,
  response: Pick<SeResponse, 'configUid' | 'user' | 'additional'>,
): Uint8Array {
  const { configUid, user, additional } = response;
  const lengths = new Uint8Array(8);
  const view = new DataView(lengths.buffer);
  view.setUint16(0, user.length);
  view.setUint32(4, additional.length);
  return hmac(crypto, key, concat(tags, configUid, lengths, user, nonce, additional));
}

const BLOCK = 128;

/** HMAC-SHA512 (RFC 2104) with a key of at most a block. */
function hmac(crypto: Crypto, key: Uint8Array, message: Uint8Array): Uint8Array {
  const padded = new Uint8Array(BLOCK);
  padded.set(key.subarray(0, BLOCK));
  const inner = crypto.hash(
    'sha512',
    concat(
      padded.map((byte) => byte ^ 0x36),
      message,
    ),
  );
  return crypto.hash(
    'sha512',
    concat(
      padded.map((byte) => byte ^ 0x5c),
      inner,
    ),
  );
}

/** By the request's flags, in their order; null when the length is not what they ask for. */
function splitAdditional({ flags }: SeRequest, bytes: Uint8Array): Record<string, Uint8Array> | null {
  const parts: Record<string, Uint8Array> = {};
  let at = 0;
  for (const [name, wanted, size] of [
    ['image-phkh', flags.imageHostKey, KEY_HASH],
    ['attestation-phkh', flags.attestationHostKey, KEY_HASH],
    ['secret-store', flags.secretStore, STORE_HASH],
    ['firmware-state', flags.firmware, FIRMWARE],
  ] as const) {
    if (!wanted) continue;
    parts[name] = bytes.subarray(at, at + size);
    at += size;
  }
  return at === bytes.length ? parts : null;
}
