/** The few things that change without an event, read every few seconds: VIRTIO status, and who a function says it is. */
import { asciiText, hex } from '@airlock/core/bytes.ts';
import type { Device, Inventory } from '@airlock/core/device.ts';
import { parseHex } from '@airlock/linux/attribute.ts';
import type { Files } from '@airlock/linux/files.ts';
import { mapBounded } from '@airlock/linux/map-bounded.ts';

export interface Vitals {
  readonly device: string;
  /** Absent when no driver is bound to a virtio device, or it could not be read. */
  readonly status?: number;
  /** Did it not answer in time? */
  readonly held: boolean;
  /** For PCI functions that answer; compared as text. */
  readonly header?: string;
}

/** Reads that may be under way at a time: a device that holds one holds a thread. */
const WIDTH = 4;
const DEVICES_LIMIT = 512;
const HEADER_LENGTH = 64;

/** Of the devices of `inventory` that are in `connected`: nobody talks to the others. */
export async function readVitals(
  files: Files,
  inventory: Inventory,
  connected: ReadonlySet<string>,
): Promise<readonly Vitals[]> {
  const devices = inventory.devices.filter(({ id }) => connected.has(id)).slice(0, DEVICES_LIMIT);
  return mapBounded(devices, WIDTH, (device) => readOne(files, device));
}

async function readOne(files: Files, device: Device): Promise<Vitals> {
  const inner = device.nodes[device.nodes.length - 1];
  let held = false;
  let status: number | undefined;
  if (inner?.bus === 'virtio' && inner.driver !== null) {
    const bytes = await files.read(`/sys/bus/virtio/devices/${inner.name}/status`, 64);
    if (bytes.ok) status = parseHex(asciiText(bytes.value), 8);
    else held = bytes.error.code === 'file-timeout';
  }
  let header: string | undefined;
  const outer = device.nodes[0];
  if (!held && outer?.bus === 'pci') {
    const bytes = await files.readAt(`/sys/bus/pci/devices/${outer.name}/config`, 0, HEADER_LENGTH);
    if (bytes.ok) header = identityOf(bytes.value);
    else held = bytes.error.code === 'file-timeout';
  }
  return {
    device: device.id,
    held,
    ...(status === undefined ? {} : { status }),
    ...(header === undefined ? {} : { header }),
  };
}

/**
 * Vendor, device, revision, class and (of an endpoint) subsystem, from configuration space and not from what the kernel
 * remembers. Undefined for a function that does not answer, and for virtual functions, whose ids read as all ones. PCIe
 * 6.0 §7.5.1.
 */
function identityOf(config: Uint8Array): string | undefined {
  if (config.length < HEADER_LENGTH) return undefined;
  const vendor = hex(config.slice(0, 2));
  if (vendor === 'ffff' || vendor === '0000') return undefined;
  const endpoint = ((config[0x0e] ?? 0) & 0x7f) === 0;
  const subsystem = endpoint ? `, subsystem ${leHex(config, 0x2c)}:${leHex(config, 0x2e)}` : '';
  const revision = hex(config.slice(8, 9));
  const classCode = hex(config.slice(9, 12).reverse());
  return `${leHex(config, 0)}:${leHex(config, 2)} class ${classCode} revision ${revision}${subsystem}`;
}

function leHex(config: Uint8Array, at: number): string {
  return hex(config.slice(at, at + 2).reverse());
}
