/**
 * What `lspci -vvv -xxxx` says of a function in a guest: the configuration space as the program reads it that people
 * read it with, which knows nothing of ours. Pure.
 */

/**
 * Words of pciutils for what it cannot make sense of, and of the kernel for what it could not assign. One is none: of
 * VIRTIO's vendor capabilities pciutils 3.13 has names for four, and prints `VirtIO: <unknown>` for PCI_CFG and for
 * shared memory, also of QEMU's own devices.
 */
const COMPLAINTS: readonly RegExp[] = [
  /!!!/, // "!!! Invalid class", "!!! Unknown header type", "!!! Header type ... doesn't match"
  /<access denied>|<chain looped>|<chain broken>|<unreadable>|<unassigned>|<ignored>|<invalid|<broken/,
  /unknown header|Unknown header|(?<!Vendor Specific Information: VirtIO: )<unknown>|\[virtual\]|\[disabled\]|\[size=\?\]/,
  /Unknown (?:small|large|bridge|ID)|Unknown capability|Extended Capability ID|rev [0-9]+ <\?>|<\?>/,
  /Capabilities: \[[0-9a-f]+(?: v[0-9a-f]+)?\] #[0-9a-f]+/,
  /^(?:lspci|pcilib):/,
];

export interface PciListing {
  /** One line for each capability, as it was decoded. */
  readonly capabilities: readonly string[];
  /** Bytes of configuration space that were dumped. */
  readonly dumped: number;
  /** Lines that say that something cannot be made sense of. */
  readonly complaints: readonly string[];
}

/** Reads what lspci wrote of one function; both its outputs, for it complains on the second. */
export function readPciListing(text: string): PciListing {
  const lines = text.split('\n').map((line) => line.trim());
  return {
    capabilities: lines.flatMap((line) => /^Capabilities: (\[.*)$/.exec(line)?.[1] ?? []),
    dumped: 16 * lines.filter((line) => /^[0-9a-f]{2,3}:(?: [0-9a-f]{2}){16}$/.test(line)).length,
    complaints: lines.filter((line) => COMPLAINTS.some((complaint) => complaint.test(line))),
  };
}

/** Capabilities that lspci is to find in every function of ours, by what it calls them; one more for a shared window. */
export const VIRTIO_CAPABILITIES: readonly RegExp[] = [
  /^\[40\] Express \(v2\) Endpoint/,
  /Power Management version 3$/,
  /MSI-X: Enable[+-] Count=[0-9]+ Masked-$/,
  ...['CommonCfg', 'ISR', 'DeviceCfg', 'Notify', '<unknown>'].map((name) => new RegExp(`VirtIO: ${name}$`)),
];
