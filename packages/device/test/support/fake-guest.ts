/** A hub with a guest and a host that a test plays. */

import type { Caller, HostSide } from '@airlock/device/vsock/host-side.ts';
import { HOST_CID, type Packet, VsockHub } from '@airlock/device/vsock/hub.ts';
import type { VsockHeader, VsockOperation } from '@airlock/virtio/request/vsock.ts';
import { FakeStream, FakeTimers } from './fake-stream.ts';

export const GUEST_CID = 7;
export const STREAM = 1;
export const SEQPACKET = 2;
const NOTHING = new Uint8Array(0);

export class FakeHost implements HostSide {
  /** Ports that somebody serves. */
  readonly served = new Set<number>([80]);
  readonly streams: FakeStream[] = [];
  call: ((caller: Caller) => boolean) | null = null;
  /** Room of streams that are opened from now on. */
  room = Number.POSITIVE_INFINITY;

  connect(port: number, type: number): FakeStream | null {
    if (!this.served.has(port)) return null;
    const stream = new FakeStream({ messages: type === SEQPACKET });
    stream.room = this.room;
    this.streams.push(stream);
    return stream;
  }
  begin(call: (caller: Caller) => boolean): void {
    this.call = call;
  }
  end(): void {
    this.call = null;
  }
  close(): void {}
  /** The last stream. */
  get stream(): FakeStream {
    const stream = this.streams.at(-1);
    if (stream === undefined) throw new Error('no stream yet');
    return stream;
  }
}

export interface Sent {
  readonly header: VsockHeader;
  readonly payload: Uint8Array;
}

export class FakeGuest {
  readonly host = new FakeHost();
  readonly timers = new FakeTimers();
  readonly hub: VsockHub;
  woken = 0;

  constructor(connections = 8) {
    this.hub = new VsockHub({ guestCid: GUEST_CID, connections }, this.host, this.timers, () => {
      this.woken++;
    });
    this.hub.seqpacket = true;
  }

  send(operation: VsockOperation, more: Partial<VsockHeader> = {}, payload: Uint8Array = NOTHING): void {
    const header: VsockHeader = {
      sourceCid: GUEST_CID,
      destinationCid: HOST_CID,
      sourcePort: 1000,
      destinationPort: 80,
      length: payload.length,
      type: STREAM,
      operation,
      flags: 0,
      bufferAllocation: 65536,
      forwardCount: 0,
      ...more,
    };
    this.hub.receive(header, payload);
  }

  /** What the hub has for the guest, each with at most `room` bytes of payload. */
  take(most = Number.POSITIVE_INFINITY, room = 4096): Sent[] {
    const sent: Sent[] = [];
    while (sent.length < most && this.hub.prepare()) {
      const packet: Packet | null = this.hub.next(room);
      if (packet === null) throw new Error('prepare promised a packet');
      sent.push({ header: packet.header, payload: packet.payload.slice() });
    }
    return sent;
  }

  operations(): string[] {
    return this.take().map(({ header }) => header.operation);
  }
}
