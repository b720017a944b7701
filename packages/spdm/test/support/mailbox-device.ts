/** A function with a DOE mailbox, in memory, and the ways in which one can lie. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { type Clock, type ConfigSpace, DOE_REGISTER } from '../../src/doe/mailbox.ts';

export const MAILBOX_AT = 0x160;

export interface MailboxDevice extends ConfigSpace {
  readonly clock: Clock;
  /** The raw object that answers a raw object, or nothing. */
  answer: (object: Uint8Array) => Uint8Array | undefined;
  /** Looks at the status until the answer is ready. */
  delay: number;
  busy: boolean;
  error: boolean;
  gone: boolean;
  /** Does an abort clean up? */
  abortable: boolean;
  /** More dwords are ready than the object says. */
  neverEmpty: boolean;
  readonly writes: { readonly offset: number; readonly value: number }[];
  reads: number;
  aborts: number;
  /** A code that writes fail with. */
  forbids: string | undefined;
  /** What the kernel says with it. */
  reason: string;
}

export function mailboxDevice(answer: (object: Uint8Array) => Uint8Array | undefined): MailboxDevice {
  let written: number[] = [];
  let pending: number[] = [];
  let wait = 0;
  let time = 0;
  const device: MailboxDevice = {
    answer,
    delay: 0,
    busy: false,
    error: false,
    gone: false,
    abortable: true,
    neverEmpty: false,
    writes: [],
    reads: 0,
    aborts: 0,
    forbids: undefined,
    reason: 'EPERM',
    clock: {
      now: () => time,
      wait: async (milliseconds) => {
        time += milliseconds;
      },
    },
    async read32(offset): Promise<Result<number>> {
      device.reads++;
      if (device.gone) return ok(0xffff_ffff);
      if (offset === MAILBOX_AT + DOE_REGISTER.status) {
        if (wait > 0) wait--;
        const ready = (pending.length > 0 && wait === 0) || device.neverEmpty;
        return ok(((device.busy ? 1 : 0) | (device.error ? 4 : 0) | (ready ? 0x8000_0000 : 0)) >>> 0);
      }
      if (offset === MAILBOX_AT + DOE_REGISTER.read) return ok(pending[0] ?? 0);
      return ok(0);
    },
    async write32(offset, value): Promise<Result<void>> {
      device.writes.push({ offset, value });
      if (device.forbids !== undefined) return fail(device.forbids, device.reason);
      if (offset === MAILBOX_AT + DOE_REGISTER.write) written.push(value);
      if (offset === MAILBOX_AT + DOE_REGISTER.read) pending.shift();
      if (offset !== MAILBOX_AT + DOE_REGISTER.control) return ok(undefined);
      if ((value & 1) !== 0) {
        device.aborts++;
        written = [];
        if (device.abortable) {
          pending = [];
          device.error = false;
          device.busy = false;
          device.neverEmpty = false;
        }
        return ok(undefined);
      }
      const object = new Uint8Array(Uint32Array.from(written).buffer);
      written = [];
      const reply = device.answer(object);
      wait = device.delay;
      const padded = new Uint8Array(Math.ceil((reply?.length ?? 0) / 4) * 4);
      padded.set(reply ?? []);
      pending = [...new Uint32Array(padded.buffer)];
      return ok(undefined);
    },
  };
  return device;
}
