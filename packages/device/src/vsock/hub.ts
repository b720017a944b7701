/**
 * The connections of one guest: what a packet from it changes, and which packet goes to it next. Knows neither queues nor
 * sockets. Whatever the guest sends, and however little it takes, what is held for it is bounded: by the connection
 * limit, by the credit of each connection, and by a line of RSTs of fixed length. VIRTIO 1.4 §5.10.6.
 */
import { HANGUP, WRITABLE } from '@airlock/transport/reactor.ts';
import { VSOCK_SEQPACKET, VSOCK_STREAM, type VsockHeader, type VsockOperation } from '@airlock/virtio/request/vsock.ts';
import type { HostStream } from '../host-stream.ts';
import {
  DRY,
  ENDED,
  ESTABLISHED,
  LOST,
  NO_RECEIVE,
  NO_SEND,
  OWES_REQUEST,
  OWES_RESPONSE,
  OWES_SHUTDOWN,
  OWES_UPDATE,
  PULLED,
  REQUESTED,
  SHUT,
  VsockConnection,
} from './connection.ts';
import type { Caller, HostSide } from './host-side.ts';

/** VMADDR_CID_HOST. */
export const HOST_CID = 2;
/** RSTs that wait for a buffer of the guest; a guest that gives none loses what comes after. */
export const RESETS_LIMIT = 1024;
/** Time for the guest to answer a REQUEST. */
export const ANSWER_LIMIT_MS = 10_000;
/** Ports that stand for callers on the host: above those that people choose. */
const FIRST_CALLER_PORT = 2 ** 30;
const LAST_CALLER_PORT = 2 ** 31 - 1;
/** The most that is read from one stream before the next has its turn. */
const READ_LIMIT = 64 * 1024;
const END_OF_MESSAGE = 1;
const NO_PAYLOAD = new Uint8Array(0);

export interface Timers {
  after(milliseconds: number, call: () => void): () => void;
}

export interface Packet {
  readonly header: VsockHeader;
  /** Lives until the next call of the hub. */
  readonly payload: Uint8Array;
}

/** What should not happen with a well-behaved guest, counted. */
export interface HubCounts {
  /** Packets of other addresses than those of guest and host. */
  misaddressed: number;
  /** Connections that were reset since the guest broke a rule. */
  violations: number;
  /** RSTs that had no room. */
  lostResets: number;
  /** Connections that were refused since the table is full. */
  refused: number;
}

interface Address {
  readonly guestPort: number;
  readonly hostPort: number;
  readonly type: number;
}

export class VsockHub {
  readonly counts: HubCounts = { misaddressed: 0, violations: 0, lostResets: 0, refused: 0 };
  /** Was SEQPACKET negotiated? */
  seqpacket = false;

  private readonly table = new Map<string, VsockConnection>();
  /** The guest is done with them; the host has not taken everything yet. */
  private readonly draining = new Set<VsockConnection>();
  /** Owe a packet other than data. */
  private readonly owing = new Set<VsockConnection>();
  /** May have bytes for the guest, in the order of their turns. */
  private readonly readable = new Set<VsockConnection>();
  /** Callers that the guest has not answered, with what takes back the time limit. */
  private readonly calls = new Map<VsockConnection, { readonly caller: Caller; readonly cancel: () => void }>();
  private readonly resets: Address[] = [];
  private readonly scratch = new Uint8Array(READ_LIMIT);
  private nextCallerPort = FIRST_CALLER_PORT;

  private readonly guestCid: number;
  private readonly limit: number;
  private readonly host: HostSide;
  private readonly timers: Timers;
  private readonly wake: () => void;

  /** `wake` is called when there may be packets for the guest that came up outside of `receive`. */
  constructor(
    options: { readonly guestCid: number; readonly connections: number },
    host: HostSide,
    timers: Timers,
    wake: () => void,
  ) {
    this.guestCid = options.guestCid;
    this.limit = options.connections;
    this.host = host;
    this.timers = timers;
    this.wake = wake;
  }

