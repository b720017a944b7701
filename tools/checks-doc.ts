/** Makes docs/checks.md from the checks of evidence: `tools/node tools/checks-doc.ts --write`, or to standard output. */
import { writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { CHECKS, type CheckEntry } from '../packages/evidence/src/catalogue.ts';

export const checksDocument = resolve(import.meta.dirname, '../docs/checks.md');

const TITLES: Readonly<Record<string, string>> = {
  chain: 'Certificate chains',
  freshness: 'Freshness',
  launch: 'What was launched',
  snp: 'AMD SEV-SNP',
  tdx: 'Intel TDX',
  nvidia: 'NVIDIA',
  cca: 'Arm CCA',
  se: 'IBM Secure Execution',
  tpm: 'TPM 2.0',
  azure: 'Azure’s virtual TPM',
  spdm: 'Devices that speak SPDM',
  cma: 'PCI functions and their certificates',
  measurement: 'Measurements of devices',
  tdisp: 'TDISP interfaces',
  policy: 'The policy',
  reference: 'Reference values',
  machine: 'Machines with their devices',
};

export function renderChecks(): string {
  const groups = Map.groupBy(Object.entries<CheckEntry>(CHECKS), ([id]) => id.split('.')[0] ?? '');
  const parts = [
    '# Checks of evidence',
    'Made from packages/evidence/src/catalogue.ts by `tools/node tools/checks-doc.ts --write`. An id is stable. A check that is marked † is a matter of policy: `airlock verify --allow ID` accepts evidence although it failed.',
  ];
  for (const [group, entries] of groups) {
    parts.push(`## ${TITLES[group] ?? group}`);
    parts.push(
      [
        '| check | what must hold | where that is written | what to do |',
        '|---|---|---|---|',
        ...entries.map(
          ([id, { rule, reference, hint = '', waivable }]) =>
            `| \`${id}\`${waivable === true ? ' †' : ''} | ${[rule, reference, hint].map((text) => text.replaceAll('|', '\\|')).join(' | ')} |`,
        ),
      ].join('\n'),
    );
  }
  return `${parts.join('\n\n')}\n`;
}

if (import.meta.main) {
  if (process.argv.includes('--write')) writeFileSync(checksDocument, renderChecks());
  else process.stdout.write(renderChecks());
}
