/** TCB_VERSION: the security versions of AMD's firmware parts, eight bytes. AMD 56860, TCB_VERSION. */
import type { SnpProduct } from './product.ts';

export const TCB_PARTS = ['fmc', 'bootloader', 'tee', 'snp', 'microcode'] as const;
export type TcbPart = (typeof TCB_PARTS)[number];
/** A part that the product does not have is not there. */
export type Tcb = Readonly<Partial<Record<TcbPart, number>>>;

/** Byte of each part; from Turin on the firmware's first stage (FMC) stands first. */
const MILAN: Tcb = { bootloader: 0, tee: 1, snp: 6, microcode: 7 };
const TURIN: Tcb = { fmc: 0, bootloader: 1, tee: 2, snp: 3, microcode: 7 };

export function tcbLayout(product: SnpProduct): Tcb {
  return product === 'Turin' ? TURIN : MILAN;
}

export function readTcb(raw: Uint8Array, product: SnpProduct): Tcb {
  const at = (index: number) => raw[index] ?? 0;
  return product === 'Turin'
    ? { fmc: at(0), bootloader: at(1), tee: at(2), snp: at(3), microcode: at(7) }
    : { bootloader: at(0), tee: at(1), snp: at(6), microcode: at(7) };
}

/** Parts of `tcb` below `floor`, in words; parts that `tcb` does not have count as 0. */
export function partsBelow(tcb: Tcb, floor: Tcb): string[] {
  return TCB_PARTS.flatMap((part) => {
    const [have, want] = [tcb[part] ?? 0, floor[part]];
    return want !== undefined && have < want ? [`${part} ${have} < ${want}`] : [];
  });
}

export function sameTcb(a: Tcb, b: Tcb): boolean {
  return TCB_PARTS.every((part) => a[part] === b[part]);
}

/** `bootloader 4, tee 0, snp 24, microcode 219` */
export function tcbText(tcb: Tcb): string {
  return TCB_PARTS.flatMap((part) => (tcb[part] === undefined ? [] : [`${part} ${tcb[part]}`])).join(', ');
}
