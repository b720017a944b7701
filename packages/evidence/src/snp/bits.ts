/** The named bits of POLICY and PLATFORM_INFO. AMD 56860 1.58. */
import { isSet } from '../bytes.ts';

interface Bit {
  readonly name: string;
  readonly bit: number;
  /** The first report version that can state it; an older one's zero says nothing. */
  readonly since: number;
}

/** What the guest's owner asked for at launch. Bits 0 to 15 are the ABI version. */
const POLICY_BITS: readonly Bit[] = [
  { name: 'smt-allowed', bit: 16, since: 2 },
  { name: 'migration-agent-allowed', bit: 18, since: 2 },
  { name: 'debug-allowed', bit: 19, since: 2 },
  { name: 'single-socket-required', bit: 20, since: 2 },
  { name: 'cxl-allowed', bit: 21, since: 2 },
  { name: 'aes-256-xts-required', bit: 22, since: 2 },
  { name: 'rapl-disabled-required', bit: 23, since: 2 },
  { name: 'ciphertext-hiding-required', bit: 24, since: 2 },
  { name: 'page-swap-disabled', bit: 25, since: 5 },
];
/** Bit 17 is reserved and must be one. */
const POLICY_RESERVED_ONE = 17;

/** How the machine is configured. */
const PLATFORM_BITS: readonly Bit[] = [
  { name: 'smt-enabled', bit: 0, since: 2 },
  { name: 'tsme-enabled', bit: 1, since: 2 },
  { name: 'ecc-enabled', bit: 2, since: 2 },
  { name: 'rapl-disabled', bit: 3, since: 2 },
  { name: 'ciphertext-hiding-enabled', bit: 4, since: 2 },
  { name: 'alias-check-complete', bit: 5, since: 3 },
  { name: 'iommu-write-safe', bit: 6, since: 5 },
  { name: 'tio-enabled', bit: 7, since: 5 },
];

export type BitValues = Readonly<Record<string, boolean | 'absent'>>;

export interface Bits {
  readonly values: BitValues;
  /** Numbers of bits that are set and have no name here. */
  readonly unknown: readonly number[];
}

/** Few values are ever seen, again and again. */
const READ_LIMIT = 256;
const POLICY_KNOWN: readonly number[] = [...Array(16).keys(), POLICY_RESERVED_ONE];
const policies = new Map<bigint, Bits>();
const platforms = new Map<bigint, Bits>();

export function policyBits(policy: bigint, version: number): Bits {
  return remember(policies, policy, version, () => readBits(policy, version, POLICY_BITS, POLICY_KNOWN));
}

export function platformBits(info: bigint, version: number): Bits {
  return remember(platforms, info, version, () => readBits(info, version, PLATFORM_BITS, []));
}

function remember(known: Map<bigint, Bits>, value: bigint, version: number, read: () => Bits): Bits {
  const name = (value << 32n) | BigInt(version);
  let bits = known.get(name);
  if (bits === undefined) {
    bits = read();
    if (known.size >= READ_LIMIT) known.clear();
    known.set(name, bits);
  }
  return bits;
}

/** Bit 17 of POLICY, which firmware requires. */
export function hasReservedOne(policy: bigint): boolean {
  return isSet(policy, POLICY_RESERVED_ONE);
}

function readBits(value: bigint, version: number, bits: readonly Bit[], known: readonly number[]): Bits {
  const values: Record<string, boolean | 'absent'> = {};
  for (const { name, bit, since } of bits) values[name] = isSet(value, bit) ? true : version < since ? 'absent' : false;
  const unknown: number[] = [];
  for (let bit = 0, rest = value; rest > 0n; bit++, rest >>= 1n) {
    if ((rest & 1n) === 1n && !known.includes(bit) && !bits.some((one) => one.bit === bit)) unknown.push(bit);
  }
  return { values, unknown };
}
