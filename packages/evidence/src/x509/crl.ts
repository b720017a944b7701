/** X.509 version 2 revocation lists, RFC 5280 §5: complete ones of their own issuer; delta and indirect ones are refused. */
import { hex } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { sameBytes } from '../bytes.ts';
import { type Algorithm, readAlgorithm } from './algorithm.ts';
import { type Extension, readExtensions } from './certificate.ts';
import { DerReader, TAG } from './der.ts';
import { type Name, readName } from './name.ts';

export const CRL_LIMIT = 4 * 1024 * 1024;

export interface RevocationList {
  readonly der: Uint8Array;
  readonly tbs: Uint8Array;
  readonly algorithm: Algorithm;
  readonly issuer: Name;
  readonly thisUpdate: number;
  readonly nextUpdate: number;
  /** Serial number in hex to the moment of revocation. */
  readonly revoked: ReadonlyMap<string, number>;
  /** Hex of its INTEGER, where the list has a number. */
  readonly number: string | null;
  readonly signature: Uint8Array;
}

const CRL_NUMBER = '2.5.29.20';

/** One revocation list and nothing after it. Codes: `crl-invalid`, `der-*`. */
export function readRevocationList(bytes: Uint8Array): Result<RevocationList> {
  if (bytes.length > CRL_LIMIT) return fail('der-too-large', `a revocation list of ${bytes.length} bytes`);
  // A copy of our own: what was read and what is verified must be the same.
  const der = bytes.slice();
  const outer = new DerReader(der);
  const reader = outer.enter(TAG.sequence);
  const tbs = reader.whole(TAG.sequence);
  const algorithmDer = reader.peek() === TAG.sequence ? reader.whole(TAG.sequence) : new Uint8Array();
  const signature = reader.octetsOfBits();
  reader.finish();
  outer.finish();
  if (outer.problem !== null) return { ok: false, error: outer.problem };

  const body = outer.inside(tbs).enter(TAG.sequence);
  const version = body.peek() === TAG.integer ? body.unsigned() : 0;
  const innerAlgorithm = body.peek() === TAG.sequence ? body.whole(TAG.sequence) : new Uint8Array();
  const algorithm = readAlgorithm(body.inside(innerAlgorithm));
  const issuer = readName(body);
  const thisUpdate = body.time();
  const timed = body.peek() === TAG.utcTime || body.peek() === TAG.generalizedTime;
  const nextUpdate = timed ? body.time() : Number.NaN;
  const revoked = new Map<string, number>();
  let critical: string | undefined;
  if (body.peek() === TAG.sequence) {
    const list = body.enter(TAG.sequence);
    while (list.more) {
      const entry = list.enter(TAG.sequence);
      const serial = hex(entry.integerBytes());
      const at = entry.time();
      if (entry.more) critical ??= firstCritical(readExtensions(wrap(entry)));
      entry.finish();
      revoked.set(serial, at);
    }
  }
  const extensions = body.peek() === 0xa0 ? readExtensions(body.enter(0xa0)) : new Map<string, Extension>();
  body.finish();
  critical ??= firstCritical(extensions);
  const numbered = extensions.get(CRL_NUMBER);
  const number = numbered === undefined ? null : hex(body.inside(numbered.value).integerBytes());
  if (body.problem !== null) return { ok: false, error: body.problem };

  if (version !== 1) return fail('crl-invalid', `version ${version + 1}, 2 is needed`);
  if (!sameBytes(algorithmDer, innerAlgorithm))
    return fail('crl-invalid', 'the signature algorithm inside and outside differ');
  if (Number.isNaN(nextUpdate)) return fail('crl-invalid', 'it does not say when the next one is due');
  // A delta list, an indirect one, or one for some reasons only: each says so in a critical extension.
  if (critical !== undefined) return fail('crl-invalid', `critical extension ${critical} is not understood`);
  return ok({ der, tbs, algorithm, issuer, thisUpdate, nextUpdate, revoked, number, signature });
}

/** crlEntryExtensions stand without the explicit tag that readExtensions expects around them. */
function wrap(entry: DerReader): DerReader {
  return entry.inside(entry.whole(TAG.sequence));
}

function firstCritical(extensions: ReadonlyMap<string, Extension>): string | undefined {
  return [...extensions].find(([, { critical }]) => critical)?.[0];
}
