/** Collateral for a verifier without a network: files with their digests in one document, and what runs out when. */
import { hex } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { fromBase64, sameBytes, toBase64 } from './bytes.ts';
import type { Crypto } from './crypto.ts';
import type { Found, Item } from './item.ts';
import { isObject, readJson } from './json.ts';
import { recognise } from './recognise.ts';
import { readTime, timeText } from './time.ts';
import { nameOf } from './x509/chain.ts';

export const COLLATERAL_FORMAT = 'airlock-collateral';
export const COLLATERAL_FILES = 512;

export interface CollateralFile {
  readonly name: string;
  readonly bytes: Uint8Array;
}

export interface CollateralBundle {
  /** Milliseconds since 1970. */
  readonly made: number;
  readonly files: readonly CollateralFile[];
}

/** Kinds that support evidence and are none. */
const KINDS: readonly Item['kind'][] = [
  'certificate',
  'revocation-list',
  'ocsp-response',
  'collateral',
  'rim',
  'public-key',
];

export function isCollateral(item: Item): boolean {
  return KINDS.includes(item.kind);
}

export interface CollateralEntry {
  /** `revocation list of Intel SGX Root CA` */
  readonly what: string;
  readonly kind: Item['kind'];
  readonly source: string;
  /** Milliseconds since 1970; null for what has no dates: keys. */
  readonly from: number | null;
  readonly until: number | null;
}

/** What expires first comes first; what never does, last. */
export function listCollateral(found: readonly Found[]): CollateralEntry[] {
  const entries = new Map<string, CollateralEntry>();
  for (const { item, source } of found) {
    if (!isCollateral(item)) continue;
    const entry = { ...datesOf(item), kind: item.kind, source };
    const id = JSON.stringify([entry.what, entry.from, entry.until]);
    // Chains bring the same few authorities again and again.
    if (!entries.has(id)) entries.set(id, entry);
  }
  const end = ({ until }: CollateralEntry) => until ?? Number.POSITIVE_INFINITY;
  return [...entries.values()].sort((x, y) => (end(x) === end(y) ? 0 : end(x) - end(y)));
}

function datesOf(item: Item): Pick<CollateralEntry, 'what' | 'from' | 'until'> {
  switch (item.kind) {
    case 'certificate':
      return {
        what: `certificate of ${nameOf(item.certificate)}`,
        from: item.certificate.notBefore,
        until: item.certificate.notAfter,
      };
    case 'revocation-list':
      return {
        what: `revocation list of ${item.list.issuer.commonName ?? item.list.issuer.text}`,
        from: item.list.thisUpdate,
        until: item.list.nextUpdate,
      };
    case 'ocsp-response': {
      const { answers } = item.response;
      return {
        what: `OCSP response, ${answers.length} answers`,
        from: answers.length === 0 ? null : Math.max(...answers.map(({ thisUpdate }) => thisUpdate)),
        until:
          answers.length === 0
            ? null
            : Math.min(...answers.map(({ thisUpdate, nextUpdate }) => nextUpdate ?? thisUpdate)),
      };
    }
    case 'collateral':
      return {
        what:
          item.document.kind === 'tcb-info'
            ? `TCB info of FMSPC ${item.document.fmspc}`
            : `QE identity ${item.document.id}`,
        from: item.document.issueDate,
        until: item.document.nextUpdate,
      };
    case 'rim': {
      const { certificates } = item.rim.signature;
      return {
        what: `NVIDIA manifest of ${item.rim.product} ${item.rim.version}`,
        from: Math.max(...certificates.map(({ notBefore }) => notBefore)),
        until: Math.min(...certificates.map(({ notAfter }) => notAfter)),
      };
    }
    default:
      return { what: item.kind, from: null, until: null };
  }
}

/** Names are for people; the digests are what is held against the contents. */
export function writeCollateralBundle(crypto: Crypto, { made, files }: CollateralBundle): string {
  const entries = files.map(({ name, bytes }) => ({
    name,
    sha256: hex(crypto.hash('sha256', bytes)),
    data: toBase64(bytes),
  }));
  return `${JSON.stringify({ format: COLLATERAL_FORMAT, version: 1, made: timeText(made), files: entries }, null, 2)}\n`;
}

export function isCollateralBundle(text: string): boolean {
  return text.slice(0, 256).includes(`"${COLLATERAL_FORMAT}"`);
}

/** Every digest must fit. Codes: `collateral-bundle-invalid`, `json-invalid`. */
export function readCollateralBundle(crypto: Crypto, text: string): Result<CollateralBundle> {
  const wrong = (what: string) => fail('collateral-bundle-invalid', what);
  const json = readJson(text);
  if (!json.ok) return json;
  const { value } = json.value;
  if (!isObject(value) || value['format'] !== COLLATERAL_FORMAT || value['version'] !== 1)
    return wrong(`not ${COLLATERAL_FORMAT}, version 1`);
  const made = typeof value['made'] === 'string' ? readTime(value['made']) : undefined;
  const listed = value['files'];
  if (made === undefined) return wrong('made is no date');
  if (!Array.isArray(listed) || listed.length > COLLATERAL_FILES)
    return wrong(`files is a list of at most ${COLLATERAL_FILES}`);
  const files: CollateralFile[] = [];
  for (const [i, one] of (listed as readonly unknown[]).entries()) {
    const bytes = isObject(one) && typeof one['data'] === 'string' ? fromBase64(one['data']) : undefined;
    if (!isObject(one) || typeof one['name'] !== 'string' || bytes === undefined)
      return wrong(`files[${i}] is not a name and data`);
    const name = one['name'].replace(/[^\x20-\x7e]/g, '?').slice(0, 128);
    if (one['sha256'] !== hex(crypto.hash('sha256', bytes))) return wrong(`${name}: its digest is another`);
    files.push({ name, bytes });
  }
  return ok({ made, files });
}

/** What the files hold, without what is no collateral; files that hold nothing, or a second time the same, are named. */
export function gatherCollateral(files: readonly CollateralFile[]): {
  readonly kept: readonly CollateralFile[];
  readonly found: readonly Found[];
  readonly left: readonly { readonly name: string; readonly why: string }[];
} {
  const kept: CollateralFile[] = [];
  const found: Found[] = [];
  const left: { name: string; why: string }[] = [];
  for (const file of files) {
    if (kept.some(({ bytes }) => sameBytes(bytes, file.bytes))) {
      left.push({ name: file.name, why: 'the same as another' });
      continue;
    }
    const { found: items, problems } = recognise(file.name, file.bytes);
    const own = items.filter(({ item }) => isCollateral(item));
    if (own.length === 0 || own.length < items.length) {
      left.push({
        name: file.name,
        why: items.length > 0 ? 'evidence, not collateral' : (problems[0]?.message ?? 'nothing in it'),
      });
    } else if (problems.length > 0) left.push({ name: file.name, why: problems[0]?.message ?? 'broken in part' });
    else {
      kept.push(file);
      found.push(...own);
    }
  }
  return { kept, found, left };
}
