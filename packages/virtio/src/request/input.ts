/** Input events. VIRTIO 1.4 §5.8.6: the evdev event without its time. */
import { fail, ok, type Result } from '@airlock/core/result.ts';

export const INPUT_EVENT_SIZE = 8;

export interface InputEvent {
  readonly type: number;
  readonly code: number;
  /** Signed, as evdev has it. */
  readonly value: number;
}

/** Linux knows no type above EV_MAX and no code above KEY_MAX. Codes: `request-truncated`, `request-malformed`. */
export function parseInputEvent(bytes: Uint8Array): Result<InputEvent> {
  if (bytes.length < INPUT_EVENT_SIZE) return fail('request-truncated', `input event of ${bytes.length} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const event = { type: view.getUint16(0, true), code: view.getUint16(2, true), value: view.getInt32(4, true) };
  if (event.type > 0x1f || event.code > 0x2ff) {
    return fail('request-malformed', `input event type ${event.type}, code ${event.code}`);
  }
  return ok(event);
}
