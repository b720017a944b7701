/** Makes docs/audit.md's list of checks from the checks: `tools/node tools/audit-doc.ts --write`, or to standard output. */
import { readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { catalogueMarkdown } from '../packages/linux/src/audit/catalogue.ts';

export const auditDocument = resolve(import.meta.dirname, '../docs/audit.md');
const MARK = '<!-- From here on made by: tools/node tools/audit-doc.ts --write -->\n';

/** The document with its list of checks as the code has it now; what stands above the mark is kept. */
export function renderAudit(text: string): string {
  const [above = ''] = text.split(MARK);
  return `${above}${MARK}\n${catalogueMarkdown()}`;
}

if (import.meta.main) {
  const text = renderAudit(readFileSync(auditDocument, 'utf8'));
  if (process.argv.includes('--write')) writeFileSync(auditDocument, text);
  else process.stdout.write(text);
}
