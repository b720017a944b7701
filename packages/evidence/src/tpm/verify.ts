/** A TPM quote: signed by a key that somebody vouches for, over PCRs that an event log explains. */
import { hex } from '@airlock/core/bytes.ts';
import { concat, sameBytes } from '../bytes.ts';
import { type Appraisal, type Check, type Checklist, type Claim, createChecklist, verdictOf } from '../check.ts';
import { type Crypto, HASH_SIZE } from '../crypto.ts';
import { ranges } from '../ranges.ts';
import { bootEvents } from './boot-events.ts';
import { checkEventData } from './event-data.ts';
import { type EventLog, initialRegister, replay } from './event-log.ts';
import type { PcrValues, TpmQuote } from './quote.ts';

/** A key that may have signed the quote. */
export interface TpmKey {
  /** SubjectPublicKeyInfo. */
  readonly spki: Uint8Array;
  /** `the runtime data of the SEV-SNP report`, `a certificate of …`. */
  readonly from: string;
  /** Null when who vouches for it is trusted; else why not. */
  readonly doubt: string | null;
  /** What being vouched for does not say. */
  readonly limit?: string;
  /** Of the certificates that lead to it. */
  readonly checks?: readonly Check[];
}

export interface TpmInput {
  readonly crypto: Crypto;
  readonly quote: TpmQuote;
  /** The most trusted first. */
  readonly keys: readonly TpmKey[];
  readonly logs: readonly EventLog[];
  readonly nonce?: Uint8Array;
  readonly allowed?: ReadonlySet<string>;
}

const KEY_LIMIT = 16;

export function verifyTpm(input: TpmInput): Appraisal {
  const { crypto, quote, nonce } = input;
  const { attest, signature } = quote;
  const list = createChecklist(input.allowed);
  list.check('tpm.attested', attest.generated, {
    expected: 'TPM_GENERATED_VALUE, 0xff544347',
    found: attest.generated ? 'the same' : 'another magic: not made within a TPM',
    where: { field: 'magic', bytes: [0, 4] },
  });
  const keys = input.keys.slice(0, KEY_LIMIT);
  const key = keys.find(
    ({ spki }) => crypto.publicKey(spki)?.verify(signature.scheme, attest.bytes, signature.bytes) === true,
  );
  list.check('tpm.signature', key !== undefined, {
    expected: `${signature.scheme.kind}, ${signature.scheme.hash}, by ${keys.map(({ from }) => `the key of ${from}`).join(' or ') || 'an attestation key'}`,
    found: key !== undefined ? 'good' : keys.length === 0 ? 'no key was given' : 'wrong',
  });
  if (key !== undefined) {
    list.adopt(key.checks ?? []);
    list.check('tpm.key', key.doubt === null, {
      expected: 'a key that a trusted report or certificate vouches for',
      found:
        key.doubt === null
          ? `vouched for by ${key.from}${key.limit === undefined ? '' : `: ${key.limit}`}`
          : `the key of ${key.from}: ${key.doubt}`,
    });
  }
  if (nonce === undefined) {
    list.unchecked('freshness.nonce', {
      expected: 'a nonce of the verifier’s',
      found: 'none was given',
      where: { field: 'extraData' },
    });
  } else {
    const same = sameBytes(nonce, attest.extraData);
    list.check('freshness.nonce', same, {
      expected: hex(nonce),
      found: same ? 'the same' : hex(attest.extraData),
      hint: 'the evidence was made for another request: ask for it anew',
      where: { field: 'extraData' },
    });
  }
  const believed = checkPcrs(list, input);
  if (believed !== null)
    for (const log of input.logs)
      if (log.banks.includes(believed.bank)) checkEventData(list, crypto, log, believed.bank);
  return {
    kind: 'tpm-2.0',
    title: `TPM 2.0 quote${believed === null ? '' : ` over ${believed.values.size} PCRs, ${believed.bank}`}`,
    verdict: verdictOf(list.checks),
    checks: list.checks,
    claims: {
      'extra-data': hex(attest.extraData),
      'reset-count': attest.resetCount,
      'restart-count': attest.restartCount,
      'clock-safe': attest.clockSafe,
      key: key === undefined ? null : hex(crypto.hash('sha256', key.spki)),
      pcrs: believed === null ? null : pcrClaim(believed.values),
      events: believed === null ? null : eventClaim(input, believed),
    },
  };
}

