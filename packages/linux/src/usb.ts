/** USB devices: /sys/bus/usb/devices, interfaces as inner nodes of their device. */
import type { SysfsNode } from '@airlock/core/device.ts';
import { known, parseBareHex, parseSerial } from './attribute.ts';
import type { BusEntry } from './bus.ts';
import type { DeviceReader } from './device-reader.ts';
import { type Draft, parseModalias } from './pci.ts';

/** `usb1`, `1-2`, `1-2.4`: a device, not one of its interfaces. */
export function isUsbDevice(name: string): boolean {
  return !name.includes(':');
}

/** The device of an interface (`1-2:1.0`; a root hub's is `1-0:1.0`). */
export function usbDeviceOf(interfaceName: string): string {
  const device = interfaceName.slice(0, interfaceName.indexOf(':'));
  return device.endsWith('-0') ? `usb${device.slice(0, -2)}` : device;
}

/** Base classes of usb.org's list by the words that policies use. */
const USB_TYPES: Readonly<Record<number, string>> = {
  1: 'audio',
  2: 'communication',
  3: 'hid',
  6: 'image',
  7: 'printer',
  8: 'storage',
  9: 'hub',
  10: 'communication',
  11: 'smart-card',
  14: 'video',
  15: 'health',
  16: 'audio-video',
  17: 'billboard',
  18: 'type-c-bridge',
  220: 'diagnostic',
  224: 'wireless',
  239: 'miscellaneous',
  254: 'application',
  255: 'vendor-specific',
};

/** The word for a USB class code; null for 0, which says "see the interfaces". */
export function usbTypeName(code: number): string | null {
  return code === 0 ? null : (USB_TYPES[code] ?? `class-${code.toString(16).padStart(2, '0')}`);
}

/** One USB device; `interfaces` are its entries, each with its own reader. */
export async function readUsbDevice(
  reader: DeviceReader,
  entry: BusEntry,
  interfaces: readonly { readonly entry: BusEntry; readonly reader: DeviceReader }[],
): Promise<Draft> {
  const draft: Draft = {
    id: `usb:${entry.name}`,
    bus: 'usb',
    transport: null,
    location: entry.name,
    path: entry.path,
    nodes: [],
    type: null,
    subsystem: null,
    iommu: null,
    sriov: null,
    interfaces: [],
    faults: reader.faults,
  };
  if (entry.strange) {
    reader.fault('.', 'name-malformed', `${entry.name} is no USB device name; the device was not read`);
    draft.nodes = [{ bus: 'usb', name: entry.name, driver: null }];
    return draft;
  }
  const byte = (text: string) => parseBareHex(text, 2);
  const number = (text: string) => parseBareHex(text, 4);
  const vendor = await reader.value('idVendor', number, 'needed');
  const device = await reader.value('idProduct', number, 'needed');
  const revision = await reader.value('bcdDevice', number);
  const base = await reader.value('bDeviceClass', byte, 'needed');
  const sub = await reader.value('bDeviceSubClass', byte);
  const protocol = await reader.value('bDeviceProtocol', byte);
  const driver = await reader.driver();
  const serial = await reader.optional('serial', parseSerial);
  const inner: { node: SysfsNode; type: string | null; modalias: string | undefined }[] = [];
  for (const each of interfaces) {
    inner.push({
      node: { bus: 'usb', name: each.entry.name, driver: await each.reader.driver() },
      type: usbTypeName((await each.reader.value('bInterfaceClass', byte)) ?? 0),
      modalias: await each.reader.value('modalias', parseModalias),
    });
  }
  // Bound interfaces last: the innermost node tells whether programs reach the device.
  const nodes = inner.map(({ node }) => node);
  draft.nodes = [
    { bus: 'usb', name: entry.name, driver },
    ...nodes.filter((node) => node.driver === null),
    ...nodes.filter((node) => node.driver !== null),
  ];
  const classCode =
    base === undefined || sub === undefined || protocol === undefined
      ? undefined
      : base * 0x10000 + sub * 0x100 + protocol;
  const modalias = inner[0]?.modalias;
  Object.assign(draft, known({ vendor, device, revision, class: classCode, serial, modalias }));
  draft.type =
    (base === 239 || base === undefined ? null : usbTypeName(base)) ?? inner[0]?.type ?? usbTypeName(base ?? 0);
  return draft;
}
