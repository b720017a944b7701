/** AMD's extensions in VCEK and VLEK certificates. AMD 57230, 57896. */
import { asciiText } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { Certificate } from '../x509/certificate.ts';
import { DerReader, TAG } from '../x509/der.ts';
import { productOfName, type SnpProduct } from './product.ts';
import { type Tcb, type TcbPart, tcbLayout } from './tcb.ts';

const AMD = '1.3.6.1.4.1.3704.1';
const SPL: Readonly<Record<TcbPart, string>> = {
  bootloader: `${AMD}.3.1`,
  tee: `${AMD}.3.2`,
  snp: `${AMD}.3.3`,
  microcode: `${AMD}.3.8`,
  fmc: `${AMD}.3.9`,
};

export interface Vcek {
  readonly kind: 'vcek' | 'vlek';
  /** As the certificate writes it: `Milan-B0`. */
  readonly productName: string;
  readonly product: SnpProduct;
  readonly tcb: Tcb;
  /** 64 bytes, 8 on Turin; null for a VLEK, which is no chip's. */
  readonly hardwareId: Uint8Array | null;
  /** Whom AMD issued a VLEK to. */
  readonly provider: string | null;
}

/** Is this a certificate of a key that signs reports? */
export function isVcek(certificate: Certificate): boolean {
  return certificate.extensions.has(`${AMD}.2`) && certificate.extensions.has(SPL.bootloader);
}

const known = new WeakMap<Certificate, Result<Vcek>>();

/** Codes: `vcek-extension-invalid`. */
export function readVcek(certificate: Certificate): Result<Vcek> {
  let read = known.get(certificate);
  if (read === undefined) {
    read = readExtensions(certificate);
    known.set(certificate, read);
  }
  return read;
}

function readExtensions({ extensions, subject }: Certificate): Result<Vcek> {
  const wrong = (what: string) => fail('vcek-extension-invalid', `${subject.commonName ?? 'certificate'}: ${what}`);
  const nameReader = new DerReader(extensions.get(`${AMD}.2`)?.value ?? new Uint8Array());
  const productName = asciiText(nameReader.take(TAG.ia5String));
  nameReader.finish();
  if (nameReader.problem !== null) return wrong(`productName: ${nameReader.problem.message}`);
  const product = productOfName(productName);
  if (product === null) return wrong(`productName ${productName.slice(0, 32)} is not known`);

  const tcb: Partial<Record<TcbPart, number>> = {};
  for (const part of Object.keys(tcbLayout(product)) as TcbPart[]) {
    const reader = new DerReader(extensions.get(SPL[part])?.value ?? new Uint8Array());
    const value = reader.unsigned();
    reader.finish();
    if (reader.problem !== null || value > 255) return wrong(`${part}SPL: ${reader.problem?.message ?? 'above 255'}`);
    tcb[part] = value;
  }

  const kind = subject.commonName === 'SEV-VLEK' ? 'vlek' : subject.commonName === 'SEV-VCEK' ? 'vcek' : null;
  if (kind === null) return wrong('the subject is neither SEV-VCEK nor SEV-VLEK');
  const common = { productName, product, tcb };
  if (kind === 'vcek') {
    const size = product === 'Turin' ? 8 : 64;
    const hardwareId = octets(extensions.get(`${AMD}.4`)?.value, size);
    return hardwareId === undefined
      ? wrong(`hwID is not ${size} bytes`)
      : ok({ kind, ...common, hardwareId, provider: null });
  }
  const reader = new DerReader(extensions.get(`${AMD}.5`)?.value ?? new Uint8Array());
  const provider = asciiText(reader.take(TAG.ia5String));
  reader.finish();
  return reader.problem === null
    ? ok({ kind, ...common, hardwareId: null, provider })
    : wrong(`csp_id: ${reader.problem.message}`);
}

/** AMD writes hwID as bare bytes where an OCTET STRING belongs; both are one value each. */
function octets(value: Uint8Array | undefined, size: number): Uint8Array | undefined {
  if (value === undefined || value.length === size) return value;
  const reader = new DerReader(value);
  const inner = reader.take(TAG.octetString);
  reader.finish();
  return reader.problem === null && inner.length === size ? inner : undefined;
}