export function pcrClaim(values: ReadonlyMap<number, Uint8Array>): Claim {
  return Object.fromEntries([...values].sort(([a], [b]) => a - b).map(([pcr, value]) => [String(pcr), hex(value)]));
}

/** What was booted, by PCR, where the log explains the quoted value: `{ 9: [{ name, digest }] }`. */
function eventClaim({ crypto, logs }: TpmInput, { bank, values }: PcrValues): Claim {
  const events = [...bootEvents(crypto, logs, bank, values)].sort(([a], [b]) => a - b);
  if (events.length === 0) return null;
  return Object.fromEntries(
    events.map(([pcr, all]) => [String(pcr), all.map(({ name, digest }): Claim => ({ name, digest }))]),
  );
}

/** The quoted PCRs: as handed over, or as the log replays to; null when neither gives the quote's digest. */
function checkPcrs(list: Checklist, input: TpmInput): PcrValues | null {
  const { crypto, quote } = input;
  const { attest } = quote;
  const selections = attest.selections.filter(({ pcrs }) => pcrs.length > 0);
  const [selection] = selections;
  const where = { field: 'pcrSelect, pcrDigest' };
  if (selection === undefined || selections.length > 1 || selection.bank === null) {
    list.check('tpm.pcrs', false, {
      expected: 'PCRs of one bank that is known',
      found:
        selection === undefined
          ? 'the quote covers no PCR'
          : selections.length > 1
            ? `${selections.length} banks`
            : 'an unknown bank',
      hint: 'ask for a quote over one bank',
      where,
    });
    return null;
  }
  const { bank, pcrs } = selection;
  const digestOf = (values: readonly Uint8Array[]) => crypto.hash(input.quote.signature.scheme.hash, concat(...values));
  const logs = input.logs.filter(({ banks }) => banks.includes(bank));
  const replayed = logs.map((log) => replay(crypto, log, bank));
  const empty = (pcr: number) => initialRegister(pcr, HASH_SIZE[bank], 0);

  if (quote.pcrs === null) {
    const whole = replayed.find((registers) =>
      sameBytes(digestOf(pcrs.map((pcr) => registers.get(pcr) ?? empty(pcr))), attest.pcrDigest),
    );
    list.check('tpm.pcrs', whole !== undefined, {
      expected: hex(attest.pcrDigest),
      found:
        whole !== undefined
          ? 'what the event log replays to'
          : logs.length === 0
            ? 'no PCR values and no event log were given'
            : 'the event log replays to other values',
      hint: 'give the PCR values or the event log of this boot',
      where,
    });
    return whole === undefined
      ? null
      : { bank, values: new Map(pcrs.map((pcr) => [pcr, whole.get(pcr) ?? empty(pcr)])) };
  }
  const values = new Map<number, Uint8Array>();
  for (const pcr of pcrs) {
    const value = quote.pcrs.values.get(pcr);
    if (value !== undefined) values.set(pcr, value);
  }
  const complete = quote.pcrs.bank === bank && values.size === pcrs.length;
  const same = complete && sameBytes(digestOf([...values.values()]), attest.pcrDigest);
  list.check('tpm.pcrs', same, {
    expected: hex(attest.pcrDigest),
    found: same
      ? `the digest of PCRs ${ranges(pcrs)}`
      : complete
        ? 'other values'
        : `values of ${values.size} of ${pcrs.length} PCRs, bank ${quote.pcrs.bank}`,
    where,
  });
  for (const registers of replayed) {
    const wrong = pcrs.filter((pcr) => {
      const value = registers.get(pcr);
      return value !== undefined && !sameBytes(value, values.get(pcr) ?? empty(pcr));
    });
    const covered = pcrs.filter((pcr) => registers.has(pcr));
    list.check('tpm.event-log', wrong.length === 0 && covered.length > 0, {
      expected: `PCRs ${ranges(covered)} as quoted`,
      found:
        wrong.length === 0
          ? covered.length > 0
            ? 'the same'
            : 'the log extends no quoted PCR'
          : `other values of PCR ${ranges(wrong)}`,
    });
  }
  return same ? { bank, values } : null;
}
