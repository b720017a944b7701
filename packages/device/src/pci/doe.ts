/**
 * Data Object Exchange, the responder's side: the extended capability's five registers and the exchange behind them
 * (PCIe 6.0 §6.30, §7.9.24). Objects go to a handler; discovery is answered here.
 */
import type { Capability } from './capability.ts';
import { constant, type Register } from './register.ts';

export interface DoeProtocol {
  readonly vendor: number;
  readonly type: number;
}

/** PCI-SIG's own: discovery, CMA-SPDM, secured CMA-SPDM. */
export const PCI_SIG = 0x0001;
export const DOE_DISCOVERY = 0;
export const DOE_CMA = 1;
export const DOE_SECURED_CMA = 2;

/**
 * What a request is answered with: the dwords after the object's two header dwords, as bytes (a multiple of four). `null`
 * is an error (the status says so until an abort); 'busy' keeps the mailbox busy until `DoeMailbox.answer`.
 */
export type DoeHandler = (protocol: DoeProtocol, payload: Uint8Array) => Uint8Array | null | 'busy';

/** §6.30.1: 2^18 dwords are the most; this many are the most that we take in. */
export const DOE_OBJECT_LIMIT = 2 ** 18;

const ABORT = 0x1;
const GO = 0x8000_0000;
const BUSY = 0x1;
const ERROR = 0x4;
const READY = 0x8000_0000;

export class DoeMailbox {
  readonly capability: Capability;
  private readonly protocols: readonly DoeProtocol[];
  private readonly handler: DoeHandler;
  private readonly limit: number;
  private readonly received: number[] = [];
  private reply: Uint32Array = new Uint32Array(0);
  private replied = 0;
  private failed = false;
  private waiting: DoeProtocol | null = null;

  /** `protocols` besides discovery; `limit` is the longest request taken, in dwords. */
  constructor(protocols: readonly DoeProtocol[], handler: DoeHandler, limit: number = 2 ** 16) {
    this.protocols = [{ vendor: PCI_SIG, type: DOE_DISCOVERY }, ...protocols];
    this.handler = handler;
    this.limit = Math.min(limit, DOE_OBJECT_LIMIT);
    this.capability = {
      space: 'extended',
      id: 0x002e,
      version: 1,
      registers: [
        constant('doe_capabilities', 4, 0),
        register('doe_control', () => 0, this.control),
        register('doe_status', () => this.status(), ignore),
        register('doe_write_mailbox', () => 0, this.take),
        register('doe_read_mailbox', () => this.reply[this.replied] ?? 0, this.next),
      ].map((each, i) => (i === 4 ? { ...each, reset: () => this.reset() } : each)),
    };
  }

  /** Ends a 'busy'. Does nothing when the request was aborted since. */
  answer(payload: Uint8Array | null): void {
    const protocol = this.waiting;
    if (protocol === null) return;
    this.waiting = null;
    this.finish(protocol, payload);
  }

  reset(): void {
    this.received.length = 0;
    this.reply = new Uint32Array(0);
    this.replied = 0;
    this.failed = false;
    this.waiting = null;
  }

  private status(): number {
    if (this.failed) return ERROR;
    if (this.waiting !== null) return BUSY;
    return this.replied < this.reply.length ? READY : 0;
  }

  private readonly control = (value: number, enabled: number): void => {
    const bits = (value & enabled) >>> 0;
    if ((bits & ABORT) !== 0) this.reset();
    else if ((bits & GO) !== 0) this.go();
  };

  /** A dword of the request; partial writes mean nothing to a mailbox (§7.9.24.5). */
  private readonly take = (value: number, enabled: number): void => {
    if (enabled >>> 0 !== 0xffff_ffff || this.status() !== 0) return;
    if (this.received.length >= this.limit) this.failed = true;
    else this.received.push(value >>> 0);
  };

  /** Any write takes the dword that was read off (§7.9.24.6). */
  private readonly next = (): void => {
    if (this.replied < this.reply.length) this.replied++;
  };

  private go(): void {
    if (this.status() !== 0) return;
    const [first = 0, second = 0] = this.received;
    const dwords = this.received.length;
    // §6.30.1: a length of 0 stands for 2^18.
    const length = (second & 0x3ffff) === 0 ? DOE_OBJECT_LIMIT : second & 0x3ffff;
    if (dwords < 2 || length !== dwords) {
      this.failed = true;
      return;
    }
    const protocol = { vendor: first & 0xffff, type: (first >>> 16) & 0xff };
    const payload = new Uint8Array(4 * (dwords - 2));
    const view = new DataView(payload.buffer);
    for (let i = 2; i < dwords; i++) view.setUint32(4 * (i - 2), this.received[i] ?? 0, true);
    this.received.length = 0;
    const known = this.protocols.some((each) => each.vendor === protocol.vendor && each.type === protocol.type);
    if (!known) {
      this.failed = true;
      return;
    }
    const answer =
      protocol.vendor === PCI_SIG && protocol.type === DOE_DISCOVERY
        ? this.discover(payload)
        : this.handler(protocol, payload);
    if (answer === 'busy') this.waiting = protocol;
    else this.finish(protocol, answer);
  }

  private finish(protocol: DoeProtocol, payload: Uint8Array | null): void {
    if (payload === null || payload.length % 4 !== 0 || payload.length / 4 + 2 > DOE_OBJECT_LIMIT) {
      this.failed = true;
      return;
    }
    const dwords = payload.length / 4 + 2;
    const reply = new Uint32Array(dwords);
    reply[0] = protocol.vendor | (protocol.type << 16);
    reply[1] = dwords === DOE_OBJECT_LIMIT ? 0 : dwords;
    const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
    for (let i = 2; i < dwords; i++) reply[i] = view.getUint32(4 * (i - 2), true);
    this.reply = reply;
    this.replied = 0;
  }

  /** §6.30.1.1: the protocol at an index, and the index of the next; 0 after the last. */
  private discover(payload: Uint8Array): Uint8Array | null {
    const index = payload[0];
    const found = index === undefined ? undefined : this.protocols[index];
    if (payload.length !== 4 || index === undefined || found === undefined) return null;
    const next = index + 1 < this.protocols.length ? index + 1 : 0;
    return Uint8Array.of(found.vendor & 0xff, found.vendor >>> 8, found.type, next);
  }
}

function ignore(): void {}

function register(name: string, read: () => number, write: (value: number, enabled: number) => void): Register {
  return { name, bytes: 4, read, write };
}
