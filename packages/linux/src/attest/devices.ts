/** Devices that can prove who they are, and how they are asked. */
import { asciiText } from '@airlock/core/bytes.ts';
import { doeCapabilities } from '../doe-mailbox.ts';
import type { Files } from '../files.ts';
import { parseTsmName } from '../tsm.ts';

export const PCI_DEVICES = '/sys/bus/pci/devices';
const FUNCTION_LIMIT = 4096;
const EXTENDED_CONFIG = 4096;
const NAME = /^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/;
/** SPDM without and within sessions: DOE features of the PCI-SIG, as Linux 6.18 and later list them. */
const CMA_SPDM = '0001:01';
const NVIDIA = '0x10de';
/** Display controllers of every sort, and bridges of the sort that switches are. */
const NVIDIA_CLASSES = /^0x(?:03|0680)/;

export interface AttestableFunctions {
  /** PCI functions with a DOE mailbox that speaks SPDM, or may: `0000:01:00.0`. */
  readonly spdm: readonly string[];
  /** PCI functions that a TSM of the kernel's holds for this VM, with or without a mailbox of their own. */
  readonly held: readonly string[];
  /** GPUs and switches of NVIDIA, which answer their driver alone. */
  readonly nvidia: readonly string[];
  readonly functions: number;
  /** The extended configuration space of this many could not be read, and their kernel lists no DOE features. */
  readonly unseen: number;
}

/** Reads only. Where the kernel lists what a mailbox speaks it is believed; else the capability in configuration space counts. */
export async function findAttestableFunctions(files: Files): Promise<AttestableFunctions> {
  const listed = await files.list(PCI_DEVICES);
  const names = listed.ok ? listed.value.filter((name) => NAME.test(name)).slice(0, FUNCTION_LIMIT) : [];
  const spdm: string[] = [];
  const held: string[] = [];
  const nvidia: string[] = [];
  let unseen = 0;
  for (const name of names) {
    const path = `${PCI_DEVICES}/${name}`;
    const features = await files.list(`${path}/doe_features`);
    if (features.ok) {
      if (features.value.includes(CMA_SPDM)) spdm.push(name);
    } else {
      const config = await files.readAt(`${path}/config`, 0, EXTENDED_CONFIG);
      // A plain PCI function has 256 bytes; who is not root sees 64.
      if (!config.ok || config.value.length < 256) unseen++;
      else if (doeCapabilities(config.value).length > 0) spdm.push(name);
    }
    const lock = await files.read(`${path}/tsm/lock`, 64);
    if (lock.ok && typeof parseTsmName(asciiText(lock.value)) === 'string') held.push(name);
    const [vendor, kind] = [await files.read(`${path}/vendor`, 16), await files.read(`${path}/class`, 16)];
    const own = vendor.ok && asciiText(vendor.value).trim() === NVIDIA;
    if (own && kind.ok && NVIDIA_CLASSES.test(asciiText(kind.value))) nvidia.push(name);
  }
  return { spdm, held, nvidia, functions: names.length, unseen };
}
