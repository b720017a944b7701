/** Addresses of the user-mode network. They are QEMU's, so that what works there works here. */

/** 10.0.2.2: gateway, DHCP server, and every service there is. */
export const GATEWAY = 0x0a00_0202;
/** 10.0.2.15: the one address that is given. */
export const GUEST = 0x0a00_020f;
export const NETMASK = 0xffff_ff00;
export const BROADCAST = 0xffff_ffff;
export const GATEWAY_MAC = Uint8Array.of(0x52, 0x55, 0x0a, 0x00, 0x02, 0x02);
export const BROADCAST_MAC = new Uint8Array(6).fill(0xff);

/** May an answer go to this address? Not to groups, to everybody, or to nobody. */
export function isHost(address: number): boolean {
  return address !== 0 && address < 0xe000_0000 && (address & ~NETMASK) >>> 0 !== 0xff;
}
