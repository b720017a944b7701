/** GET_VERSION to ALGORITHMS: what two ends agree on before anything else is said. */
import { fail, ok } from '@airlock/core/result.ts';
import type { SpdmVersion } from '../algorithms.ts';
import {
  CAPABILITY,
  type Capabilities,
  decodeCapabilities,
  definedFlags,
  encodeGetCapabilities,
} from '../messages/capabilities.ts';
import { RESPONSE } from '../messages/codes.ts';
import { decodeAlgorithms, encodeNegotiateAlgorithms } from '../messages/negotiation.ts';
import { initialContext } from '../messages/reader.ts';
import { decodeVersion, encodeGetVersion } from '../messages/version.ts';
import { acceptSelection, contextOf, type Negotiated, offerOf, selectVersion } from '../negotiate.ts';
import type { Connection, RequesterOptions } from './connection.ts';
import type { Procedure } from './procedure.ts';

/** What a requester with these options can do, in a version. */
export function requesterFlags(options: RequesterOptions, version: SpdmVersion): number {
  let flags = CAPABILITY.ENCRYPT | CAPABILITY.MAC | CAPABILITY.KEY_EX | CAPABILITY.HBEAT | CAPABILITY.KEY_UPD;
  flags |= CAPABILITY.CHUNK | CAPABILITY.LARGE_RESP;
  if (options.psk !== undefined) flags |= CAPABILITY.PSK;
  if (options.clearHandshake === true) flags |= CAPABILITY.HANDSHAKE_IN_THE_CLEAR;
  if (options.identity !== undefined) flags |= CAPABILITY.CERT | CAPABILITY.MUT_AUTH | CAPABILITY.ENCAP;
  return (flags & definedFlags('requester', version)) >>> 0;
}

/**
 * Starts the connection anew; what an earlier one left, and its sessions, are forgotten. Codes: `version-unacceptable`,
 * `algorithms-unacceptable`, `message-*`, `peer-*`.
 */
export function* start(connection: Connection): Procedure<Negotiated> {
  connection.reset();
  const { options, preferences, transcripts } = connection;
  const { padding } = options.binding;

  const getVersion = encodeGetVersion();
  const versionBytes = yield* connection.exchange(getVersion, RESPONSE.VERSION, null);
  if (!versionBytes.ok) return versionBytes;
  const entries = decodeVersion(versionBytes.value, padding);
  if (!entries.ok) return entries;
  const selected = selectVersion(preferences.versions, entries.value.message);
  if (!selected.ok) return selected;
  const version = selected.value;
  connection.version = version;
  connection.context = initialContext(version, padding);

  const flags = requesterFlags(options, version);
  const own: Capabilities = {
    flags,
    cryptoTimeExponent: 0,
    dataTransferSize: connection.transferSize,
    maxMessageSize: (flags & CAPABILITY.CHUNK) !== 0 ? connection.messageSize : connection.transferSize,
  };
  connection.own = own;
  const getCapabilities = encodeGetCapabilities(version, own);
  const capabilitiesBytes = yield* connection.exchange(getCapabilities, RESPONSE.CAPABILITIES, null);
  if (!capabilitiesBytes.ok) return capabilitiesBytes;
  const capabilities = decodeCapabilities(capabilitiesBytes.value, connection.context);
  if (!capabilities.ok) return capabilities;
  if (capabilities.value.message.algorithms)
    return fail('message-malformed', 'CAPABILITIES: it brings algorithms that were not asked for');
  const peer = capabilities.value.message;
  connection.peer = peer;

  const offer = offerOf(version, preferences, own.flags, peer.flags);
  const negotiate = encodeNegotiateAlgorithms(version, offer);
  const algorithmsBytes = yield* connection.exchange(negotiate, RESPONSE.ALGORITHMS, null);
  if (!algorithmsBytes.ok) return algorithmsBytes;
  const selection = decodeAlgorithms(algorithmsBytes.value, connection.context);
  if (!selection.ok) return selection;
  const accepted = acceptSelection(version, offer, selection.value.message, own.flags, peer.flags);
  if (!accepted.ok) return accepted;
  connection.negotiated = accepted.value;
  connection.context = contextOf(accepted.value, padding);
  transcripts.vca = [
    getVersion,
    versionBytes.value.slice(0, entries.value.length),
    getCapabilities,
    capabilitiesBytes.value.slice(0, capabilities.value.length),
    negotiate,
    algorithmsBytes.value.slice(0, selection.value.length),
  ];
  return ok(accepted.value);
}
