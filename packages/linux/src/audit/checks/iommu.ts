/** Does an IOMMU stand between devices and memory, and how strictly. */
import { commandLine } from '../command-line.ts';
import { type Evidence, evidence } from '../evidence.ts';
import { type Check, found, notApplicable, passed, verdictOf } from '../finding.ts';
import { fact, names, type Observations, type Unknown } from '../reading.ts';

const GROUPS = '/sys/kernel/iommu_groups';

/** The type of every group (DMA, DMA-FQ, identity, auto); types that could not be read are left out. */
function groupTypes(observations: Observations): { path: string; type: string }[] | Unknown {
  const groups = names(observations, GROUPS);
  if (groups.state === 'unknown') return groups;
  if (groups.state === 'absent') return [];
  return groups.names.flatMap((name) => {
    const type = fact(observations, `${GROUPS}/${name}/type`);
    return type.state === 'read' ? [{ path: type.path, type: type.text }] : [];
  });
}

function typeCheck(bad: string): Check['run'] {
  return (observations) => {
    const groups = groupTypes(observations);
    if (!Array.isArray(groups)) return groups;
    if (groups.length === 0) return notApplicable('no IOMMU group with a type');
    return verdictOf(
      groups.filter(({ type }) => type === bad).map(({ path, type }) => evidence(path, type)),
      groups.map(({ path, type }) => evidence(path, type)),
    );
  };
}

export const iommuChecks: readonly Check[] = [
  {
    id: 'iommu-absent',
    area: 'iommu',
    title: 'No IOMMU stands between devices and memory',
    severity: 'info',
    elsewhere: 'info',
    looksAt: [GROUPS],
    why: 'A device with DMA reaches every byte that is not encrypted against it: on bare metal all of memory, in a confidential VM what is shared (bounce buffers), which is what TDX and SEV guests count on.',
    fix: 'On bare metal switch it on in the firmware (VT-d, AMD-Vi); in a VM a virtual IOMMU helps against passed-through devices only.',
    reference: 'Documentation/arch/x86/iommu.rst',
    run: (observations) => {
      const groups = names(observations, GROUPS);
      if (groups.state === 'unknown') return groups;
      return groups.state === 'absent' || groups.names.length === 0
        ? found(evidence(GROUPS, groups.state === 'absent' ? 'absent or empty' : 'empty'))
        : passed(evidence(GROUPS, `${groups.names.length} groups`));
    },
  },
  {
    id: 'iommu-passthrough',
    area: 'iommu',
    title: 'Devices pass the IOMMU by',
    severity: 'medium',
    elsewhere: 'medium',
    looksAt: [`${GROUPS}/*/type`],
    why: 'A group of type identity has all of memory mapped: its devices read and write what they like.',
    fix: 'iommu.passthrough=0 on the command line (no iommu=pt); write DMA to the type of a group whose devices have no driver.',
    reference: 'Documentation/ABI/testing/sysfs-kernel-iommu_groups',
    run: typeCheck('identity'),
  },
  {
    id: 'iommu-lazy',
    area: 'iommu',
    title: 'The IOMMU forgets mappings late',
    severity: 'low',
    elsewhere: 'info',
    looksAt: [`${GROUPS}/*/type`],
    why: 'With DMA-FQ a device keeps access to a buffer for some milliseconds after the driver gave it back, when it may hold something else.',
    fix: 'iommu.strict=1 on the command line.',
    reference: 'Documentation/ABI/testing/sysfs-kernel-iommu_groups',
    run: typeCheck('DMA-FQ'),
  },
  {
    id: 'iommu-switched-off',
    area: 'iommu',
    title: 'The command line switches the IOMMU off',
    severity: 'medium',
    elsewhere: 'medium',
    looksAt: ['/proc/cmdline'],
    why: 'Whatever IOMMU the machine has, the kernel does not use it against devices.',
    fix: 'Remove iommu=off, intel_iommu=off, amd_iommu=off and their kin.',
    reference: 'Documentation/admin-guide/kernel-parameters.txt',
    run: (observations) => {
      const line = commandLine(observations);
      if (line.state === 'unknown') return line;
      const wrong: Evidence[] = line.options
        .filter(
          ({ name, value }) => /^(iommu|intel_iommu|amd_iommu)$/.test(name) && (value ?? '').split(',').includes('off'),
        )
        .map((one) => evidence('/proc/cmdline', one.text));
      return verdictOf(wrong, [evidence('/proc/cmdline', 'no iommu=off, intel_iommu=off, amd_iommu=off')]);
    },
  },
];
