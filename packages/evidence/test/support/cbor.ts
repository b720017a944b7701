/** CBOR written by hand, so that tests can make everything that there should not be. */
export type Value =
  | number
  | bigint
  | string
  | boolean
  | Uint8Array
  | readonly Value[]
  | Map<number | string, Value>
  | { readonly tag: number; readonly value: Value };

const head = (major: number, value: number): Buffer =>
  value < 24
    ? Buffer.from([(major << 5) | value])
    : value < 256
      ? Buffer.from([(major << 5) | 24, value])
      : value < 65536
        ? Buffer.from([(major << 5) | 25, value >> 8, value & 0xff])
        : Buffer.from([(major << 5) | 26, value >>> 24, (value >> 16) & 0xff, (value >> 8) & 0xff, value & 0xff]);

function eight(value: bigint): Buffer {
  const bytes = Buffer.alloc(9, 0x1b);
  bytes.writeBigUInt64BE(value, 1);
  return bytes;
}

export function cbor(value: Value): Buffer {
  if (typeof value === 'bigint') return eight(value);
  if (typeof value === 'boolean') return Buffer.from([value ? 0xf5 : 0xf4]);
  if (typeof value === 'number') return value < 0 ? head(1, -1 - value) : head(0, value);
  if (typeof value === 'string') return Buffer.concat([head(3, value.length), Buffer.from(value)]);
  if (value instanceof Uint8Array) return Buffer.concat([head(2, value.length), value]);
  if (value instanceof Map)
    return Buffer.concat([head(5, value.size), ...[...value].flatMap(([key, one]) => [cbor(key), cbor(one)])]);
  if (Array.isArray(value)) return Buffer.concat([head(4, value.length), ...(value as readonly Value[]).map(cbor)]);
  const { tag, value: inner } = value as { readonly tag: number; readonly value: Value };
  return Buffer.concat([head(6, tag), cbor(inner)]);
}

export const map = (entries: Record<number, Value>) =>
  new Map(Object.entries(entries).map(([key, value]) => [Number(key), value] as const));
export const tagged = (tag: number, value: Value): Value => ({ tag, value });
