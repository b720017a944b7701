/** The device's side of IDE_KM, for tests and for made-up devices: ports, and which of their keys are set and in use. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { decodeIdeMessage, encodeIdeMessage, IDE_IV_SIZE, IDE_KEY_SIZE, type IdeSlot } from './messages.ts';
import { slotText } from './requester.ts';

export interface IdePort {
  readonly devfn: number;
  readonly bus: number;
  readonly segment: number;
  readonly registers: readonly number[];
}

export type KeyState = 'set' | 'in use';

export interface IdeResponder {
  /**
   * Codes: `ide-km-message-invalid`, `ide-km-unexpected` (no request, or one for which PCIe has no answer that says no:
   * a port that is not there, a key that was not programmed).
   */
  answer(request: Uint8Array): Result<Uint8Array>;
  /** `undefined`: no key was programmed. */
  stateOf(slot: IdeSlot): KeyState | undefined;
}

const STATUS = { success: 0, length: 1, port: 2, value: 3 } as const;
const KEY_PROG = 2;
const KEY_PROG_SIZE = 7 + IDE_KEY_SIZE + IDE_IV_SIZE;

export function createIdeResponder(ports: readonly IdePort[]): IdeResponder {
  const keys = new Map<string, KeyState>();

  return {
    answer(bytes) {
      // A key of a wrong length has an answer of its own, if the rest can be read.
      const short = bytes[0] === KEY_PROG && bytes.length >= 7 && bytes.length !== KEY_PROG_SIZE;
      const whole = new Uint8Array(KEY_PROG_SIZE);
      whole.set(bytes.subarray(0, 7));
      const request = decodeIdeMessage(short ? whole : bytes);
      if (!request.ok) return request;
      const message = request.value;
      if (message.name === 'QUERY') {
        const port = ports[message.port];
        if (port === undefined) return fail('ide-km-unexpected', `no port ${message.port}`);
        const { devfn, bus, segment, registers } = port;
        const found = { port: message.port, devfn, bus, segment, maxPort: ports.length - 1, registers };
        return ok(encodeIdeMessage({ name: 'QUERY_RESP', ...found }));
      }
      if (message.name === 'KEY_PROG') {
        const { slot } = message;
        const known = ports[slot.port] !== undefined;
        const running = keys.get(slotText(slot)) === 'in use';
        const status = short ? STATUS.length : !known ? STATUS.port : running ? STATUS.value : STATUS.success;
        if (status === STATUS.success) keys.set(slotText(slot), 'set');
        return ok(encodeIdeMessage({ name: 'KP_ACK', slot, status }));
      }
      if (message.name === 'K_SET_GO' || message.name === 'K_SET_STOP') {
        const { slot } = message;
        if (!keys.has(slotText(slot))) return fail('ide-km-unexpected', `no key for ${slotText(slot)}`);
        if (message.name === 'K_SET_GO') keys.set(slotText(slot), 'in use');
        else keys.delete(slotText(slot));
        return ok(encodeIdeMessage({ name: 'K_GOSTOP_ACK', slot }));
      }
      return fail('ide-km-unexpected', `${message.name} is no request`);
    },
    stateOf: (slot) => keys.get(slotText(slot)),
  };
}
