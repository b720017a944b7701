/** Can this machine prove what it is. */
import { evidence } from '../evidence.ts';
import { type Check, found, notApplicable, passed, verdictOf } from '../finding.ts';
import { names, type Observations } from '../reading.ts';

const DEV = '/dev';
const REPORT = '/sys/kernel/config/tsm/report';
const DEVICES: readonly string[] = ['sev-guest', 'tdx_guest', 'uv'];
const TSM = '/sys/class/tsm';

/** Interfaces through which evidence about the VM can be had. */
export function attestationInterfaces(observations: Observations): string[] {
  const dev = names(observations, DEV);
  const nodes = dev.state === 'listed' ? DEVICES.filter((name) => dev.names.includes(name)) : [];
  return [
    ...(names(observations, REPORT).state === 'listed' ? [REPORT] : []),
    ...nodes.map((name) => `${DEV}/${name}`),
    ...(names(observations, '/sys/devices/virtual/misc/tdx_guest').state === 'listed'
      ? ['/sys/devices/virtual/misc/tdx_guest']
      : []),
  ];
}

export const attestationChecks: readonly Check[] = [
  {
    id: 'attestation-missing',
    area: 'attestation',
    title: 'Nothing here can ask the platform for an attestation report',
    severity: 'medium',
    elsewhere: null,
    looksAt: [REPORT, ...DEVICES.map((name) => `${DEV}/${name}`)],
    why: 'Without a report nobody outside can tell this VM from one that the host made up, and no key broker should give it a key.',
    fix: 'Load the driver (modprobe sev-guest, tdx-guest or arm-cca-guest) and mount configfs on /sys/kernel/config.',
    reference: 'Documentation/ABI/testing/configfs-tsm-report',
    run: (observations, machine) => {
      if (machine.confidential === 'sev' || machine.confidential === 'sev-es') {
        return notApplicable('SEV and SEV-ES attest at launch only');
      }
      const there = attestationInterfaces(observations);
      if (there.length > 0) return passed(...there.map((path) => evidence(path, 'present')));
      const report = names(observations, REPORT);
      // Realms have no device node: without configfs nothing can be seen.
      if (machine.confidential === 'cca' && report.state === 'unknown') return report;
      const dev = names(observations, DEV);
      if (dev.state !== 'listed') return dev.state === 'unknown' ? dev : notApplicable('no /dev');
      return found(evidence(DEV, `no ${DEVICES.join(', ')}`), evidence(REPORT, 'not there'));
    },
  },
  {
    id: 'device-attestation-missing',
    area: 'attestation',
    title: 'The kernel cannot attest devices',
    severity: 'info',
    elsewhere: null,
    looksAt: [TSM],
    why: 'Without a TSM no device can be proven, so none can have more than shared memory. No kernel release does this in guests yet.',
    fix: 'Nothing to do; rules with require: { identity: attested } deny on this kernel.',
    reference: 'Documentation/ABI/testing/sysfs-class-tsm',
    run: (observations) => {
      const tsm = names(observations, TSM);
      if (tsm.state === 'unknown') return tsm;
      const there = tsm.state === 'listed' ? tsm.names : [];
      return verdictOf(
        there.length === 0 ? [evidence(TSM, tsm.state === 'listed' ? 'empty' : 'absent')] : [],
        there.map((name) => evidence(`${TSM}/${name}`, 'present')),
      );
    },
  },
];
