/** Commands of the control queue. VIRTIO 1.4 §5.1.6.5. */
import { type Features, hasFeature } from '@airlock/virtio/features.ts';
import type { Chain } from '@airlock/virtio/ring/chain.ts';
import { type Filter, macNumber, TABLE_LIMIT } from './filter.ts';
import type { Offloads } from './offloads.ts';

export const COMMAND_OK = 0;
export const COMMAND_ERROR = 1;

/** What a command may change, besides the filter. */
export interface Controlled {
  readonly filter: Filter;
  setAddress(mac: Uint8Array): void;
  setPairs(pairs: number): void;
  setOffloads(offloads: Offloads): void;
}

const COMMAND = 2;
const MAC = 6;
const VLANS = 4096;

/** Classes of commands. */
const RX = 0;
const ADDRESS = 1;
const VLAN = 2;
const PAIRS = 4;
const OFFLOADS = 5;

/** Bits of CTRL_GUEST_OFFLOADS that we know: GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, GUEST_ECN. */
const OFFLOAD_BITS = 0x382;

/**
 * Does what the command in `chain` says, of at most `maxPairs` pairs of queues, and returns COMMAND_OK, or COMMAND_ERROR
 * for one that is unknown, was not negotiated, or has not exactly the size and values that the standard gives it; nothing
 * changes then. The caller writes the answer.
 */
export function runCommand(chain: Chain, features: Features, maxPairs: number, on: Controlled): number {
  // The longest command of fixed size is 2 + 8 bytes; one byte more shows that there are too many.
  const bytes = new Uint8Array(COMMAND + 9);
  const length = chain.read(0, bytes);
  if (length < COMMAND) return COMMAND_ERROR;
  const view = new DataView(bytes.buffer);
  const kind = view.getUint8(0);
  const command = view.getUint8(1);
  const exactly = (size: number) => chain.readableBytes === COMMAND + size;
  if (kind === RX && exactly(1)) return setReceive(command, view.getUint8(COMMAND), features, on.filter);
  if (kind === ADDRESS && command === 0 && hasFeature(features, 18)) return setTables(chain, on.filter);
  if (kind === ADDRESS && command === 1 && hasFeature(features, 23) && exactly(MAC)) {
    // A group address is nobody's own.
    if ((view.getUint8(COMMAND) & 1) !== 0) return COMMAND_ERROR;
    on.setAddress(bytes.slice(COMMAND, COMMAND + MAC));
    return COMMAND_OK;
  }
  if (kind === VLAN && command <= 1 && hasFeature(features, 19) && exactly(2)) {
    const id = view.getUint16(COMMAND, true);
    if (id >= VLANS) return COMMAND_ERROR;
    on.filter.setVlan(id, command === 0);
    return COMMAND_OK;
  }
  if (kind === PAIRS && command === 0 && hasFeature(features, 22) && exactly(2)) {
    const pairs = view.getUint16(COMMAND, true);
    if (pairs < 1 || pairs > maxPairs) return COMMAND_ERROR;
    on.setPairs(pairs);
    return COMMAND_OK;
  }
  if (kind === OFFLOADS && command === 0 && hasFeature(features, 2) && exactly(8)) {
    const wanted = view.getUint32(COMMAND, true);
    // §5.1.6.5.6.2: nothing that was not negotiated.
    if (view.getUint32(COMMAND + 4, true) !== 0 || (wanted & ~(features[0] & OFFLOAD_BITS)) !== 0) return COMMAND_ERROR;
    const has = (bit: number) => ((wanted >>> bit) & 1) === 1;
    // Joined frames come without their checksums, so they need the first.
    if (!has(1) && (wanted & ~2) !== 0) return COMMAND_ERROR;
    on.setOffloads({ checksum: has(1), tcp4: has(7), tcp6: has(8), ecn: has(9) });
    return COMMAND_OK;
  }
  return COMMAND_ERROR;
}

function setReceive(command: number, value: number, features: Features, filter: Filter): number {
  if (value > 1 || !hasFeature(features, command < 2 ? 18 : 20)) return COMMAND_ERROR;
  const wanted = value === 1;
  if (command === 0) filter.promiscuous = wanted;
  else if (command === 1) filter.allMulticast = wanted;
  else if (command === 2) filter.allUnicast = wanted;
  else if (command === 3) filter.noMulticast = wanted;
  else if (command === 4) filter.noUnicast = wanted;
  else if (command === 5) filter.noBroadcast = wanted;
  else return COMMAND_ERROR;
  return COMMAND_OK;
}

/** Two tables, each a count of 32 bits and that many addresses, and nothing behind them. */
function setTables(chain: Chain, filter: Filter): number {
  const count = new Uint8Array(4);
  const view = new DataView(count.buffer);
  const starts: number[] = [];
  const counts: number[] = [];
  let at = COMMAND;
  for (let table = 0; table < 2; table++) {
    if (chain.read(at, count) < 4) return COMMAND_ERROR;
    const entries = view.getUint32(0, true);
    at += 4;
    if (entries > (chain.readableBytes - at) / MAC) return COMMAND_ERROR;
    starts.push(at);
    counts.push(entries);
    at += entries * MAC;
  }
  if (at !== chain.readableBytes) return COMMAND_ERROR;
  filter.setTable('unicast', readTable(chain, starts[0] ?? 0, counts[0] ?? 0));
  filter.setTable('multicast', readTable(chain, starts[1] ?? 0, counts[1] ?? 0));
  return COMMAND_OK;
}

function readTable(chain: Chain, at: number, count: number): number[] | null {
  if (count > TABLE_LIMIT) return null;
  const bytes = new Uint8Array(count * MAC);
  chain.read(at, bytes);
  const view = new DataView(bytes.buffer);
  return Array.from({ length: count }, (_, i) => macNumber(view, i * MAC));
}
