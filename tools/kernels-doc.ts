/** Writes docs/kernels.md from real runs on the three kernels: tools/node tools/kernels-doc.ts */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CHECKOUT, KERNELS } from '@airlock/lab/cache.ts';
import { kernelsDocument } from '@airlock/lab/kernels-doc.ts';
import { progressOn } from '@airlock/lab/progress.ts';
import type { LabReport } from '@airlock/lab/report.ts';
import { runScenario } from '@airlock/lab/scenario.ts';

const reports: LabReport[] = [];
for (const series of KERNELS) {
  const progress = progressOn((text) => void process.stderr.write(text), false, 100);
  const report = await runScenario({
    series,
    policy: join(CHECKOUT, 'policies/lab.yaml'),
    compare: true,
    tell: progress.tell,
  });
  progress.end();
  if (!report.ok) throw new Error(`${series}: ${report.error.message} [${report.error.code}]`);
  reports.push(report.value);
}
writeFileSync(join(CHECKOUT, 'docs/kernels.md'), kernelsDocument(reports));
