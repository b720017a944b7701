/** What the running kernel is and allows, from files that an unprivileged reader has. */
import { asciiText } from '@airlock/core/bytes.ts';
import type { KernelFacts } from '@airlock/core/device.ts';
import { parseChosen, parseFlag, parseLine } from './attribute.ts';
import type { Files } from './files.ts';

/** Buses whose `drivers_autoprobe` plans may turn off. */
const GATED_BUSES = ['pci', 'virtio', 'vdpa', 'usb', 'platform'] as const;

/** Words of a kernel command line up to ` -- `, quotes taken off, as the kernel's next_arg() cuts them. */
export function splitCommandLine(cmdline: string): string[] {
  const words: readonly string[] = cmdline.slice(0, 65_536).match(/(?:[^\s"]+|"[^"]*(?:"|$))+/g) ?? [];
  const end = words.indexOf('--');
  return (end === -1 ? words : words.slice(0, end)).map((word) => word.replaceAll('"', ''));
}

/** Every value of a parameter in order; a bare `name` gives ''. Dash and underscore are one, as they are to the kernel. */
export function commandLineValues(cmdline: string, name: string): string[] {
  const wanted = name.replaceAll('-', '_');
  return splitCommandLine(cmdline).flatMap((word) => {
    const equals = word.indexOf('=');
    const key = equals === -1 ? word : word.slice(0, equals);
    return key.length === wanted.length && key.replaceAll('-', '_') === wanted ? [word.slice(key.length + 1)] : [];
  });
}

/** Never fails: a source that is missing leaves the fact at what claims least. */
export async function readKernelFacts(files: Files): Promise<KernelFacts> {
  const text = async (path: string): Promise<string> => {
    const bytes = await files.read(path);
    return bytes.ok ? asciiText(bytes.value) : '';
  };
  const [release, arch, cmdline, modules, lockdown, confidential, autoprobe] = await Promise.all([
    text('/proc/sys/kernel/osrelease'),
    text('/proc/sys/kernel/arch'),
    text('/proc/cmdline'),
    text('/proc/sys/kernel/modules_disabled'),
    text('/sys/kernel/security/lockdown'),
    readConfidential(files),
    Promise.all(
      GATED_BUSES.map(async (bus) => [bus, parseFlag(await text(`/sys/bus/${bus}/drivers_autoprobe`))] as const),
    ),
  ]);
  const line = parseLine(cmdline, 65_536) ?? '';
  return {
    release: parseLine(release, 128) ?? '',
    arch: parseLine(arch, 32) ?? '',
    confidential,
    autoprobe: Object.fromEntries(autoprobe.flatMap(([bus, on]) => (on === undefined ? [] : [[bus, on]]))),
    modulesDisabled: parseFlag(modules) ?? false,
    lockdown: lockdownMode(lockdown),
    swiotlb: swiotlbMode(line, confidential),
    cmdline: line,
  };
}

function lockdownMode(text: string): KernelFacts['lockdown'] {
  const mode = parseChosen(text);
  return mode === 'none' || mode === 'integrity' || mode === 'confidentiality' ? mode : null;
}

/**
 * `force` when every DMA of a device is bounced: by the command line, or because this VM's memory is encrypted (x86:
 * SWIOTLB_FORCE up to 7.2, force_dma_unencrypted() of every device from 7.3 on). `noforce` takes the buffers away.
 */
function swiotlbMode(cmdline: string, confidential: KernelFacts['confidential']): KernelFacts['swiotlb'] {
  const asked = commandLineValues(cmdline, 'swiotlb').flatMap((value) => value.split(','));
  if (asked.includes('noforce')) return 'off';
  return asked.includes('force') || confidential !== null ? 'force' : 'auto';
}

/**
 * Which kind of confidential VM the kernel says it runs in; null when none, and for plain SEV and SEV-ES, which the
 * kernel tells nowhere but in its log. What CPUID says of SEV is what the processor can do, so it is not asked.
 */
export async function readConfidential(files: Files): Promise<KernelFacts['confidential']> {
  // The kernel itself makes these, and only inside such a VM.
  const there = async (path: string) => (await files.list(path)).ok;
  if (
    (await there('/sys/bus/platform/devices/sev-guest')) ||
    (await files.read('/sys/devices/system/cpu/sev/vmpl')).ok
  ) {
    return 'sev-snp';
  }
  const protectedVirtualization = await files.read('/sys/firmware/uv/prot_virt_guest', 16);
  if (protectedVirtualization.ok && asciiText(protectedVirtualization.value).trim() === '1') return 'secure-execution';
  if ((await there('/sys/bus/platform/devices/arm-cca-dev')) || (await there('/sys/devices/faux/arm-cca-dev')))
    return 'cca';
  // The flag is synthetic: set once the TDX module answered, on every processor. One processor's text is enough.
  const processors = await files.readAt('/proc/cpuinfo', 0, 4096);
  const text = processors.ok ? String.fromCharCode(...processors.value) : '';
  return text.includes(' tdx_guest') && /^flags\s*:.* tdx_guest(?: |$)/m.test(text) ? 'tdx' : null;
}
