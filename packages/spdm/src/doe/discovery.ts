/** DOE discovery, PCIe 6.1 §6.30.1.1: which data object types a mailbox offers. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { FieldReader, le16 } from '../little-endian.ts';
import { DOE_TYPE, decodeDoeObject, encodeDoeObject, PCI_SIG } from './object.ts';

export interface DoeFeature {
  readonly vendor: number;
  readonly type: number;
}

/** `version` is 2 where the DOE capability has version 2 or higher, else 0. */
export interface DiscoveryRequest {
  readonly index: number;
  readonly version: number;
}

export interface DiscoveryResponse extends DoeFeature {
  /** Where to ask on, 0 after the last. */
  readonly next: number;
}

export function encodeDiscoveryRequest({ index, version }: DiscoveryRequest): Uint8Array {
  return Uint8Array.of(index & 0xff, version & 0xff, 0, 0);
}

/** Codes: `doe-discovery-invalid`. Reserved bytes may be anything, as older mailboxes have the version among them. */
export function decodeDiscoveryRequest(payload: Uint8Array): Result<DiscoveryRequest> {
  const reader = new FieldReader(payload, 'doe-discovery-invalid', 'DOE discovery request');
  const index = reader.u8('the index');
  const version = reader.u8('the version');
  reader.take(2, 'reserved bytes');
  reader.finish();
  return reader.problem === null ? ok({ index, version }) : { ok: false, error: reader.problem };
}

export function encodeDiscoveryResponse({ vendor, type, next }: DiscoveryResponse): Uint8Array {
  return Uint8Array.of(...le16(vendor), type & 0xff, next & 0xff);
}

/** Codes: `doe-discovery-invalid`. */
export function decodeDiscoveryResponse(payload: Uint8Array): Result<DiscoveryResponse> {
  const reader = new FieldReader(payload, 'doe-discovery-invalid', 'DOE discovery response');
  const vendor = reader.u16('the vendor id');
  const type = reader.u8('the data object type');
  const next = reader.u8('the next index');
  reader.finish();
  return reader.problem === null ? ok({ vendor, type, next }) : { ok: false, error: reader.problem };
}

/**
 * Every type that a mailbox offers, in its order. `ask` exchanges one discovery object, payload for payload. At most 256
 * questions: an index that comes twice ends it with `doe-discovery-invalid`, as does a mailbox whose first type is not
 * discovery itself. Codes: those of `ask`, `doe-discovery-invalid`.
 */
export async function discoverFeatures(
  version: number,
  ask: (payload: Uint8Array) => Promise<Result<Uint8Array>>,
): Promise<Result<readonly DoeFeature[]>> {
  const features: DoeFeature[] = [];
  const asked = new Set<number>();
  for (let index = 0; ; ) {
    asked.add(index);
    const answer = await ask(encodeDiscoveryRequest({ index, version }));
    if (!answer.ok) return answer;
    const response = decodeDiscoveryResponse(answer.value);
    if (!response.ok) return response;
    const { vendor, type, next } = response.value;
    if (index === 0 && (vendor !== PCI_SIG || type !== DOE_TYPE.discovery))
      return fail('doe-discovery-invalid', 'the first data object type of a mailbox is not discovery');
    features.push({ vendor, type });
    if (next === 0) return ok(features);
    if (asked.has(next)) return fail('doe-discovery-invalid', `index ${next} comes twice`);
    index = next;
  }
}

/** The answer of a mailbox that offers `features` (discovery first). Codes: `doe-discovery-invalid`. */
export function answerDiscovery(features: readonly DoeFeature[], payload: Uint8Array): Result<Uint8Array> {
  const request = decodeDiscoveryRequest(payload);
  if (!request.ok) return request;
  const { index } = request.value;
  const feature = features[index];
  if (feature === undefined) return fail('doe-discovery-invalid', `nothing at index ${index}`);
  return ok(encodeDiscoveryResponse({ ...feature, next: index + 1 < features.length ? index + 1 : 0 }));
}

/** What a mailbox that carries SPDM offers. */
export const SPDM_FEATURES: readonly DoeFeature[] = [DOE_TYPE.discovery, DOE_TYPE.spdm, DOE_TYPE.securedSpdm].map(
  (type) => ({ vendor: PCI_SIG, type }),
);

/**
 * The answer to a discovery object of a mailbox that carries SPDM; `undefined` for any other object. Codes:
 * `doe-discovery-invalid`.
 */
export function answerDiscoveryObject(bytes: Uint8Array): Result<Uint8Array> | undefined {
  const object = decodeDoeObject(bytes);
  if (!object.ok || object.value.vendor !== PCI_SIG || object.value.type !== DOE_TYPE.discovery) return undefined;
  const answer = answerDiscovery(SPDM_FEATURES, object.value.payload);
  return answer.ok ? encodeDoeObject(PCI_SIG, DOE_TYPE.discovery, answer.value) : answer;
}
