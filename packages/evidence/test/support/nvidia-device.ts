/** A made-up NVIDIA device with its own root, that answers any nonce. */
import { createHash, sign } from 'node:crypto';
import { issue, rootOf, type Signer, signer } from './authority.ts';
import { integer, join, octets, oid, sequence } from './der.ts';

const firmware = new Uint8Array(createHash('sha384').update('firmware').digest());
const u16 = (value: number) => Uint8Array.of(value & 0xff, value >> 8);
const field = (number: number, value: Uint8Array) => join(u16(number), u16(value.length), value);
export const nvidiaRoot = signer('NVIDIA Device Identity CA');
export const nvidiaRoots = [rootOf(nvidiaRoot)];
const rootDer = issue({ subject: nvidiaRoot, issuer: nvidiaRoot, authority: {}, keyUsage: 6 }).der;

export interface NvidiaDevice {
  readonly key: Signer;
  /** DER, one after the other. */
  readonly certificates: Uint8Array;
  answer(nonce: Uint8Array): Uint8Array;
}

export function nvidiaDevice(name = 'GH100 A01 GSP FMC LF'): NvidiaDevice {
  const key = signer(name);
  const fwid = sequence(oid('2.16.840.1.101.3.4.2.2'), octets(firmware));
  const extensions = [{ oid: '2.23.133.5.4.1', value: sequence(integer(0), key.spki, fwid) }];
  const leaf = issue({ subject: key, issuer: nvidiaRoot, keyUsage: 0x80, extensions });
  return {
    key,
    certificates: join(leaf.der, rootDer),
    answer(nonce) {
      const value = new Uint8Array(48).fill(1);
      const record = join(Uint8Array.of(1, 1), u16(51), Uint8Array.of(1), u16(48), value);
      const opaque = join(field(3, Buffer.from('550.1\0')), field(20, firmware));
      const signed = join(
        ...[Uint8Array.of(0x11, 0xe0, 1, 0xff), nonce, Uint8Array.of(0)],
        ...[Uint8Array.of(0x11, 0x60, 0, 0, 1), u16(record.length), Uint8Array.of(0), record],
        ...[new Uint8Array(32), u16(opaque.length), opaque],
      );
      return join(signed, new Uint8Array(sign('sha384', signed, { key: key.key, dsaEncoding: 'ieee-p1363' })));
    },
  };
}
