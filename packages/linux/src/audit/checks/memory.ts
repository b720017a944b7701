/** The VM's memory: is it encrypted, and do devices reach it only through bounce buffers. */
import { commandLine, optionEvidence, words } from '../command-line.ts';
import { type Evidence, evidence } from '../evidence.ts';
import { type Check, found, notApplicable, passed, REFERENCES, unknown, verdictOf } from '../finding.ts';
import { CONFIDENTIAL_NAMES } from '../machine.ts';
import { fact, kernelLog, logIsWhole } from '../reading.ts';

const NSLABS = '/sys/kernel/debug/swiotlb/io_tlb_nslabs';
/** IO_TLB_SIZE: 2 KiB a slot. */
const SLOT_KIB = 2;

function matchingLines(text: string, pattern: RegExp): string[] {
  return text.split('\n', 20_000).filter((line) => pattern.test(line));
}

export const memoryChecks: readonly Check[] = [
  {
    id: 'memory-not-encrypted',
    area: 'memory',
    title: 'Memory is not encrypted against the host',
    severity: 'critical',
    elsewhere: 'info',
    looksAt: ['/proc/cpuinfo', '/sys/devices/platform/sev-guest', '/sys/firmware/uv/prot_virt_guest', 'kernel log'],
    why: 'Whoever runs the host can read and change everything that this machine holds in memory; no device policy helps against that.',
    fix: 'Start it as a confidential VM (SEV-SNP, TDX, Secure Execution or CCA) where its secrets must be kept from the host.',
    reference: REFERENCES.threatModel,
    run: (_observations, machine) => {
      if (machine.confidential === 'unknown') {
        return unknown(machine.missing?.path ?? '/proc/cpuinfo', machine.missing?.because ?? 'not known');
      }
      if (machine.virtual === false) return notApplicable('not a virtual machine: there is no host below it');
      const [first, ...more] = machine.how;
      if (machine.confidential !== 'none') return passed(...machine.how);
      return first === undefined ? unknown('/proc/cpuinfo', 'not seen') : found(first, ...more);
    },
  },
  {
    id: 'sev-without-integrity',
    area: 'memory',
    title: 'An old generation of SEV: memory is encrypted, but its integrity is not protected',
    severity: 'high',
    elsewhere: null,
    looksAt: ['kernel log'],
    why: 'Under SEV and SEV-ES the host can remap, replay or corrupt encrypted pages, and under plain SEV it sees the registers too.',
    fix: 'Start the VM with SEV-SNP.',
    reference: 'Documentation/arch/x86/amd-memory-encryption.rst',
    run: (_observations, { confidential, how }) => {
      if (confidential === 'unknown') return unknown('kernel log', 'the kind of confidential VM is not known');
      if (confidential === 'none') return notApplicable('not a confidential VM');
      const [first, ...more] = how;
      return (confidential === 'sev' || confidential === 'sev-es') && first !== undefined
        ? found(first, ...more)
        : passed(evidence('kind', CONFIDENTIAL_NAMES[confidential]));
    },
  },
  {
    id: 'td-debug',
    area: 'memory',
    title: 'The trust domain was started with the DEBUG attribute',
    severity: 'critical',
    elsewhere: null,
    looksAt: ['kernel log'],
    why: 'The host can read and write the private memory and registers of a debug TD through the TDX module.',
    fix: 'Start the TD without the DEBUG attribute, and have the verifier of its quote refuse such TDs.',
    reference: 'Documentation/arch/x86/tdx.rst',
    run: (observations, machine) => {
      if (machine.confidential !== 'tdx') return notApplicable('not a TDX guest');
      const log = kernelLog(observations);
      if (log.state !== 'read') return unknown('kernel log', log.state === 'unknown' ? log.because : 'not there');
      const lines = matchingLines(log.text, /\btdx: Attributes:/);
      if (lines.length === 0)
        return unknown(log.path, 'this kernel does not print the attributes, or the line is lost');
      return verdictOf(
        lines.filter((line) => /\bDEBUG\b/.test(line)).map((line) => evidence(log.path, line)),
        lines.map((line) => evidence(log.path, line)),
      );
    },
  },
  {
    id: 'swiotlb-disabled',
    area: 'memory',
    title: 'Bounce buffers are switched off',
    severity: 'high',
    elsewhere: 'info',
    looksAt: ['/proc/cmdline', NSLABS],
    why: 'In a confidential VM devices can reach shared memory only. Without swiotlb the kernel has no shared pool to bounce their data through: I/O fails, or hands devices addresses of private memory. swiotlb=noforce is for debugging.',
    fix: 'Remove swiotlb=noforce (or a size of 0) from the kernel command line; the kernel then sizes the pool by itself.',
    reference: 'Documentation/core-api/swiotlb.rst',
    run: (observations) => {
      const line = commandLine(observations);
      const slots = fact(observations, NSLABS);
      const seen: Evidence[] = [];
      const wrong: Evidence[] = [];
      if (line.state === 'read') {
        const option = optionEvidence(line, ['swiotlb']);
        (words(line, 'swiotlb').includes('noforce') ? wrong : seen).push(option);
      }
      if (slots.state === 'read' && /^\d{1,10}$/.test(slots.text)) {
        const count = Number(slots.text);
        const size = evidence(NSLABS, `${count} slots (${(count * SLOT_KIB) / 1024} MiB)`);
        (count === 0 ? wrong : seen).push(size);
      }
      return line.state === 'read' || wrong.length > 0 ? verdictOf(wrong, seen) : line;
    },
  },
  {
    id: 'swiotlb-exhausted',
    area: 'memory',
    title: 'The bounce buffers have been full',
    severity: 'low',
    elsewhere: 'info',
    looksAt: ['kernel log'],
    why: 'I/O failed for want of bounce buffers. A host or device can bring that about at will, and programs seldom handle it well.',
    fix: 'Make the pool larger: swiotlb=SLOTS, 2 KiB each (swiotlb=262144 is 512 MiB).',
    reference: 'Documentation/core-api/swiotlb.rst',
    run: (observations) => {
      const log = kernelLog(observations);
      if (log.state !== 'read') return unknown('kernel log', log.state === 'unknown' ? log.because : 'not there');
      const full = matchingLines(log.text, /swiotlb buffer is full/);
      if (full.length === 0 && !logIsWhole(log.text)) return unknown(log.path, 'its beginning is lost');
      return verdictOf(
        full.map((text) => evidence(log.path, text)),
        [evidence(log.path, 'no "swiotlb buffer is full"')],
      );
    },
  },
];
