/** How `list` and `info` write devices for people: aligned, names over numbers, nothing that a device sent unescaped. */
import type { Device, KernelFacts } from '@airlock/core/device.ts';
import { isBound } from '@airlock/core/device.ts';
import { pciClassName } from '@airlock/core/pci-class.ts';
import { printable } from '@airlock/linux/attribute.ts';

export interface Paint {
  readonly bold: (text: string) => string;
  readonly dim: (text: string) => string;
  readonly red: (text: string) => string;
  readonly yellow: (text: string) => string;
}

/** ANSI colours on a terminal, plain text elsewhere. */
export function paintFor(terminal: boolean): Paint {
  const wrap = (code: number) => (text: string) => (terminal ? `\x1b[${code}m${text}\x1b[0m` : text);
  return { bold: wrap(1), dim: wrap(2), red: wrap(31), yellow: wrap(33) };
}

/** Rows with columns as wide as their widest cell; the last column is as it comes. Empty columns are left out. */
export function alignRows(rows: readonly (readonly string[])[]): string[] {
  const [header = []] = rows;
  const used = header.map((_, i) => rows.slice(1).some((row) => (row[i] ?? '') !== ''));
  const widths = header.map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0)));
  return rows.map((row) =>
    row
      .flatMap((cell, i) => (used[i] === true ? [cell.padEnd(widths[i] ?? 0)] : []))
      .join('  ')
      .trimEnd(),
  );
}

/** `virtio block`, `ethernet`, `usb hub`, `serial`; of SR-IOV also which function it is: `ethernet, VF 1`. */
export function whatIs(device: Device): string {
  return `${typeOf(device)}${roleOf(device)}`;
}

function roleOf({ sriov }: Device): string {
  if (sriov === undefined || sriov === null) return '';
  if (sriov.role === 'virtual') return sriov.index === undefined ? ', a VF' : `, VF ${sriov.index}`;
  return `, PF with ${sriov.enabled ?? '?'} of ${sriov.total ?? '?'} VFs`;
}

function typeOf(device: Device): string {
  const type = device.type ?? 'unknown type';
  if (device.bus === 'virtio') return `virtio ${type}`;
  if (device.bus === 'vdpa') return `vdpa ${type}`;
  if (device.bus === 'usb') return `usb ${type}`;
  if (device.bus === 'pci' && typeof device.class === 'number') return pciClassName(device.class);
  return type;
}

/** The driver that serves it, or the one that only carries it in brackets, or nothing. */
export function driverOf(device: Device): string {
  const inner = device.nodes[device.nodes.length - 1]?.driver ?? null;
  if (inner !== null && isBound(device)) return printable(inner);
  const carrier = device.nodes.find(({ driver }) => driver !== null)?.driver;
  return typeof carrier === 'string' ? `- [${printable(carrier)}]` : '-';
}

/** `vda, nvme0`: what programs know it by, without the class, and its serial number in quotes. */
export function usedAs(device: Device): string {
  const names = device.interfaces.map((name) => name.slice(name.indexOf('/') + 1));
  const shown = names.length > 3 ? `${names.slice(0, 2).join(', ')} and ${names.length - 2} more` : names.join(', ');
  const serial = typeof device.serial === 'string' ? `"${device.serial}"` : '';
  return printable([shown, serial].filter((text) => text !== '').join(' '));
}

/** `1af4:1042` */
export function idsOf(device: Device): string {
  return device.vendor === undefined || device.device === undefined || device.transport === 'mmio'
    ? ''
    : `${hex(device.vendor, 4)}:${hex(device.device, 4)}`;
}

export function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0');
}

/** Words in lines of at most `width` columns, all but the first indented by `indent`. */
export function wrapWords(words: readonly string[], width: number, indent: number): string {
  const lines: string[] = [];
  let line = '';
  for (const word of words) {
    if (line !== '' && line.length + 1 + word.length > Math.max(20, width - indent)) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  return [...lines, line].join(`\n${' '.repeat(indent)}`);
}

const CONFIDENTIAL = {
  sev: 'AMD SEV',
  'sev-es': 'AMD SEV-ES',
  'sev-snp': 'AMD SEV-SNP',
  tdx: 'Intel TDX',
  cca: 'Arm CCA',
  'secure-execution': 'IBM Secure Execution',
} as const;

/** `Linux 7.2.12, Intel TDX` */
export function kernelLine(kernel: KernelFacts): string {
  const kind = kernel.confidential === null ? 'no confidential VM that it tells of' : CONFIDENTIAL[kernel.confidential];
  return `Linux ${printable(kernel.release === '' ? 'of unknown release' : kernel.release)}, ${kind}`;
}
