/** The virtio bus: /sys/bus/virtio/devices, each joined to the function or platform device that carries it. */
import { featureName, virtioTypeName } from '@airlock/core/virtio.ts';
import { parseFeatureBits, parseHex } from './attribute.ts';
import type { BusEntry } from './bus.ts';
import type { DeviceReader } from './device-reader.ts';
import type { Draft } from './pci.ts';

/**
 * Adds the virtio half to the device that carries it: node, type, and, while a driver is bound, the negotiated features
 * and (`full`) the status. Unbound, `features` is all zeros or what an earlier driver left: nothing is taken from it.
 */
export async function joinVirtio(reader: DeviceReader, entry: BusEntry, carrier: Draft, full: boolean): Promise<void> {
  const overPci = carrier.nodes[0]?.bus === 'pci';
  if (overPci) {
    // Its own ids may not have been readable; what lies below it shows what it is.
    carrier.bus = 'virtio';
    carrier.transport = 'pci';
  }
  const id = await reader.value('device', (text) => parseHex(text, 4), 'needed');
  const vendor = overPci ? undefined : await reader.value('vendor', (text) => parseHex(text, 8));
  const driver = await reader.driver();
  carrier.nodes = [...carrier.nodes, { bus: 'virtio', name: entry.name, driver }];
  if (id !== undefined && id !== 0) {
    if (carrier.virtioId !== undefined && carrier.virtioId !== id) {
      reader.fault('device', 'attribute-contradiction', `type ${id} here, ${carrier.virtioId} by its PCI ids`);
    }
    // Drivers match on this id, so it is the one that counts.
    carrier.virtioId = id;
    carrier.type = virtioTypeName(id);
    if (!overPci) carrier.device = id;
  }
  if (vendor !== undefined) carrier.vendor = vendor;
  if (driver === null) return;
  const bits = await reader.value('features', parseFeatureBits);
  const status = full ? await reader.value('status', (text) => parseHex(text, 8)) : undefined;
  const type = carrier.type;
  if (bits !== undefined) carrier.features = { negotiated: bits.map((bit) => featureName(type, bit)) };
  if (status !== undefined) carrier.status = status;
}
