/**
 * The DOE mailbox of a PCI function as its driver sees it: five registers in configuration space, PCIe 6.1 §7.9.24. The
 * device is hostile: every wait ends, every length is bounded, a register is read once for each decision, and what was
 * left behind is aborted before and after.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { type DoeFeature, discoverFeatures } from './discovery.ts';
import { DOE_HEADER, DOE_TYPE, decodeDoeHeader, encodeDoeObject, PCI_SIG } from './object.ts';

/** Aligned dwords of one function's configuration space. Codes are those of whatever it stands on. */
export interface ConfigSpace {
  read32(offset: number): Promise<Result<number>>;
  write32(offset: number, value: number): Promise<Result<void>>;
}

/** The time, passed in. */
export interface Clock {
  /** Milliseconds that only grow. */
  now(): number;
  wait(milliseconds: number): Promise<void>;
}

export interface MailboxLimits {
  /** For one answer and for an abort, in milliseconds; PCIe says that a mailbox answers within one second. */
  readonly answer: number;
  /** While another user of the mailbox has it, in milliseconds. */
  readonly busy: number;
  /** Between two looks at the status, in milliseconds; the first looks come at once. */
  readonly poll: number;
  /** The longest answer that is read, header included, in bytes. */
  readonly bytes: number;
  /** For putting one object in, and for taking one out, in milliseconds: every access may be as slow as the host likes. */
  readonly transfer: number;
}

export const MAILBOX_LIMITS: MailboxLimits = { answer: 1000, busy: 1000, poll: 1, bytes: 256 * 1024, transfer: 5000 };

export interface Mailbox {
  /**
   * Puts one data object in and takes the answer of the same vendor and type out; payloads in whole dwords. Codes:
   * those of `ConfigSpace`, `doe-gone`, `doe-busy`, `doe-cancelled`, `doe-error`, `doe-timeout`,
   * `doe-object-too-large`, `doe-object-invalid`, `doe-answer-invalid`. After any of the latter the mailbox was aborted,
   * if it was ours by then.
   */
  exchange(vendor: number, type: number, payload: Uint8Array): Promise<Result<Uint8Array>>;
  /** What the mailbox offers. Codes: those of `exchange`, `doe-discovery-invalid`. */
  discover(): Promise<Result<readonly DoeFeature[]>>;
  abort(): Promise<Result<void>>;
}

/** Offsets from the capability. */
export const DOE_REGISTER = { capabilities: 4, control: 8, status: 12, write: 16, read: 20 } as const;
export const DOE_CONTROL = { abort: 1, go: 0x8000_0000 } as const;
export const DOE_STATUS = { busy: 1, error: 4, ready: 0x8000_0000 } as const;
const GONE = 0xffff_ffff;
/** Looks without a wait in between: an answer from memory is there before a timer would be. */
const EAGER_LOOKS = 16;
/** Bytes of an answer after which the status is looked at again: one that stops early is not read to its stated end. */
const READY_EVERY = 256;
/** Milliseconds of accesses without a wait; then others have their turn, and a time that is over is noticed. */
const SLICE = 5;

const CANCELLED = fail('doe-cancelled', 'nobody waits for the answer any more');

export interface MailboxPlace {
  readonly config: ConfigSpace;
  readonly clock: Clock;
  /** Of the DOE extended capability. */
  readonly offset: number;
  /** Of the capability, which decides on the version of discovery. */
  readonly version: number;
  readonly limits?: Partial<MailboxLimits>;
  /** Asked again and again: does nobody want the answer any more? What is under way then is aborted, and nothing new begun. */
  readonly cancelled?: (() => boolean) | undefined;
}

