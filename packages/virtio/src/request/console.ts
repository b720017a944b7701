/** Control messages of a console with several ports. VIRTIO 1.4 §5.3.6.2. */
import { fail, ok, type Result } from '@airlock/core/result.ts';

export const CONSOLE_CONTROL_SIZE = 8;

export const CONSOLE_EVENTS = [
  'device-ready',
  'device-add',
  'device-remove',
  'port-ready',
  'console-port',
  'resize',
  'port-open',
  'port-name',
] as const;
export type ConsoleEvent = (typeof CONSOLE_EVENTS)[number];

/** Longest port name that is taken. */
export const PORT_NAME_LIMIT = 128;

export interface ConsoleControl {
  readonly port: number;
  readonly event: ConsoleEvent;
  readonly value: number;
  /** `resize`. */
  readonly size?: { readonly columns: number; readonly rows: number };
  /** `port-name`: its bytes, without the zero that some devices put after it. */
  readonly name?: Uint8Array;
}

/**
 * Reads a whole message; `ports` is how many the device may have. DEVICE_READY is about none of them, and its port is
 * not looked at. Codes: `request-truncated`, `request-malformed`.
 */
export function parseConsoleControl(bytes: Uint8Array, ports: number): Result<ConsoleControl> {
  if (bytes.length < CONSOLE_CONTROL_SIZE) return fail('request-truncated', `console control of ${bytes.length} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const port = view.getUint32(0, true);
  const number = view.getUint16(4, true);
  const value = view.getUint16(6, true);
  const event = CONSOLE_EVENTS[number];
  if (event === undefined) return fail('request-malformed', `console event ${number}`);
  if (event !== 'device-ready' && port >= ports) return fail('request-malformed', `console port ${port} of ${ports}`);
  if (event === 'resize') {
    if (bytes.length < 12) return fail('request-truncated', 'console resize without a size');
    return ok({ port, event, value, size: { columns: view.getUint16(8, true), rows: view.getUint16(10, true) } });
  }
  if (event === 'port-name') {
    const end = bytes.indexOf(0, CONSOLE_CONTROL_SIZE);
    const name = bytes.slice(CONSOLE_CONTROL_SIZE, end < 0 ? bytes.length : end);
    if (name.length === 0 || name.length > PORT_NAME_LIMIT) {
      return fail('request-malformed', `console port name of ${name.length} bytes`);
    }
    return ok({ port, event, value, name });
  }
  return ok({ port, event, value });
}

export function encodeConsoleControl(control: ConsoleControl): Uint8Array {
  const more = control.size ? 4 : (control.name?.length ?? 0);
  const bytes = new Uint8Array(CONSOLE_CONTROL_SIZE + more);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, control.port, true);
  view.setUint16(4, CONSOLE_EVENTS.indexOf(control.event), true);
  view.setUint16(6, control.value, true);
  if (control.size) {
    view.setUint16(8, control.size.columns, true);
    view.setUint16(10, control.size.rows, true);
  } else if (control.name) {
    bytes.set(control.name, CONSOLE_CONTROL_SIZE);
  }
  return bytes;
}
