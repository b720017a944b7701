/** GET_VERSION, GET_CAPABILITIES and NEGOTIATE_ALGORITHMS, answered. */
import { type SpdmVersion, VERSION_BYTE, versionOfByte } from '../algorithms.ts';
import { CAPABILITY, decodeGetCapabilities, definedFlags, encodeCapabilities } from '../messages/capabilities.ts';
import { decodeNegotiateAlgorithms, encodeAlgorithms } from '../messages/negotiation.ts';
import { initialContext } from '../messages/reader.ts';
import { decodeGetVersion, encodeVersion } from '../messages/version.ts';
import { contextOf } from '../negotiate.ts';
import { selectAlgorithms } from './select.ts';
import { type Answer, type ResponderOptions, type ResponderState, refuse, reply } from './state.ts';

/** What a responder with these options can do, in a version. */
export function responderFlags(options: ResponderOptions, version: SpdmVersion): number {
  const { measurements, mutual, psk, multiKey } = options;
  let flags: number = options.knownKey === undefined ? CAPABILITY.CERT : CAPABILITY.PUB_KEY_ID;
  flags |= CAPABILITY.CHAL | CAPABILITY.ENCRYPT | CAPABILITY.MAC | CAPABILITY.KEY_EX;
  flags |= CAPABILITY.HBEAT | CAPABILITY.KEY_UPD | CAPABILITY.CHUNK | CAPABILITY.LARGE_RESP;
  if (measurements !== undefined) flags |= CAPABILITY.MEAS_SIG | CAPABILITY.MEAS_FRESH;
  if (mutual !== undefined) flags |= CAPABILITY.MUT_AUTH | CAPABILITY.ENCAP;
  if (psk !== undefined) flags |= options.pskContext === false ? CAPABILITY.PSK : CAPABILITY.PSK_WITH_CONTEXT;
  if (options.clearHandshake === true) flags |= CAPABILITY.HANDSHAKE_IN_THE_CLEAR;
  if (options.csr !== undefined) flags |= CAPABILITY.CSR;
  if (options.setCertificate !== undefined) flags |= CAPABILITY.SET_CERT;
  if (options.measurementLog !== undefined) flags |= CAPABILITY.MEL;
  if (options.endpointInfo !== undefined) flags |= CAPABILITY.EP_INFO_SIG;
  if (multiKey !== undefined) flags |= CAPABILITY.GET_KEY_PAIR_INFO;
  if (multiKey === 'only') flags |= CAPABILITY.MULTI_KEY_ONLY;
  if (multiKey === 'negotiable') flags |= CAPABILITY.MULTI_KEY_NEG;
  return (flags & definedFlags('responder', version)) >>> 0;
}

/** Starts anew, whatever was going on: sessions end. */
export function answerGetVersion(state: ResponderState, bytes: Uint8Array): Answer {
  const decoded = decodeGetVersion(bytes, state.options.binding.padding);
  if (!decoded.ok) return refuse('InvalidRequest');
  state.reset();
  const versions = [...state.options.algorithms.versions].sort((a, b) => VERSION_BYTE[a] - VERSION_BYTE[b]);
  const answer = encodeVersion(
    versions.map((version) => ({ major: 1, minor: VERSION_BYTE[version] & 0xf, update: 0, alpha: 0 })),
  );
  state.transcripts.vca.push(bytes.slice(0, decoded.value.length), answer);
  state.phase = 'version';
  return reply(answer);
}

export function answerGetCapabilities(state: ResponderState, bytes: Uint8Array): Answer {
  if (state.phase !== 'version') return refuse('UnexpectedRequest');
  const { options, transcripts } = state;
  const version = versionOfByte(bytes[0] ?? 0);
  if (version === undefined || !options.algorithms.versions.includes(version)) return refuse('VersionMismatch');
  state.context = initialContext(version, options.binding.padding);
  state.spoken = version;
  const decoded = decodeGetCapabilities(bytes, state.context);
  if (!decoded.ok) return refuse('InvalidRequest');
  const flags = responderFlags(options, version);
  state.peer = decoded.value.message;
  state.own = {
    flags,
    cryptoTimeExponent: 20,
    dataTransferSize: state.transferSize,
    maxMessageSize: (flags & CAPABILITY.CHUNK) !== 0 ? state.messageSize : state.transferSize,
  };
  const answer = encodeCapabilities(version, state.own);
  transcripts.vca.push(bytes.slice(0, decoded.value.length), answer);
  state.phase = 'capabilities';
  return reply(answer);
}

export function answerNegotiateAlgorithms(state: ResponderState, bytes: Uint8Array): Answer {
  if (state.phase !== 'capabilities') return refuse('UnexpectedRequest');
  const { options, transcripts, context, own, peer } = state;
  const decoded = decodeNegotiateAlgorithms(bytes, context);
  if (!decoded.ok || peer === null) return refuse('InvalidRequest');
  const { version } = context;
  // Only what a slot's key can sign with is ever selected.
  const keys = [...options.slots.values(), ...(options.knownKey === undefined ? [] : [options.knownKey])].map(
    ({ key }) => key,
  );
  const signatures = options.algorithms.signatures.filter((name) => keys.some((key) => key.fits(name)));
  const selected = selectAlgorithms(
    version,
    { ...options.algorithms, signatures },
    decoded.value.message,
    own.flags,
    peer.flags,
  );
  if (!selected.ok) return refuse('InvalidRequest');
  const { selection, negotiated } = selected.value;
  const answer = encodeAlgorithms(version, selection);
  transcripts.vca.push(bytes.slice(0, decoded.value.length), answer);
  state.negotiated = negotiated;
  state.context = contextOf(negotiated, options.binding.padding);
  state.phase = 'negotiated';
  return reply(answer);
}
