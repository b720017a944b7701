/** A console whose driver and whose host ends a test plays. */
import assert from 'node:assert/strict';
import { CONTROL_RX, CONTROL_TX, ConsoleDevice } from '@airlock/device/console/console-device.ts';
import type { ConsoleSize } from '@airlock/device/console/control.ts';
import type { PortEnd } from '@airlock/device/console/port-end.ts';
import {
  type ConsoleControl,
  type ConsoleEvent,
  encodeConsoleControl,
  parseConsoleControl,
} from '@airlock/virtio/request/console.ts';
import { DONE } from '@airlock/virtio/ring/queue.ts';
import { FakeStream } from './fake-stream.ts';
import { type DriveOptions, drive, must } from './in-memory-driver.ts';

export class FakeEnd implements PortEnd {
  stream: FakeStream | null = null;
  closed = false;
  private changed: () => void = () => {};

  begin(changed: () => void): void {
    this.changed = changed;
  }
  connect(): FakeStream {
    this.stream = new FakeStream();
    this.changed();
    return this.stream;
  }
  lost(): void {
    if (this.stream === null) return;
    this.stream.close();
    this.stream = null;
    this.changed();
  }
  close(): void {
    this.closed = true;
    this.stream?.close();
  }
}

export interface FakePort {
  readonly name?: string;
  readonly isConsole?: boolean;
}

export function consoleGuest(
  ports: readonly FakePort[],
  options: DriveOptions & { readonly console?: ConsoleSize; readonly ends?: readonly FakeEnd[] } = {},
) {
  const ends = options.ends ?? ports.map(() => new FakeEnd());
  const device = new ConsoleDevice({
    ports: ports.map(({ name = '', isConsole = false }, i) => {
      const end = ends[i];
      assert.ok(end !== undefined);
      return { name, isConsole, end };
    }),
    size: options.console ?? null,
  });
  const driven = drive(device, { size: 16, ...options });
  const queue = (index: number) => {
    const found = driven.queues[index];
    assert.ok(found !== undefined);
    return found.driver;
  };
  const rxOf = (port: number) => (port === 0 ? 0 : 2 * port + 2);
  return {
    device,
    driven,
    ends,
    queue,
    end(port: number): FakeEnd {
      const end = ends[port];
      assert.ok(end !== undefined);
      return end;
    },
    /** Puts bytes into a transmit queue; false when the ring is full. */
    send(port: number, bytes: Uint8Array, index = rxOf(port) + 1): boolean {
      const address = driven.allocate(Math.max(bytes.length, 1));
      driven.at(address, bytes.length).set(bytes);
      if (bytes.length > 0) queue(index).readable(address, bytes.length);
      else queue(index).writable(address, 1);
      const outcome = queue(index).submit(bytes.length);
      queue(index).publish();
      device.serve(index);
      return outcome === DONE;
    },
    /** How many transmitted buffers came back. */
    returned(port: number): number {
      let count = 0;
      while (queue(rxOf(port) + 1).complete() === DONE) count++;
      return count;
    },
    control(event: ConsoleEvent, port: number, value = 1): void {
      this.send(0, encodeConsoleControl({ port, event, value }), CONTROL_TX);
      assert.equal(queue(CONTROL_TX).complete(), DONE);
    },
    /** Gives receive buffers of a queue. */
    give(index: number, count = 1, length = 256): void {
      for (let i = 0; i < count; i++) {
        const address = driven.allocate(length);
        queue(index).writable(address, length);
        assert.equal(queue(index).submit(address), DONE);
      }
      queue(index).publish();
      device.serve(index);
    },
    /** Bytes that came into a receive queue. */
    got(index: number): Uint8Array[] {
      const found: Uint8Array[] = [];
      while (queue(index).complete() === DONE) found.push(driven.at(queue(index).token, queue(index).written).slice());
      return found;
    },
    rx: rxOf,
    /** Control messages for the guest, with buffers for them. */
    told(): ConsoleControl[] {
      const messages = this.got(CONTROL_RX);
      this.give(CONTROL_RX, 16 - queue(CONTROL_RX).inFlight);
      messages.push(...this.got(CONTROL_RX));
      return messages.map((bytes) => must(parseConsoleControl(bytes, ports.length)));
    },
    /** In a few words. */
    words(): string[] {
      return this.told().map(({ event, port, value }) => `${event} ${port} ${value}`);
    },
  };
}
