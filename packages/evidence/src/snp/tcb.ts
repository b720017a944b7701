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

/** A fleet has few TCBs: the same value is the same object, and has one text. */
const read = new Map<string, Tcb>();
const READ_LIMIT = 256;

export function readTcb(raw: Uint8Array, product: SnpProduct): Tcb {
  const [a = 0, b = 0, c = 0, d = 0, , , e = 0, f = 0] = raw;
  const turin = product === 'Turin';
  const name = turin ? String.fromCharCode(a, b, c, d, f) : String.fromCharCode(a, b, e, f);
  let tcb = read.get(name);
  if (tcb === undefined) {
    tcb = turin
      ? { fmc: a, bootloader: b, tee: c, snp: d, microcode: f }
      : { bootloader: a, tee: b, snp: e, microcode: f };
    if (read.size >= READ_LIMIT) read.clear();
    read.set(name, tcb);
  }
  return tcb;
}

/** Parts of `tcb` below `floor`, in words; parts that `tcb` does not have count as 0. */
export function partsBelow(tcb: Tcb, floor: Tcb): string[] {
  if (tcb === floor) return [];
  return TCB_PARTS.flatMap((part) => {
    const [have, want] = [tcb[part] ?? 0, floor[part]];
    return want !== undefined && have < want ? [`${part} ${have} < ${want}`] : [];
  });
}

export function sameTcb(a: Tcb, b: Tcb): boolean {
  return a === b || TCB_PARTS.every((part) => a[part] === b[part]);
}

/** `bootloader 4, tee 0, snp 24, microcode 219` */
export function tcbText(tcb: Tcb): string {
  let text = texts.get(tcb);
  if (text === undefined) {
    text = TCB_PARTS.flatMap((part) => (tcb[part] === undefined ? [] : [`${part} ${tcb[part]}`])).join(', ');
    texts.set(tcb, text);
  }
  return text;
}

const texts = new WeakMap<Tcb, string>();
