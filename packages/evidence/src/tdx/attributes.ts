/** TDATTRIBUTES by name. Intel TDX module ABI, TD attributes. */
import { isSet } from '../bytes.ts';

interface AttributeBit {
  readonly name: string;
  readonly bit: number;
  /** A TD with this is not to be trusted with secrets, unless who asks knows better. */
  readonly weakens: boolean;
}

const ATTRIBUTES: readonly AttributeBit[] = [
  { name: 'debug', bit: 0, weakens: false }, // has a check of its own
  { name: 'hgs-plus-profiling', bit: 4, weakens: true },
  { name: 'performance-profiling', bit: 5, weakens: true },
  { name: 'telemetry', bit: 6, weakens: true },
  { name: 'lass', bit: 27, weakens: false },
  { name: 'sept-ve-disabled', bit: 28, weakens: false },
  { name: 'migratable', bit: 29, weakens: true },
  { name: 'protection-keys', bit: 30, weakens: false },
  { name: 'key-locker', bit: 31, weakens: false },
  { name: 'tpa', bit: 62, weakens: false },
  { name: 'performance-counters', bit: 63, weakens: false },
];

export function isDebug(attributes: bigint): boolean {
  return isSet(attributes, 0);
}

export interface Attributes {
  readonly values: Readonly<Record<string, boolean>>;
  /** Names of those that weaken the TD; bits of the first byte without a name count, since all of them do (TUD). */
  readonly weakening: readonly string[];
  readonly unknown: readonly number[];
}

export function readAttributes(attributes: bigint): Attributes {
  const values: Record<string, boolean> = {};
  for (const { name, bit } of ATTRIBUTES) values[name] = isSet(attributes, bit);
  const unknown: number[] = [];
  for (let bit = 0; bit < 64; bit++)
    if (isSet(attributes, bit) && !ATTRIBUTES.some((one) => one.bit === bit)) unknown.push(bit);
  return {
    values,
    weakening: [
      ...ATTRIBUTES.flatMap(({ name, bit, weakens }) => (weakens && isSet(attributes, bit) ? [name] : [])),
      ...unknown.flatMap((bit) => (bit < 8 ? [`bit ${bit}`] : [])),
    ],
    unknown: unknown.filter((bit) => bit >= 8),
  };
}
