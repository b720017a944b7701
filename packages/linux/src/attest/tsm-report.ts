/**
 * configfs-tsm: the one door through which Linux asks SEV-SNP firmware, the TDX module or the RMM for a report.
 * Documentation/ABI/testing/configfs-tsm-report (Linux 6.7 and later).
 */
import { asciiText } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { Files } from '../files.ts';
import type { Folders } from './hands.ts';

export const TSM_REPORTS = '/sys/kernel/config/tsm/report';
const REPORT_DATA = 64;
const BLOB_LIMIT = 256 * 1024;
const TRIES = 3;

export interface TsmReport {
  /** `sev_guest`, `tdx_guest`, `arm_cca_guest` */
  readonly provider: string;
  /** The report or quote. */
  readonly outblob: Uint8Array;
  /** What comes with it: of SEV-SNP the host's certificate table. Empty where there is none. */
  readonly auxblob: Uint8Array;
}

/**
 * `reportData` is 64 bytes. The kernel counts every write to the entry (`generation`): when somebody else wrote in between,
 * the report is not of our data, and it is asked for again. Codes: those of `Files`, `tsm-report-refused`,
 * `tsm-report-raced`.
 */
export async function readTsmReport(
  files: Files,
  folders: Folders,
  name: string,
  reportData: Uint8Array,
): Promise<Result<TsmReport>> {
  if (reportData.length !== REPORT_DATA)
    return fail('tsm-report-refused', `${reportData.length} bytes of report data; 64 are needed`);
  const path = `${TSM_REPORTS}/${name}`;
  const made = await folders.make(path);
  if (!made.ok) return made;
  try {
    for (let i = 0; i < TRIES; i++) {
      const report = await askOnce(files, path, reportData);
      if (report === null) continue;
      return report;
    }
    return fail('tsm-report-raced', `${path}: somebody else wrote to it ${TRIES} times`, {
      hint: 'nobody but this program should use that entry: look who does',
    });
  } finally {
    await folders.remove(path);
  }
}

/** Null when somebody else wrote in between. */
async function askOnce(files: Files, path: string, reportData: Uint8Array): Promise<Result<TsmReport> | null> {
  const before = await generationOf(files, path);
  if (!before.ok) return before;
  const written = await files.write(`${path}/inblob`, reportData);
  if (!written.ok) return written;
  const outblob = await files.read(`${path}/outblob`, BLOB_LIMIT);
  if (!outblob.ok) return outblob;
  const aux = await files.read(`${path}/auxblob`, BLOB_LIMIT);
  const provider = await files.read(`${path}/provider`, 64);
  if (!provider.ok) return provider;
  const after = await generationOf(files, path);
  if (!after.ok) return after;
  if (after.value === before.value) return fail('tsm-report-refused', `${path}/inblob: the kernel took no report data`);
  if (after.value !== before.value + 1) return null;
  if (outblob.value.length === 0) return fail('tsm-report-refused', `${path}/outblob is empty`);
  return ok({
    provider: asciiText(provider.value).trim(),
    outblob: outblob.value,
    auxblob: aux.ok ? aux.value : new Uint8Array(),
  });
}

async function generationOf(files: Files, path: string): Promise<Result<number>> {
  const read = await files.read(`${path}/generation`, 32);
  if (!read.ok) return read;
  const text = asciiText(read.value).trim();
  return /^\d{1,15}$/.test(text)
    ? ok(Number(text))
    : fail('tsm-report-refused', `${path}/generation is no number: ${text.slice(0, 32)}`);
}
