/** vdpa devices: /sys/bus/vdpa/devices. Of which VIRTIO type one is shows only once `virtio_vdpa` drives it. */
import type { BusEntry } from './bus.ts';
import type { DeviceReader } from './device-reader.ts';
import type { Draft } from './pci.ts';

/** One vdpa device; it stays on this bus when a virtio device grows from it, so that rules keep matching it. */
export async function readVdpaDevice(reader: DeviceReader, entry: BusEntry): Promise<Draft> {
  if (entry.strange) reader.fault('.', 'name-malformed', `${entry.name} is no device name; the device was not read`);
  return {
    id: `vdpa:${entry.name}`,
    bus: 'vdpa',
    transport: 'vdpa',
    location: entry.name,
    path: entry.path,
    nodes: [{ bus: 'vdpa', name: entry.name, driver: entry.strange ? null : await reader.driver() }],
    type: null,
    subsystem: null,
    class: null,
    revision: null,
    sriov: null,
    interfaces: [],
    faults: reader.faults,
  };
}
