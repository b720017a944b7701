/**
 * NVIDIA's reference integrity manifests: SWID tags (ISO/IEC 19770-2:2015) whose payload lists the measurements of one
 * driver or VBIOS, signed within. TCG RIM Information Model 1.01; NVIDIA attestation SDK.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { fromHex } from '../bytes.ts';
import { attributeOf, elementsOf, readXml, type XmlElement } from '../xml/document.ts';
import { readXmlSignature, type XmlSignature } from '../xml/signature.ts';

const SWID = 'http://standards.iso.org/iso/19770/-2/2015/schema.xsd';
const SHA384 = 'http://www.w3.org/2001/04/xmlenc#sha384';
const MEASUREMENT_LIMIT = 255;
const ALTERNATIVE_LIMIT = 64;

export interface RimMeasurement {
  /** Counts from 0; block 1 of a report is measurement 0. */
  readonly index: number;
  /** As the manifest names it: `HashedMeasurement_32_GSP`. */
  readonly name: string;
  /** Only active ones are compared. */
  readonly active: boolean;
  /** Any of these. */
  readonly alternatives: readonly Uint8Array[];
}

export interface Rim {
  readonly tagId: string;
  /** `GH100` */
  readonly product: string;
  /** Of the driver (`550.144.03`) or of the VBIOS (`96.00.74.00.20`). */
  readonly version: string;
  readonly measurements: readonly RimMeasurement[];
  readonly signature: XmlSignature;
}

/** Text that may be a manifest. */
export function isRim(text: string): boolean {
  return text.startsWith('<') && /<(?:[A-Za-z0-9_]+:)?SoftwareIdentity[ \t\n\r>]/.test(text.slice(0, 1024));
}

/** Codes: `rim-invalid`, `xml-invalid`, `xml-signature-invalid`, those of certificates. */
export function readRim(bytes: Uint8Array): Result<Rim> {
  const wrong = (what: string) => fail('rim-invalid', what);
  const read = readXml(bytes);
  if (!read.ok) return read;
  const root = read.value;
  const signature = readXmlSignature(root);
  if (!signature.ok) return signature;
  if (root.local !== 'SoftwareIdentity' || root.namespace !== SWID) return wrong('no SoftwareIdentity');
  const named = (local: string) => elementsOf(root).filter((one) => one.local === local && one.namespace === SWID);
  const [metas, payloads] = [named('Meta'), named('Payload')];
  const [meta, payload] = [metas[0], payloads[0]];
  if (meta === undefined || payload === undefined || metas.length + payloads.length !== 2)
    return wrong('not one Meta and one Payload');
  const product = attributeOf(meta, 'product');
  const version = attributeOf(meta, 'colloquialVersion');
  const tagId = attributeOf(root, 'tagId');
  if (!isName(product) || !isName(version) || !isName(tagId)) return wrong('product, version or tagId');
  const measurements: RimMeasurement[] = [];
  const seen = new Set<number>();
  for (const resource of elementsOf(payload)) {
    const measurement = resource.local === 'Resource' && resource.namespace === SWID ? readMeasurement(resource) : null;
    if (measurement === null) return wrong(`resource ${measurements.length} of the payload is no measurement`);
    if (seen.has(measurement.index)) return wrong(`measurement ${measurement.index} stands twice`);
    seen.add(measurement.index);
    measurements.push(measurement);
  }
  if (!measurements.some(({ active }) => active)) return wrong('no measurement is active');
  return ok({ tagId, product, version, measurements, signature: signature.value });
}

function isName(text: string | null): text is string {
  return text !== null && /^[\x21-\x7e][\x20-\x7e]{0,127}$/.test(text);
}

function readMeasurement(resource: XmlElement): RimMeasurement | null {
  const index = numberOf(attributeOf(resource, 'index'), MEASUREMENT_LIMIT);
  const size = numberOf(attributeOf(resource, 'size'), 64);
  const count = numberOf(attributeOf(resource, 'alternatives'), ALTERNATIVE_LIMIT);
  const active = attributeOf(resource, 'active');
  const name = attributeOf(resource, 'name');
  if (attributeOf(resource, 'type') !== 'Measurement' || !isName(name)) return null;
  if (index === null || size === null || count === null || count === 0) return null;
  if (active !== 'True' && active !== 'False') return null;
  const alternatives: Uint8Array[] = [];
  for (let i = 0; i < count; i++) {
    const value = fromHex(attributeOf(resource, `Hash${i}`, SHA384) ?? 'x');
    if (value === undefined || value.length !== size) return null;
    alternatives.push(value);
  }
  const hashes = resource.attributes.filter(({ namespace, local }) => namespace === SHA384 && /^Hash\d+$/.test(local));
  return hashes.length === count ? { index, name, active: active === 'True', alternatives } : null;
}

function numberOf(text: string | null, most: number): number | null {
  return text !== null && /^\d{1,3}$/.test(text) && Number(text) <= most ? Number(text) : null;
}