  /** Connections that take a place. */
  get size(): number {
    return this.table.size + this.draining.size;
  }

  /** A packet of the guest's; `payload` is not kept. */
  receive(header: VsockHeader, payload: Uint8Array): void {
    if (header.sourceCid !== this.guestCid || header.destinationCid !== HOST_CID) {
      this.counts.misaddressed++;
      return;
    }
    const at = { guestPort: header.sourcePort, hostPort: header.destinationPort, type: header.type };
    let connection = this.table.get(key(at));
    if (connection !== undefined && header.operation === 'request' && connection.state === SHUT) {
      // The guest has forgotten the old one and uses its port again.
      this.forget(connection);
      connection = undefined;
    }
    if (connection !== undefined && connection.type === header.type) this.operate(connection, header, payload);
    else if (header.operation === 'rst') return;
    else if (connection === undefined && header.operation === 'request') this.open(header, at);
    else this.oweReset(at);
  }

  private operate(connection: VsockConnection, header: VsockHeader, payload: Uint8Array): void {
    const { state } = connection;
    if (header.operation === 'rst') {
      this.guestReset(connection);
      return;
    }
    let allowed = connection.send.told(header.bufferAllocation, header.forwardCount);
    switch (header.operation) {
      case 'response':
        allowed &&= state === REQUESTED && (connection.owed & OWES_REQUEST) === 0;
        if (allowed) this.answered(connection);
        break;
      case 'rw':
        if (state === SHUT) return; // sent before the guest knew
        allowed &&= state === ESTABLISHED && !connection.guestEnded;
        allowed &&= connection.accept(payload, (header.flags & END_OF_MESSAGE) !== 0);
        break;
      case 'credit-request':
        this.owe(connection, OWES_UPDATE);
        break;
      case 'credit-update':
        break;
      case 'shutdown':
        allowed &&= state !== REQUESTED;
        if ((header.flags & NO_SEND) !== 0) connection.guestEnded = true;
        if ((header.flags & NO_RECEIVE) !== 0) connection.refuseFromGuest();
        break;
      default:
        allowed = false;
    }
    if (allowed) this.moved(connection);
    else this.violated(connection);
  }

  private open(header: VsockHeader, at: Address): void {
    const messages = at.type === VSOCK_SEQPACKET;
    const known = at.type === VSOCK_STREAM || (messages && this.seqpacket);
    const stream = known && this.makePlace() ? this.host.connect(at.hostPort, at.type) : null;
    if (stream === null) {
      this.oweReset(at);
      return;
    }
    const connection = this.add({ ...at, messages }, ESTABLISHED, stream);
    this.owe(connection, OWES_RESPONSE);
    if (connection.send.told(header.bufferAllocation, header.forwardCount)) this.moved(connection);
    else this.violated(connection);
  }

  /** Somebody on the host calls the guest. False where there is no place. */
  call(caller: Caller): boolean {
    if (!this.makePlace()) return false;
    const hostPort = this.callerPort(caller.port);
    const at = { guestPort: caller.port, hostPort, type: VSOCK_STREAM, messages: false };
    const connection = this.add(at, REQUESTED, caller.stream);
    connection.fromHost.push(caller.rest);
    const late = () => {
      this.reset(connection);
      this.wake();
    };
    this.calls.set(connection, { caller, cancel: this.timers.after(ANSWER_LIMIT_MS, late) });
    this.owe(connection, OWES_REQUEST);
    this.wake();
    return true;
  }

  private answered(connection: VsockConnection): void {
    connection.state = ESTABLISHED;
    const call = this.calls.get(connection);
    call?.cancel();
    this.calls.delete(connection);
    const greeting = call?.caller.greeting(connection.hostPort);
    if (greeting !== undefined && !connection.greet(greeting)) connection.hostRefuses = true;
  }

