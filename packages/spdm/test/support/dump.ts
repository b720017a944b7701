/** Captures of DMTF's emulator with DMTF's own decode: AIRLOCK_EVIDENCE, or ../shared/evidence beside the repository. */
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const folder = process.env['AIRLOCK_EVIDENCE'] ?? resolve(import.meta.dirname, '../../../../../shared/evidence');

export const evidencePath = (name: string): string => join(folder, name);

/** A reason to skip by name, or false. */
export const missing: string | false = existsSync(evidencePath('spdm-captures/v13-p384.dump.txt'))
  ? false
  : `no captures in ${folder}; AIRLOCK_EVIDENCE names its folder`;

export interface DumpedMessage {
  /** `IDE_KM(0x00) QUERY (port=0x01)` and what stands before it. */
  readonly line: string;
  readonly up: boolean;
  /** The bytes under each heading: `SPDM Message`, `PCI Vendor message`, `SecuredSPDM message`. */
  readonly parts: ReadonlyMap<string, Uint8Array>;
}

/** Every message of one of DMTF's text dumps. */
export function readDump(name: string): readonly DumpedMessage[] {
  const messages: { line: string; up: boolean; parts: Map<string, Uint8Array> }[] = [];
  let heading = '';
  let digits = '';
  const flush = () => {
    if (heading !== '') messages.at(-1)?.parts.set(heading, new Uint8Array(Buffer.from(digits, 'hex')));
    heading = '';
    digits = '';
  };
  for (const line of readFileSync(evidencePath(`spdm-captures/${name}.dump.txt`), 'utf8').split('\n')) {
    const start = /^\d+ \(\d+\) (.*)$/.exec(line);
    const title = /^ {2}(\S.*?)(?: message| Message)?:$/.exec(line);
    const row = /^ {4}[0-9a-f]{4}: ((?:[0-9a-f]{2} ?)+)$/.exec(line);
    if (start !== null) {
      flush();
      messages.push({ line: start[1] ?? '', up: line.includes('REQ->RSP'), parts: new Map() });
    } else if (title !== null) {
      flush();
      heading = title[1] ?? '';
    } else if (row !== null && heading !== '') digits += (row[1] ?? '').replaceAll(' ', '');
  }
  flush();
  return messages;
}
