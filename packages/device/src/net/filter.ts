/** Which frames a driver wants to see. VIRTIO 1.4 §5.1.6.5.1 to §5.1.6.5.3. */
import { ETHERNET_HEADER, type Frame } from './frame.ts';
import { ETHER_VLAN } from './packet.ts';

/** Addresses of a table that are kept; a longer table means all of its kind, as QEMU has it. */
export const TABLE_LIMIT = 64;
const BROADCAST = 0xffff_ffff_ffff;
const VLANS = 4096;

export class Filter {
  // A driver that sets nothing gets everything.
  promiscuous = true;
  allMulticast = false;
  allUnicast = false;
  noMulticast = false;
  noUnicast = false;
  noBroadcast = false;
  /** Are VLANs filtered? */
  vlans = false;
  private readonly vlanTable = new Uint8Array(VLANS);
  private address = 0;
  private readonly unicast = new Set<number>();
  private readonly multicast = new Set<number>();
  private unicastOverflow = false;
  private multicastOverflow = false;

  /** As after a reset, with the device's own address. */
  reset(mac: Uint8Array): void {
    this.promiscuous = true;
    this.allMulticast = false;
    this.allUnicast = false;
    this.noMulticast = false;
    this.noUnicast = false;
    this.noBroadcast = false;
    this.vlans = false;
    this.vlanTable.fill(0);
    this.setTable('unicast', []);
    this.setTable('multicast', []);
    this.setAddress(mac);
  }

  setAddress(mac: Uint8Array): void {
    this.address = macNumber(new DataView(mac.buffer, mac.byteOffset, mac.byteLength), 0);
  }

  /** The whole table anew; null for one that is too long to keep. */
  setTable(kind: 'unicast' | 'multicast', addresses: readonly number[] | null): void {
    const table = kind === 'unicast' ? this.unicast : this.multicast;
    table.clear();
    for (const address of addresses ?? []) table.add(address);
    if (kind === 'unicast') this.unicastOverflow = addresses === null;
    else this.multicastOverflow = addresses === null;
  }

  setVlan(id: number, wanted: boolean): void {
    if (id >= 0 && id < VLANS) this.vlanTable[id] = wanted ? 1 : 0;
  }

  /** Does the driver want this frame? */
  accepts(frame: Frame): boolean {
    if (this.promiscuous) return true;
    const { view, start, length } = frame;
    if (length < ETHERNET_HEADER) return false;
    if (this.vlans && view.getUint16(start + 12) === ETHER_VLAN) {
      if (length < ETHERNET_HEADER + 4) return false;
      if (this.vlanTable[view.getUint16(start + 14) & (VLANS - 1)] === 0) return false;
    }
    const target = macNumber(view, start);
    if (target === this.address) return !this.noUnicast;
    if (target === BROADCAST) return !this.noBroadcast;
    if ((view.getUint8(start) & 1) !== 0) {
      if (this.noMulticast) return false;
      return this.allMulticast || this.multicastOverflow || this.multicast.has(target);
    }
    if (this.noUnicast) return false;
    return this.allUnicast || this.unicastOverflow || this.unicast.has(target);
  }
}

/** The 48 bits of an address as a number. */
export function macNumber(view: DataView, at: number): number {
  return view.getUint16(at) * 4_294_967_296 + view.getUint32(at + 2);
}