  /** The guest has forgotten the connection. What it sent before an orderly end still reaches the host. */
  private guestReset(connection: VsockConnection): void {
    const { guestEnded, toHost, state } = connection;
    if (state !== ESTABLISHED || !guestEnded || toHost.length === 0) {
      this.forget(connection);
      return;
    }
    this.drop(connection);
    connection.refuseFromGuest();
    this.draining.add(connection);
    this.drain(connection);
  }

  private drain(connection: VsockConnection): void {
    connection.flush();
    if (connection.toHost.length === 0) this.forget(connection);
    else connection.wait(true);
  }

  private ready(connection: VsockConnection, events: number): void {
    if (this.draining.has(connection)) {
      this.drain(connection);
      return;
    }
    if ((events & ~WRITABLE) !== 0 && connection.mayPull) this.readable.add(connection);
    if ((events & HANGUP) !== 0 && connection.state === REQUESTED) this.reset(connection);
    else this.moved(connection);
    this.wake();
  }

  /** After any change: sends on what can be sent, owes what is owed, ends what is done, waits for the rest. */
  private moved(connection: VsockConnection): void {
    if (connection.state === ESTABLISHED) {
      connection.flush();
      if (connection.receive.updateDue) this.owe(connection, OWES_UPDATE);
    }
    const guestDone = connection.guestEnded && connection.guestRefuses;
    if (guestDone && (connection.state === SHUT || connection.toHost.length === 0)) {
      this.reset(connection);
      return;
    }
    if ((connection.ended & ~connection.told) !== 0) this.owe(connection, OWES_SHUTDOWN);
    if (connection.mayPull && (connection.fromHost.length > 0 || connection.hungUp)) this.readable.add(connection);
    connection.wait(this.readable.has(connection));
  }

  /** Is there a packet for the guest? Reads from the streams whose turn it is until there is one. */
  prepare(): boolean {
    if (this.resets.length > 0 || this.owing.size > 0) return true;
    for (const connection of this.readable) {
      let found = DRY;
      if (connection.mayPull) found = connection.fromHost.length > 0 ? PULLED : connection.pull(this.scratch);
      if (found === PULLED) return true;
      this.readable.delete(connection);
      if (found === LOST) this.reset(connection);
      else if (found === ENDED) this.moved(connection);
      else connection.wait(false);
      if (this.resets.length > 0 || this.owing.size > 0) return true;
    }
    return false;
  }

  /** The packet that `prepare` found, with at most `room` bytes of payload; null where that is too little. */
  next(room: number): Packet | null {
    const reset = this.resets.shift();
    if (reset !== undefined) return { header: this.header(reset, 'rst', 0, 0, 0, 0), payload: NO_PAYLOAD };
    for (const connection of this.owing) return this.nextOwed(connection);
    for (const connection of this.readable) {
      if (connection.mayPull && connection.fromHost.length > 0) return this.nextData(connection, room);
    }
    return null;
  }

  private nextOwed(connection: VsockConnection): Packet {
    const [bit, operation] = OWED.find(([one]) => (connection.owed & one) !== 0) ?? [OWES_UPDATE, 'credit-update'];
    // Every packet carries the credit.
    connection.owed &= ~(bit | OWES_UPDATE);
    if (connection.owed === 0) this.owing.delete(connection);
    let flags = 0;
    if (operation === 'shutdown') {
      flags = connection.ended;
      connection.told |= flags;
      if (connection.told === (NO_RECEIVE | NO_SEND)) {
        connection.state = SHUT;
        this.readable.delete(connection);
        connection.close();
      }
    }
    return { header: this.headerOf(connection, operation, 0, flags), payload: NO_PAYLOAD };
  }

  private nextData(connection: VsockConnection, room: number): Packet | null {
    const length = Math.min(room, connection.send.room, connection.fromHost.length);
    if (length <= 0) return null;
    const payload = connection.fromHost.front(length);
    connection.fromHost.drop(length);
    connection.send.spend(length);
    const whole = connection.messages !== null && connection.fromHost.length === 0;
    // To the end of the line.
    this.readable.delete(connection);
    this.readable.add(connection);
    return { header: this.headerOf(connection, 'rw', length, whole ? END_OF_MESSAGE : 0), payload };
  }

