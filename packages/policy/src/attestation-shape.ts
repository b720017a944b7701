/** How `platform.attestation` is written. */
import {
  AMD_PRODUCTS,
  type AmdProduct,
  ATTESTATION_KINDS,
  type Distrust,
  type PlatformAttestation,
  TCB_PARTS,
  type TcbPart,
  type TcbVersions,
} from './attestation.ts';
import { withoutUndefined } from './match-shape.ts';
import { listOf, mapped, needed, notation, optional, record, type Shape, text, word } from './shape.ts';

const version = notation({
  what: 'a security version from 0 to 255',
  schema: { type: 'integer', minimum: 0, maximum: 255 },
  parse: (written) => (/^\d{1,3}$/.test(written) && Number(written) <= 255 ? Number(written) : undefined),
});
const privilege = notation({
  what: 'a privilege level from 0 to 3',
  schema: { type: 'integer', minimum: 0, maximum: 3 },
  parse: (written) => (/^[0-3]$/.test(written) ? Number(written) : undefined),
});
const date = mapped(
  text({ what: 'a date', max: 10, pattern: '^[0-9]{4}-[0-9]{2}-[0-9]{2}$', hint: 'such as 2026-11-20' }),
  (written, at, report): number | undefined => {
    const [year = 0, month = 0, day = 0] = written.split('-').map(Number);
    const moment = Date.UTC(year, month - 1, day);
    const back = new Date(moment);
    if (year >= 1970 && back.getUTCMonth() === month - 1 && back.getUTCDate() === day) return moment;
    report({ code: 'bad-value', message: `${written} is no date`, at });
    return undefined;
  },
);
const product = word('an AMD product', AMD_PRODUCTS);
const parts = Object.fromEntries(
  TCB_PARTS.map((name) => [name, optional(version, `Security version of ${name}.`)]),
) as Record<TcbPart, ReturnType<typeof optional<number>>>;
const permission = word('forbidden or allowed', ['forbidden', 'allowed']);
const digest = mapped(
  text({ what: 'a launch digest in hex', max: 128, pattern: '^([0-9a-fA-F]{64}|[0-9a-fA-F]{96}|[0-9a-fA-F]{128})$' }),
  (written) => written.toLowerCase(),
);

const minimum = mapped(record('a minimum', { product: needed(product, 'Whose firmware.'), ...parts }), (read) =>
  withoutUndefined<{ readonly product: AmdProduct } & TcbVersions>(read),
);
const distrust = mapped(
  record('a distrust', {
    product: needed(product, 'Whose machines.'),
    below: optional(record('below', parts, { some: true }), 'Only those with a part below this; all when not given.'),
    from: needed(date, 'The day from which on they are refused.'),
    reason: needed(text({ what: 'a reason', max: 200 }), 'Why: it stands in the report.'),
  }),
  ({ product: whose, below: floor, from, reason }): Distrust => ({
    ...{ product: whose, from: from ?? 0, reason },
    ...(floor === undefined ? {} : { below: withoutUndefined<TcbVersions>(floor) }),
  }),
);

export const attestation: Shape<PlatformAttestation> = mapped(
  record(
    'attestation',
    {
      kinds: optional(
        listOf(word('a kind of evidence', ATTESTATION_KINDS), { what: 'kinds', max: 8 }),
        'Any of these.',
      ),
      products: optional(listOf(product, { what: 'products', max: 8 }), 'AMD: any of these.'),
      'minimum-tcb': optional(listOf(minimum, { what: 'minimums', max: 8 }), 'AMD: the least firmware, by product.'),
      'minimum-tcb-date': optional(date, 'Intel: the least date of the TCB level that the platform reaches.'),
      distrust: optional(
        listOf(distrust, { what: 'distrusted products', max: 64 }),
        'Machines that are refused from a day on.',
      ),
      debug: optional(permission, 'A guest that the host may debug; forbidden when not given.'),
      migration: optional(permission, 'A guest that the host may move; forbidden when not given.'),
      vmpl: optional(privilege, 'SEV-SNP: the highest VMPL that a report may come from.'),
      measurements: optional(listOf(digest, { what: 'launch digests', max: 256 }), 'What was launched: any of these.'),
    },
    { some: true },
  ),
  (read, at): PlatformAttestation =>
    withoutUndefined<PlatformAttestation>({
      kinds: read.kinds,
      products: read.products,
      minimumTcb: read['minimum-tcb'],
      minimumTcbDate: read['minimum-tcb-date'],
      distrust: read.distrust,
      debug: read.debug,
      migration: read.migration,
      vmpl: read.vmpl,
      measurements: read.measurements,
      at,
    }),
);
