/** The control queues of a console with several ports: who is there, and what the guest is to be told. VIRTIO 1.4 §5.3.6.2. */
import { type ConsoleControl, encodeConsoleControl, parseConsoleControl } from '@airlock/virtio/request/console.ts';
import type { ConsolePort } from './port.ts';

export interface ConsoleSize {
  readonly columns: number;
  readonly rows: number;
}

// What is owed for a port, each at most once, in the order in which it is sent.
const OWES_ADD = 1;
const OWES_CONSOLE = 2;
const OWES_SIZE = 4;
const OWES_NAME = 8;
const OWES_CLOSE = 16;
const OWES_OPEN = 32;
const OWED_BITS = [OWES_ADD, OWES_CONSOLE, OWES_SIZE, OWES_NAME, OWES_CLOSE, OWES_OPEN];

interface PortState {
  readonly port: ConsolePort;
  owed: number;
  /** The driver has made it. */
  ready: boolean;
  /** What the driver was told of the host's end. */
  told: boolean;
}

export class ConsoleControlSide {
  /** Messages of the guest that made no sense. */
  malformed = 0;
  private readonly states: readonly PortState[];
  private readonly size: ConsoleSize | null;

  constructor(ports: readonly ConsolePort[], size: ConsoleSize | null) {
    this.states = ports.map((port) => ({ port, owed: 0, ready: false, told: false }));
    this.size = size;
  }

  /** A new driver knows of nothing yet. */
  reset(): void {
    for (const state of this.states) Object.assign(state, { owed: 0, ready: false, told: false });
  }

  /** The driver was here before this process: it has its ports, and what it knows of their ends is told anew. */
  resume(): void {
    for (const state of this.states) {
      state.ready = true;
      state.owed = OWES_CLOSE;
      if (state.port.connected) state.owed |= OWES_OPEN;
      state.told = state.port.connected;
      state.port.accept(true);
    }
  }

  /** A message of the guest's. */
  receive(bytes: Uint8Array): void {
    const parsed = parseConsoleControl(bytes, this.states.length);
    if (!parsed.ok) {
      this.malformed++;
      return;
    }
    const { event, value, port } = parsed.value;
    if (event === 'device-ready') {
      this.reset();
      if (value === 1) for (const state of this.states) state.owed = OWES_ADD;
      return;
    }
    const state = this.states[port];
    if (state === undefined) return;
    if (event === 'port-ready') this.portReady(state, value === 1);
    else if (event === 'port-open') state.port.accept(value === 1 || state.port.isConsole);
    else this.malformed++;
  }

  private portReady(state: PortState, ready: boolean): void {
    state.ready = ready;
    state.owed = 0;
    state.told = false;
    if (!ready) {
      state.port.accept(false);
      return;
    }
    if (state.port.isConsole) {
      state.owed |= OWES_CONSOLE;
      if (this.size !== null) state.owed |= OWES_SIZE;
      state.port.accept(true);
    }
    if (state.port.name !== '') state.owed |= OWES_NAME;
    this.changed(state.port);
  }

  /** Somebody came to the host's end of a port, or left. */
  changed(port: ConsolePort): void {
    const state = this.states.find((one) => one.port === port);
    if (state === undefined || !state.ready) return;
    state.owed &= ~OWES_OPEN;
    // Whoever came after somebody left is somebody else, also where the guest has not heard of the leaving yet.
    if (state.told) state.owed |= OWES_CLOSE;
    if (port.connected) state.owed |= OWES_OPEN;
  }

  get owing(): boolean {
    return this.states.some(({ owed }) => owed !== 0);
  }

  /** The next message for the guest. */
  next(): Uint8Array | null {
    for (const [index, state] of this.states.entries()) {
      const bit = OWED_BITS.find((one) => (state.owed & one) !== 0);
      if (bit === undefined) continue;
      state.owed &= ~bit;
      return encodeConsoleControl(this.message(index, state, bit));
    }
    return null;
  }

  private message(port: number, state: PortState, bit: number): ConsoleControl {
    switch (bit) {
      case OWES_ADD:
        return { port, event: 'device-add', value: 0 };
      case OWES_CONSOLE:
        return { port, event: 'console-port', value: 1 };
      case OWES_SIZE:
        return { port, event: 'resize', value: 0, size: this.size ?? { columns: 0, rows: 0 } };
      case OWES_NAME:
        return { port, event: 'port-name', value: 0, name: Uint8Array.from(state.port.name, (c) => c.charCodeAt(0)) };
      default:
        state.told = bit === OWES_OPEN;
        return { port, event: 'port-open', value: bit === OWES_OPEN ? 1 : 0 };
    }
  }
}
