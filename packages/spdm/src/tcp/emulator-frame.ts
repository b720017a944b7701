/**
 * The socket protocol of DMTF's emulator, which QEMU's `spdm_port` speaks too: command, transport and size as big-endian
 * words, then as many bytes as the size says: a message of that transport.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { u32be } from '@airlock/evidence/bytes.ts';

export const EMULATOR_COMMAND = {
  message: 0x0001,
  /** The server answers, closes and waits for the next client. */
  continue: 0xfffd,
  /** The server answers and ends. */
  shutdown: 0xfffe,
  unknown: 0xffff,
  /** `Client Hello!` and `Server Hello!`, each with a zero after it. */
  hello: 0xdead,
} as const;

export const EMULATOR_TRANSPORT = { none: 0, mctp: 1, doe: 2, tcp: 3 } as const;

export const EMULATOR_HEADER = 12;
/** A DOE object can have 2^20 bytes. */
export const EMULATOR_PAYLOAD_LIMIT = 1 << 20;

export interface EmulatorFrame {
  readonly command: number;
  readonly transport: number;
  readonly payload: Uint8Array;
}

/** Codes: `emulator-frame-invalid` (too large). */
export function encodeEmulatorFrame({ command, transport, payload }: EmulatorFrame): Result<Uint8Array> {
  if (payload.length > EMULATOR_PAYLOAD_LIMIT)
    return fail('emulator-frame-invalid', `${payload.length} bytes in one frame`);
  const bytes = new Uint8Array(EMULATOR_HEADER + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, command);
  view.setUint32(4, transport);
  view.setUint32(8, payload.length);
  bytes.set(payload, EMULATOR_HEADER);
  return ok(bytes);
}

/** How many bytes the frame has that begins with these twelve. Codes: `emulator-frame-invalid`. */
export function emulatorFrameLength(header: Uint8Array): Result<number> {
  if (header.length < EMULATOR_HEADER) return fail('emulator-frame-invalid', `a header of ${header.length} bytes`);
  const size = u32be(header, 8);
  if (size > EMULATOR_PAYLOAD_LIMIT) return fail('emulator-frame-invalid', `a frame of ${size} bytes`);
  return ok(EMULATOR_HEADER + size);
}

/** One frame and nothing after it. Codes: `emulator-frame-invalid`. */
export function decodeEmulatorFrame(bytes: Uint8Array): Result<EmulatorFrame> {
  const length = emulatorFrameLength(bytes);
  if (!length.ok) return length;
  if (length.value !== bytes.length)
    return fail('emulator-frame-invalid', `a frame of ${length.value} bytes, ${bytes.length} are there`);
  return ok({ command: u32be(bytes, 0), transport: u32be(bytes, 4), payload: bytes.slice(EMULATOR_HEADER) });
}
