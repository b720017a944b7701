/** How a device can prove who it is, and what the kernel's TSM says of it, in words. */
import type { Device, TsmDevice } from '@airlock/core/device.ts';

/** What the kernel says of a function: `tsm0: locked, accepted`; empty where it says nothing. */
export function tsmText({ tsm }: Device): string {
  if (tsm === undefined) return '';
  const { connected, bound, locked, accepted, authenticated } = tsm;
  if (authenticated === '1' || authenticated === '0')
    return authenticated === '1' ? 'kernel: authenticated' : 'kernel: authentication failed';
  const name = locked ?? bound ?? connected;
  if (name === null) return 'TSM: not connected';
  // The kernel's names only: everything else was refused when it was read.
  if (name === undefined) return '';
  const states = [
    ...(typeof connected === 'string' ? ['connected'] : []),
    ...(typeof bound === 'string' ? ['bound to a VM'] : []),
    ...(typeof locked === 'string' ? ['locked'] : []),
    ...(accepted === true ? ['accepted'] : []),
  ];
  return `${name}: ${states.join(', ')}`;
}

/** `spdm`: the functions with a mailbox for SPDM. */
export function proofOf(device: Device, spdm: ReadonlySet<string>): string {
  const ways = [spdm.has(device.location) && device.id.startsWith('pci:') ? 'SPDM' : '', tsmText(device)];
  return ways.filter((way) => way !== '').join('; ');
}

/** `tsm0 (locks devices for this VM)`; what none means to whoever asks. */
export function tsmsText(tsms: readonly TsmDevice[] | undefined): string {
  if (tsms === undefined || tsms.length === 0)
    return 'this kernel has no TSM (/sys/class/tsm), so no device can be locked to this machine';
  const modes = {
    link: 'sets up link encryption',
    devsec: 'locks devices for this VM',
    none: 'does nothing for PCI',
  } as const;
  return tsms
    .map(({ name, mode }) => `${name} (${mode === undefined ? 'does not tell what it does' : modes[mode]})`)
    .join(', ');
}
