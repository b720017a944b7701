/** GET_CSR, SET_CERTIFICATE, GET_KEY_PAIR_INFO and VENDOR_DEFINED_REQUEST, answered. */
import { HASH_SIZE, PQC_SIGNATURE_BIT, PQC_SIGNATURES, type SignatureName } from '../algorithms.ts';
import { readCertificateChain } from '../certificate-chain.ts';
import { REQUEST, RESPONSE } from '../messages/codes.ts';
import { decodeGetKeyPairInfo, encodeKeyPairInfo } from '../messages/key-pair.ts';
import {
  decodeGetCsr,
  decodeSetCertificate,
  encodeCsr,
  encodeSetCertificateResponse,
} from '../messages/provisioning.ts';
import { decodeVendorDefined, encodeVendorDefined } from '../messages/vendor-defined.ts';
import { ALL_USAGES } from './slot.ts';
import { type Answer, type ResponderSession, type ResponderState, refuse, reply } from './state.ts';

const CSR_LIMIT = 0xffff;

export function answerGetCsr(state: ResponderState, bytes: Uint8Array): Answer {
  const { context, options } = state;
  if (options.csr === undefined) return refuse('UnsupportedRequest', bytes[1]);
  const decoded = decodeGetCsr(bytes, context);
  if (!decoded.ok) return refuse('InvalidRequest');
  const csr = options.csr(decoded.value.message);
  return csr === null || csr.length === 0 || csr.length > CSR_LIMIT
    ? refuse('Unspecified')
    : reply(encodeCsr(context, csr));
}

/** Chains are read before they are kept; slot 0 takes none outside of a session. */
export function answerSetCertificate(
  state: ResponderState,
  bytes: Uint8Array,
  session: ResponderSession | null,
): Answer {
  const { context, options, negotiated } = state;
  if (options.setCertificate === undefined || negotiated === null) return refuse('UnsupportedRequest', bytes[1]);
  const decoded = decodeSetCertificate(bytes, context);
  if (!decoded.ok) return refuse('InvalidRequest');
  const upload = decoded.value.message;
  if (upload.slot !== 0 && session === null) return refuse('UnexpectedRequest');
  let { chain } = upload;
  if (chain.length > 0) {
    const [a = 0, b = 0] = chain;
    const stated = a | (b << 8);
    // What a transport padded is cut off before the chain is read.
    if (stated <= chain.length && chain.length - stated <= context.padding) chain = chain.slice(0, stated);
    const read = readCertificateChain(chain, negotiated.version, negotiated.hash);
    if (!read.ok) return refuse('InvalidRequest');
    chain = chain.slice(4 + HASH_SIZE[negotiated.hash]);
  }
  return options.setCertificate({ ...upload, chain })
    ? reply(encodeSetCertificateResponse(context, upload.slot))
    : refuse('Unspecified');
}

export function answerVendorDefined(
  state: ResponderState,
  bytes: Uint8Array,
  session: ResponderSession | null,
): Answer {
  const { context, options } = state;
  if (options.vendor === undefined) return refuse('UnsupportedRequest', bytes[1]);
  const decoded = decodeVendorDefined(bytes, context, REQUEST.VENDOR_DEFINED_REQUEST);
  if (!decoded.ok) return refuse('InvalidRequest');
  const answer = options.vendor(decoded.value.message, session?.id ?? null);
  if (answer === null) return refuse('UnsupportedRequest', bytes[1]);
  const large = decoded.value.message.large === true ? { large: true } : {};
  return reply(encodeVendorDefined(context, RESPONSE.VENDOR_DEFINED_RESPONSE, { ...answer, ...large }));
}

/** Bits of key kinds, which KEY_PAIR_INFO has in place of signature algorithms. */
const KEY_KINDS: readonly (readonly [SignatureName, number])[] = [
  ...([
    ['rsassa-2048', 1 << 0],
    ['rsassa-3072', 1 << 1],
    ['rsassa-4096', 1 << 2],
  ] as const),
  ...([
    ['ecdsa-p256', 1 << 3],
    ['ecdsa-p384', 1 << 4],
    ['ecdsa-p521', 1 << 5],
  ] as const),
  ...([
    ['ed25519', 1 << 7],
    ['ed448', 1 << 8],
  ] as const),
];

/** With several keys in the connection: each slot's key is a pair, and cannot be changed. */
export function answerGetKeyPairInfo(state: ResponderState, bytes: Uint8Array): Answer {
  const { context, options } = state;
  if (options.multiKey === undefined) return refuse('UnsupportedRequest', bytes[1]);
  const decoded = decodeGetKeyPairInfo(bytes, context);
  if (!decoded.ok) return refuse('InvalidRequest');
  const pair = decoded.value.message;
  const slots = [...options.slots].filter(([, slot]) => (slot.keyPair ?? 1) === pair);
  const key = slots[0]?.[1].key;
  if (key === undefined) return refuse('InvalidRequest');
  const total = Math.max(...[...options.slots.values()].map((slot) => slot.keyPair ?? 1));
  const algorithm = KEY_KINDS.reduce((mask, [name, bit]) => mask | (key.fits(name) ? bit : 0), 0);
  const pqc = PQC_SIGNATURES.reduce((mask, name) => mask | (key.fits(name) ? PQC_SIGNATURE_BIT[name] : 0), 0);
  return reply(
    encodeKeyPairInfo(context, {
      total,
      pair,
      capabilities: 0,
      usageCapabilities: ALL_USAGES,
      usage: slots.reduce((mask, [, slot]) => mask | (slot.keyUsage ?? ALL_USAGES), 0),
      algorithmCapabilities: algorithm,
      algorithm,
      publicKeyInfo: new Uint8Array(),
      slotMask: slots.reduce((mask, [number]) => mask | (1 << number), 0),
      pqcCapabilities: pqc,
      pqcAlgorithm: pqc,
    }),
  );
}