export function openMailbox({ config, clock, offset, version, limits: given, cancelled }: MailboxPlace): Mailbox {
  const limits = { ...MAILBOX_LIMITS, ...given };
  const isCancelled = (): boolean => cancelled?.() === true;
  let waited = clock.now();
  /** Was it emptied since we have it? */
  let taken = false;

  async function readStatus(): Promise<Result<number>> {
    const status = await config.read32(offset + DOE_REGISTER.status);
    if (status.ok && status.value === GONE) return fail('doe-gone', 'the DOE status register reads all ones');
    return status;
  }

  async function wait(milliseconds: number): Promise<void> {
    await clock.wait(milliseconds);
    waited = clock.now();
  }

  /** Between two accesses of a transfer that began at `start`. Accesses wait for nothing that would let others run. */
  async function pace(start: number): Promise<Result<void>> {
    if (isCancelled()) return CANCELLED;
    const now = clock.now();
    if (now - start >= limits.transfer)
      return fail('doe-timeout', `not through with an object after ${limits.transfer} ms`);
    if (now - waited >= SLICE) await wait(0);
    return ok(undefined);
  }

  /** Looks until `done` says yes. `undefined`: the time is over. */
  async function waitFor(
    milliseconds: number,
    done: (status: number) => boolean,
    stops = isCancelled,
  ): Promise<Result<number | undefined>> {
    const start = clock.now();
    for (let look = 0; ; look++) {
      if (stops()) return CANCELLED;
      const status = await readStatus();
      if (!status.ok) return status;
      if (done(status.value)) return status;
      const now = clock.now();
      if (now - start >= milliseconds) return ok(undefined);
      if (look >= EAGER_LOOKS) await wait(limits.poll);
      else if (now - waited >= SLICE) await wait(0);
    }
  }

  async function abort(): Promise<Result<void>> {
    const written = await config.write32(offset + DOE_REGISTER.control, DOE_CONTROL.abort);
    if (!written.ok) return written;
    const unset = DOE_STATUS.busy | DOE_STATUS.error | DOE_STATUS.ready;
    // Whoever gave up leaves a clean mailbox behind all the same.
    const status = await waitFor(
      limits.answer,
      (value) => (value & unset) === 0,
      () => false,
    );
    if (!status.ok) return status;
    return status.value === undefined ? fail('doe-timeout', 'the mailbox does not carry out an abort') : ok(undefined);
  }

  /** Somebody else’s exchange is waited for; leftovers of one that nobody finished are aborted. */
  async function acquire(): Promise<Result<void>> {
    const status = await waitFor(limits.busy, (value) => (value & DOE_STATUS.busy) === 0);
    if (!status.ok) return status;
    if (status.value === undefined) return fail('doe-busy', `busy for ${limits.busy} ms`);
    // Whoever was killed before us may have left half an object in it, which no status bit tells.
    if (!taken) {
      const cleared = await abort();
      taken = cleared.ok;
      return cleared;
    }
    return (status.value & (DOE_STATUS.error | DOE_STATUS.ready)) === 0 ? ok(undefined) : abort();
  }

  async function put(object: Uint8Array): Promise<Result<void>> {
    const view = new DataView(object.buffer, object.byteOffset, object.length);
    const start = clock.now();
    for (let at = 0; at < object.length; at += 4) {
      const paced = await pace(start);
      if (!paced.ok) return paced;
      const written = await config.write32(offset + DOE_REGISTER.write, view.getUint32(at, true));
      if (!written.ok) return written;
    }
    return config.write32(offset + DOE_REGISTER.control, DOE_CONTROL.go);
  }

  /** The dword at the mailbox’s front, which a write of anything removes. */
  async function takeDword(into: DataView, at: number): Promise<Result<void>> {
    const dword = await config.read32(offset + DOE_REGISTER.read);
    if (!dword.ok) return dword;
    into.setUint32(at, dword.value, true);
    return config.write32(offset + DOE_REGISTER.read, 0);
  }

  async function waitUntilReady(): Promise<Result<void>> {
    const status = await waitFor(limits.answer, (value) => (value & (DOE_STATUS.ready | DOE_STATUS.error)) !== 0);
    if (!status.ok) return status;
    if (status.value === undefined) return fail('doe-timeout', `no answer within ${limits.answer} ms`);
    if ((status.value & DOE_STATUS.error) !== 0) return fail('doe-error', 'the mailbox reports an error');
    return ok(undefined);
  }

  async function takeAnswer(vendor: number, type: number): Promise<Result<Uint8Array>> {
    const ready = await waitUntilReady();
    if (!ready.ok) return ready;
    const start = clock.now();
    const head = new Uint8Array(DOE_HEADER);
    for (let at = 0; at < DOE_HEADER; at += 4) {
      const taken = await takeDword(new DataView(head.buffer), at);
      if (!taken.ok) return taken;
    }
    if (head.every((byte) => byte === 0xff)) return fail('doe-gone', 'the read mailbox gives all ones');
    const header = decodeDoeHeader(head);
    if (!header.ok) return header;
    const { length } = header.value;
    if (header.value.vendor !== vendor || header.value.type !== type)
      return fail('doe-answer-invalid', `an answer of type ${header.value.vendor}:${header.value.type}`);
    if (length > limits.bytes) return fail('doe-object-too-large', `an answer of ${length} bytes`);
    const payload = new Uint8Array(length - DOE_HEADER);
    const view = new DataView(payload.buffer);
    for (let at = 0; at < payload.length; at += 4) {
      const paced = await pace(start);
      if (!paced.ok) return paced;
      // Nothing more is ready: what would be read from here on is no part of an answer.
      if (at % READY_EVERY === 0 || at === payload.length - 4) {
        const status = await readStatus();
        if (!status.ok) return status;
        if ((status.value & DOE_STATUS.error) !== 0) return fail('doe-error', 'the mailbox reports an error');
        if ((status.value & DOE_STATUS.ready) === 0)
          return fail('doe-answer-invalid', `the answer ends before its ${length} bytes`);
      }
      const taken = await takeDword(view, at);
      if (!taken.ok) return taken;
    }
    const after = await readStatus();
    if (!after.ok) return after;
    if ((after.value & DOE_STATUS.error) !== 0)
      return fail('doe-error', 'the mailbox reports an error after its answer');
    if ((after.value & DOE_STATUS.ready) !== 0)
      return fail('doe-answer-invalid', `the answer goes on after its ${length} bytes`);
    return ok(payload);
  }

  async function exchange(vendor: number, type: number, payload: Uint8Array): Promise<Result<Uint8Array>> {
    const object = encodeDoeObject(vendor, type, payload);
    if (!object.ok) return object;
    if (isCancelled()) return CANCELLED;
    const free = await acquire();
    if (!free.ok) return free;
    const sent = await put(object.value);
    const answer = sent.ok ? await takeAnswer(vendor, type) : sent;
    if (!answer.ok && answer.error.code.startsWith('doe-') && answer.error.code !== 'doe-gone') await abort();
    return answer;
  }

  return {
    exchange,
    abort,
    discover: () => discoverFeatures(version >= 2 ? 2 : 0, (payload) => exchange(PCI_SIG, DOE_TYPE.discovery, payload)),
  };
}
