/** What verification says: a list of checks, each with what was expected and what was found. Plain JSON. */
import type { Problem } from '@airlock/core/result.ts';
import { CHECKS, type CheckId } from './catalogue.ts';

/**
 * `failed` rejects the evidence. `unchecked` could not be run because something optional was not given, `noted` is
 * worth knowing and rejects nothing, `allowed` failed and was allowed by whoever asked.
 */
export const CHECK_STATUSES = ['failed', 'allowed', 'unchecked', 'noted', 'passed'] as const;
export type CheckStatus = (typeof CHECK_STATUSES)[number];

/** Where the thing that was looked at stands. */
export interface Place {
  /** `REPORT_DATA`, `VCEK extension 1.3.6.1.4.1.3704.1.4` */
  readonly field?: string;
  /** First byte and the byte after the last, in the evidence as it was given (hex, base64 taken off). */
  readonly bytes?: readonly [number, number];
}

export interface Check {
  readonly id: CheckId;
  readonly status: CheckStatus;
  /** What was looked at, where there is more than one: `SEV-VCEK`, `Intel SGX Root CA`. */
  readonly subject?: string;
  readonly expected: string;
  readonly found: string;
  readonly where?: Place;
  /** What the reader can do; absent where the check passed. */
  readonly hint?: string;
}

export interface CheckDetail {
  readonly subject?: string | undefined;
  readonly expected: string;
  readonly found: string;
  readonly where?: Place;
  /** Instead of the catalogue's. */
  readonly hint?: string;
}

export interface Checklist {
  readonly checks: readonly Check[];
  /** Adds `passed` or, when it does not hold, `failed`; gives back what it was given. */
  check(id: CheckId, holds: boolean, detail: CheckDetail): boolean;
  unchecked(id: CheckId, detail: CheckDetail): void;
  note(id: CheckId, detail: CheckDetail): void;
  /** Takes over checks that were made before, of the same things. */
  adopt(made: readonly Check[]): void;
}

/** `allowed`: ids whose failure is not to reject; those that the catalogue does not let anybody waive stay failures. */
export function createChecklist(allowed: ReadonlySet<string> = new Set()): Checklist {
  const checks: Check[] = [];
  const add = (id: CheckId, status: CheckStatus, detail: CheckDetail): void => {
    const { subject, expected, found, where } = detail;
    const check: { -readonly [K in keyof Check]: Check[K] } =
      subject === undefined ? { id, status, expected, found } : { id, status, subject, expected, found };
    if (where !== undefined) check.where = where;
    if (status !== 'passed' && status !== 'noted') {
      const hint = detail.hint ?? CHECKS[id].hint;
      if (hint !== undefined) check.hint = hint;
    }
    checks.push(check);
  };
  return {
    checks,
    check(id, holds, detail) {
      add(id, holds ? 'passed' : allowed.has(id) && CHECKS[id].waivable === true ? 'allowed' : 'failed', detail);
      return holds;
    },
    unchecked: (id, detail) => add(id, 'unchecked', detail),
    note: (id, detail) => add(id, 'noted', detail),
    adopt: (made) => {
      for (const check of made) checks.push(check);
    },
  };
}

export type Verdict = 'accepted' | 'rejected';

/** One failure rejects; so does a list on which nothing passed. */
export function verdictOf(checks: readonly Check[]): Verdict {
  const good = checks.some(({ status }) => status === 'passed') && !checks.some(({ status }) => status === 'failed');
  return good ? 'accepted' : 'rejected';
}

/** What evidence states once it is believed. `absent`: this version of the format has no such field. */
export type Claim = string | number | boolean | null | readonly Claim[] | { readonly [name: string]: Claim };

/** What one piece of evidence came to. */
export interface Appraisal {
  /** `amd-sev-snp`, `intel-tdx`, `tpm-2.0`, `certificate` */
  readonly kind: string;
  /** `AMD SEV-SNP report, version 3, Genoa` */
  readonly title: string;
  readonly verdict: Verdict;
  readonly checks: readonly Check[];
  /** Read from the evidence; worth believing only when the verdict is `accepted`. */
  readonly claims: { readonly [name: string]: Claim };
}

export interface ReportedAppraisal extends Appraisal {
  /** The file that the evidence came from, with the way to it within: `evidence.json: quote`. */
  readonly source: string;
  /** SHA-384 of the key that signed, in hex, where evidence is a device’s. */
  readonly identity?: string;
}

/** What `airlock verify --json` prints. */
export interface Report {
  readonly version: 1;
  /** `accepted` only when every appraisal is and nothing among the evidence was unreadable. */
  readonly verdict: Verdict;
  /** The date that everything was checked for. */
  readonly asOf: string;
  readonly appraisals: readonly ReportedAppraisal[];
  readonly files: readonly { readonly file: string; readonly holds: readonly string[] }[];
  /** Files that could not be read as anything. */
  readonly problems: readonly { readonly file: string; readonly problem: Problem }[];
}