  private headerOf(connection: VsockConnection, operation: VsockOperation, length: number, flags: number): VsockHeader {
    const { receive } = connection;
    receive.tell();
    return this.header(connection, operation, length, flags, receive.allocation, receive.forwarded);
  }

  private header(
    at: Address,
    operation: VsockOperation,
    length: number,
    flags: number,
    bufferAllocation: number,
    forwardCount: number,
  ): VsockHeader {
    return {
      sourceCid: HOST_CID,
      destinationCid: this.guestCid,
      sourcePort: at.hostPort,
      destinationPort: at.guestPort,
      length,
      type: at.type,
      operation,
      flags,
      bufferAllocation,
      forwardCount,
    };
  }

  private add(at: Address & { readonly messages: boolean }, state: number, stream: HostStream): VsockConnection {
    const connection = new VsockConnection(at, state, stream, (one, events) => this.ready(one, events));
    this.table.set(key(at), connection);
    return connection;
  }

  /** Is there room for one more? Those that only wait for the guest's RST give way, the oldest first. */
  private makePlace(): boolean {
    if (this.size < this.limit) return true;
    for (const connection of this.table.values()) {
      if (connection.state !== SHUT) continue;
      this.reset(connection);
      return true;
    }
    this.counts.refused++;
    return false;
  }

  /** A port that no connection with `guestPort` has; there are fewer connections than ports. */
  private callerPort(guestPort: number): number {
    for (;;) {
      const hostPort = this.nextCallerPort;
      this.nextCallerPort = hostPort === LAST_CALLER_PORT ? FIRST_CALLER_PORT : hostPort + 1;
      if (!this.table.has(key({ guestPort, hostPort }))) return hostPort;
    }
  }

  private owe(connection: VsockConnection, what: number): void {
    connection.owed |= what;
    this.owing.add(connection);
  }

  private oweReset(at: Address): void {
    if (this.resets.length < RESETS_LIMIT) {
      this.resets.push({ guestPort: at.guestPort, hostPort: at.hostPort, type: at.type });
    } else {
      this.counts.lostResets++;
    }
  }

  private violated(connection: VsockConnection): void {
    this.counts.violations++;
    this.reset(connection);
  }

  /** Ends a connection and tells the guest. */
  private reset(connection: VsockConnection): void {
    // A REQUEST that was never sent needs no RST.
    if ((connection.owed & OWES_REQUEST) === 0) this.oweReset(connection);
    this.forget(connection);
  }

  private forget(connection: VsockConnection): void {
    this.drop(connection);
    this.draining.delete(connection);
    connection.close();
  }

  /** Takes it out of everything that leads to packets. */
  private drop(connection: VsockConnection): void {
    // Of one that is draining, another may have the name by now.
    if (this.table.get(key(connection)) === connection) this.table.delete(key(connection));
    this.owing.delete(connection);
    this.readable.delete(connection);
    this.calls.get(connection)?.cancel();
    this.calls.delete(connection);
  }

  /** Ends every connection without a word: the guest is gone, or is told in another way. */
  clear(): void {
    for (const connection of [...this.table.values(), ...this.draining]) this.forget(connection);
    this.resets.length = 0;
  }
}

/** In the order in which they are sent. */
const OWED: readonly (readonly [number, VsockOperation])[] = [
  [OWES_REQUEST, 'request'],
  [OWES_RESPONSE, 'response'],
  [OWES_SHUTDOWN, 'shutdown'],
  [OWES_UPDATE, 'credit-update'],
];

function key(at: { readonly guestPort: number; readonly hostPort: number }): string {
  return `${at.guestPort}:${at.hostPort}`;
}
