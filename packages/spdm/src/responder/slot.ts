/** The responder's slots: which of them can be used for what, and their chains. */
import { encodeCertificateChain } from '../certificate-chain.ts';
import { KEY_USAGE } from '../messages/digests.ts';
import type { Negotiated } from '../negotiate.ts';
import type { ResponderSlot, ResponderState } from './state.ts';

export const ALL_USAGES = KEY_USAGE.keyExchange | KEY_USAGE.challenge | KEY_USAGE.measurement | KEY_USAGE.endpointInfo;

/**
 * A slot whose key is of the negotiated algorithm, and may be used for `usage`; `undefined` when there is none. 15 is
 * the key that requesters know, whose "chain" is the key itself.
 */
export function usableSlot(state: ResponderState, slot: number, usage: number): ResponderSlot | undefined {
  const { negotiated, options } = state;
  if (slot === 15) return knownSlot(state);
  const found = options.slots.get(slot);
  if (found === undefined || negotiated === null || negotiated.signature === null) return undefined;
  if (negotiated.multiKey && ((found.keyUsage ?? ALL_USAGES) & usage) === 0) return undefined;
  return found.key.fits(negotiated.signature) ? found : undefined;
}

function knownSlot({ options, negotiated }: ResponderState): ResponderSlot | undefined {
  const { knownKey } = options;
  if (knownKey === undefined || negotiated === null || negotiated.signature === null) return undefined;
  return knownKey.key.fits(negotiated.signature) ? { certificates: [], key: knownKey.key } : undefined;
}

/** The slot's chain in the form of the negotiated version and hash; for a known key the key itself. */
export function chainOf(state: ResponderState, negotiated: Negotiated, slot: ResponderSlot): Uint8Array {
  if (slot.certificates.length === 0) return state.options.knownKey?.spki ?? new Uint8Array();
  const root = slot.root ?? slot.certificates[0] ?? new Uint8Array();
  const { version, hash } = negotiated;
  return encodeCertificateChain(state.options.crypto, version, hash, root, slot.certificates);
}
