/** Setting the keys of an IDE stream at a port of the device, PCIe 6.1 §6.33.3. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { PciAsk } from '../doe/pci-protocol.ts';
import {
  DIRECTIONS,
  decodeIdeMessage,
  encodeIdeMessage,
  type IdeMessage,
  type IdeSlot,
  KP_STATUS,
  SUB_STREAMS,
} from './messages.ts';

export type PortDescription = Extract<IdeMessage, { readonly name: 'QUERY_RESP' }>;

export interface SlotKey {
  readonly key: Uint8Array;
  readonly iv: Uint8Array;
}

function sameSlot(a: IdeSlot, b: IdeSlot): boolean {
  return (
    a.stream === b.stream &&
    a.keySet === b.keySet &&
    a.direction === b.direction &&
    a.subStream === b.subStream &&
    a.port === b.port
  );
}

export function slotText({ stream, keySet, direction, subStream, port }: IdeSlot): string {
  return `stream ${stream}, key set ${keySet}, ${subStream} ${direction}, port ${port}`;
}

async function exchange(ask: PciAsk, message: IdeMessage): Promise<Result<IdeMessage>> {
  const answer = await ask(encodeIdeMessage(message));
  return answer.ok ? decodeIdeMessage(answer.value) : answer;
}

/** What a port is. Codes: those of `ask`, `ide-km-message-invalid`, `ide-km-unexpected`. */
export async function queryPort(ask: PciAsk, port: number): Promise<Result<PortDescription>> {
  const answer = await exchange(ask, { name: 'QUERY', port });
  if (!answer.ok) return answer;
  if (answer.value.name !== 'QUERY_RESP' || answer.value.port !== port)
    return fail('ide-km-unexpected', `${answer.value.name} in answer to QUERY of port ${port}`);
  return ok(answer.value);
}

/** One key. Codes: as `queryPort`, `ide-km-refused`. */
export async function programKey(ask: PciAsk, slot: IdeSlot, { key, iv }: SlotKey): Promise<Result<void>> {
  const answer = await exchange(ask, { name: 'KEY_PROG', slot, key, iv });
  if (!answer.ok) return answer;
  if (answer.value.name !== 'KP_ACK' || !sameSlot(answer.value.slot, slot))
    return fail('ide-km-unexpected', `${answer.value.name} in answer to KEY_PROG of ${slotText(slot)}`);
  const { status } = answer.value;
  return status === 0
    ? ok(undefined)
    : fail('ide-km-refused', `the key of ${slotText(slot)} was not taken: ${KP_STATUS[status] ?? `status ${status}`}`);
}

async function order(ask: PciAsk, name: 'K_SET_GO' | 'K_SET_STOP', slot: IdeSlot): Promise<Result<void>> {
  const answer = await exchange(ask, { name, slot });
  if (!answer.ok) return answer;
  return answer.value.name === 'K_GOSTOP_ACK' && sameSlot(answer.value.slot, slot)
    ? ok(undefined)
    : fail('ide-km-unexpected', `${answer.value.name} in answer to ${name} of ${slotText(slot)}`);
}

/** Begins to use a key. Codes: as `queryPort`. */
export const startKey = (ask: PciAsk, slot: IdeSlot): Promise<Result<void>> => order(ask, 'K_SET_GO', slot);

/** Ends the use of a key. Codes: as `queryPort`. */
export const stopKey = (ask: PciAsk, slot: IdeSlot): Promise<Result<void>> => order(ask, 'K_SET_STOP', slot);

/** Every slot of a key set, receiving ones first. */
export function slotsOf(stream: number, keySet: 0 | 1, port: number): readonly IdeSlot[] {
  return DIRECTIONS.flatMap((direction) =>
    SUB_STREAMS.map((subStream) => ({ stream, keySet, direction, subStream, port })),
  );
}

/**
 * Programs a whole key set and starts it: all keys first, then receiving sub-streams, sending ones last, so that nothing
 * is sent that cannot be received yet. What was started is stopped again when a later step fails. Codes: as `programKey`.
 */
export async function startKeySet(
  ask: PciAsk,
  stream: number,
  keySet: 0 | 1,
  port: number,
  keyOf: (slot: IdeSlot) => SlotKey,
): Promise<Result<void>> {
  const slots = slotsOf(stream, keySet, port);
  for (const slot of slots) {
    const { key, iv } = keyOf(slot);
    const programmed = await programKey(ask, slot, { key, iv });
    if (!programmed.ok) return programmed;
  }
  const started: IdeSlot[] = [];
  for (const slot of slots) {
    const running = await startKey(ask, slot);
    if (!running.ok) {
      for (const one of started.reverse()) await stopKey(ask, one);
      return running;
    }
    started.push(slot);
  }
  return ok(undefined);
}

/** Stops a whole key set; goes on after a failure and gives the first. Codes: as `queryPort`. */
export async function stopKeySet(ask: PciAsk, stream: number, keySet: 0 | 1, port: number): Promise<Result<void>> {
  let first: Result<void> = ok(undefined);
  for (const slot of [...slotsOf(stream, keySet, port)].reverse()) {
    const stopped = await stopKey(ask, slot);
    if (!stopped.ok && first.ok) first = stopped;
  }
  return first;
}
