/** Every check there is, in the order in which reports and docs/audit.md show them. */
import { attestationChecks } from './checks/attestation.ts';
import { consoleChecks } from './checks/console.ts';
import { deviceChecks } from './checks/devices.ts';
import { driverChecks } from './checks/drivers.ts';
import { hostInputChecks } from './checks/host-input.ts';
import { hotPlugChecks } from './checks/hot-plug.ts';
import { iommuChecks } from './checks/iommu.ts';
import { kernelChecks } from './checks/kernel.ts';
import { memoryChecks } from './checks/memory.ts';
import { storageChecks } from './checks/storage.ts';
import { timeAndEntropyChecks } from './checks/time-and-entropy.ts';
import type { Area, Check } from './finding.ts';

export const CHECKS: readonly Check[] = [
  ...memoryChecks,
  ...deviceChecks,
  ...driverChecks,
  ...hotPlugChecks,
  ...storageChecks,
  ...consoleChecks,
  ...hostInputChecks,
  ...kernelChecks,
  ...iommuChecks,
  ...timeAndEntropyChecks,
  ...attestationChecks,
];

export const AREA_TITLES: Readonly<Record<Area, string>> = {
  memory: 'Memory',
  devices: 'Devices in use',
  drivers: 'Drivers',
  'hot-plug': 'Hot-plug',
  storage: 'Storage, swap and hibernation',
  console: 'Consoles',
  'host-input': 'What else the host hands in',
  kernel: 'Kernel',
  iommu: 'IOMMU',
  'time-and-entropy': 'Time and random numbers',
  attestation: 'Attestation',
};

/** The part of docs/audit.md that is made from the checks (Markdown). */
export function catalogueMarkdown(): string {
  const areas = [...new Set(CHECKS.map(({ area }) => area))];
  const sections = areas.map((area) => {
    const checks = CHECKS.filter((check) => check.area === area).map(checkMarkdown);
    return `## ${AREA_TITLES[area]}\n\n${checks.join('\n')}`;
  });
  return `${sections.join('\n')}`;
}

function checkMarkdown(check: Check): string {
  const elsewhere = check.elsewhere === null ? 'not looked at elsewhere' : `${check.elsewhere} elsewhere`;
  return `### ${check.id}
${check.title}.

- **Severity**: ${check.severity} in a confidential VM, ${elsewhere}
- **Looks at**: ${check.looksAt.map((path) => `\`${path}\``).join(', ')}
- **Why**: ${check.why}
- **Fix**: ${check.fix}
- **Reference**: ${check.reference}
`;
}
