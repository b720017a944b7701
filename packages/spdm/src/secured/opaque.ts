/**
 * Opaque data of KEY_EXCHANGE and PSK_EXCHANGE, in which both ends agree on a version of secured messages: DSP0277 §8,
 * in the general format of DSP0274 1.2 and in the one before it.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { FieldReader, le16, le32 } from '../little-endian.ts';

/** `general` is OpaqueDataFmt1 of DSP0274 1.2; `table` is DSP0277's own for versions without a negotiated format. */
export type OpaqueForm = 'general' | 'table';

/** Versions of DSP0277 as their upper byte: 0x10, 0x11, 0x12, 0x13. */
export const SECURED_VERSIONS: readonly number[] = [0x10, 0x11, 0x12, 0x13];

export interface SecuredSelection {
  /** 0x11 */
  readonly version: number;
  /** At most 2 to the power of this many records with one key; 64 where nothing was said. */
  readonly limitExponent: number;
}

const SPEC_ID = 0x444d5446;
const ELEMENT_LIMIT = 16;
const OPAQUE_LIMIT = 1024;
const DATA_VERSION = 1;
const SELECTION = 0;
const SUPPORTED = 1;
const AEAD_LIMIT = 2;

interface DmtfData {
  readonly id: number;
  readonly data: Uint8Array;
}

function encodeElements(form: OpaqueForm, elements: readonly DmtfData[]): Uint8Array {
  const start =
    form === 'general'
      ? Uint8Array.of(elements.length, 0, 0, 0)
      : concat(le32(SPEC_ID), Uint8Array.of(1, elements.length, 0, 0));
  const encoded = elements.map(({ id, data }) => {
    const body = concat(Uint8Array.of(DATA_VERSION, id), data);
    const element = concat(Uint8Array.of(0, 0), le16(body.length), body);
    return concat(element, new Uint8Array((4 - (element.length % 4)) % 4));
  });
  return concat(start, ...encoded);
}

/** The DMTF's elements; those of others are skipped. */
function decodeElements(form: OpaqueForm, opaque: Uint8Array): Result<readonly DmtfData[]> {
  if (opaque.length > OPAQUE_LIMIT) return fail('secured-opaque-invalid', `opaque data of ${opaque.length} bytes`);
  const reader = new FieldReader(opaque, 'secured-opaque-invalid', 'opaque data');
  let count = 0;
  if (form === 'general') {
    count = reader.u8('the number of elements');
    reader.reserved(3);
  } else {
    if (reader.u32('the specification id') !== SPEC_ID) reader.refuse('not in the format of the DMTF');
    if (reader.u8('the format version') !== 1) reader.refuse('an unknown format version');
    count = reader.u8('the number of elements');
    reader.reserved(2);
  }
  if (count > ELEMENT_LIMIT) reader.refuse(`${count} elements`);
  const found: DmtfData[] = [];
  for (let i = 0; i < count && reader.problem === null; i++) {
    const registry = reader.u8('an element’s registry');
    const vendor = reader.u8('an element’s vendor length');
    reader.take(vendor, 'an element’s vendor');
    const length = reader.u16('an element’s length');
    const body = reader.take(length, 'an element’s data');
    reader.reserved((4 - ((4 + vendor + length) % 4)) % 4, 'an element’s padding');
    if (registry !== 0 || vendor !== 0) continue;
    const [dataVersion, id] = body;
    if (id === undefined) reader.refuse('an element without an id');
    else if (dataVersion === DATA_VERSION) found.push({ id, data: body.subarray(2) });
  }
  reader.finish();
  return reader.problem === null ? ok(found) : { ok: false, error: reader.problem };
}

/** The requester's offer, most wanted last as DMTF's library writes it. */
export function encodeSupportedVersions(form: OpaqueForm, versions: readonly number[]): Uint8Array {
  const data = concat(Uint8Array.of(versions.length), ...versions.map((version) => le16(version << 8)));
  return encodeElements(form, [{ id: SUPPORTED, data }]);
}

/** What the requester offers, as upper bytes. Codes: `secured-opaque-invalid`. */
export function decodeSupportedVersions(form: OpaqueForm, opaque: Uint8Array): Result<readonly number[]> {
  const elements = decodeElements(form, opaque);
  if (!elements.ok) return elements;
  const offers = elements.value.filter(({ id }) => id === SUPPORTED);
  const [offer] = offers;
  if (offer === undefined || offers.length > 1)
    return fail('secured-opaque-invalid', `${offers.length} lists of supported versions`);
  const reader = new FieldReader(offer.data, 'secured-opaque-invalid', 'supported versions');
  const count = reader.u8('their number');
  const versions = Array.from({ length: count }, () => reader.u16('a version') >>> 8);
  reader.finish();
  if (reader.problem !== null) return { ok: false, error: reader.problem };
  return count === 0 ? fail('secured-opaque-invalid', 'no version is supported') : ok(versions);
}

/** The responder's choice. */
export function encodeSelection(form: OpaqueForm, { version, limitExponent }: SecuredSelection): Uint8Array {
  const elements = [{ id: SELECTION, data: le16(version << 8) }];
  // Before 1.3 there is no such element, and 64 is what its absence means.
  if (version >= 0x13 && limitExponent !== 64) elements.push({ id: AEAD_LIMIT, data: Uint8Array.of(limitExponent) });
  return encodeElements(form, elements);
}

/** The responder's choice out of `offered`, and of nothing else. Codes: `secured-opaque-invalid`. */
export function decodeSelection(
  form: OpaqueForm,
  offered: readonly number[],
  opaque: Uint8Array,
): Result<SecuredSelection> {
  const elements = decodeElements(form, opaque);
  if (!elements.ok) return elements;
  const choices = elements.value.filter(({ id }) => id === SELECTION);
  const [choice] = choices;
  if (choice === undefined || choices.length > 1)
    return fail('secured-opaque-invalid', `${choices.length} versions are selected`);
  const reader = new FieldReader(choice.data, 'secured-opaque-invalid', 'selected version');
  const version = reader.u16('the version') >>> 8;
  reader.finish();
  if (reader.problem !== null) return { ok: false, error: reader.problem };
  if (!offered.includes(version))
    return fail('secured-opaque-invalid', `version 0x${version.toString(16)} is selected, which was not offered`);
  const limits = elements.value.filter(({ id }) => id === AEAD_LIMIT);
  const limitExponent = limits[0]?.data[0] ?? 64;
  if (limits.length > 1 || limits.some(({ data }) => data.length !== 1) || limitExponent > 64)
    return fail('secured-opaque-invalid', 'the AEAD limit');
  return ok({ version, limitExponent });
}
