/** GET_CSR, SET_CERTIFICATE and VENDOR_DEFINED_REQUEST, answered. */
import { HASH_SIZE } from '../algorithms.ts';
import { readCertificateChain } from '../certificate-chain.ts';
import { REQUEST, RESPONSE } from '../messages/codes.ts';
import {
  decodeGetCsr,
  decodeSetCertificate,
  encodeCsr,
  encodeSetCertificateResponse,
} from '../messages/provisioning.ts';
import { decodeVendorDefined, encodeVendorDefined } from '../messages/vendor-defined.ts';
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
  return answer === null
    ? refuse('UnsupportedRequest', bytes[1])
    : reply(encodeVendorDefined(context, RESPONSE.VENDOR_DEFINED_RESPONSE, answer));
}
