/** A console of one port, or of several with control queues between them. VIRTIO 1.4 §5.3. */
import { configSize, encodeConfig } from '@airlock/virtio/config/space.ts';
import { consoleDevice } from '@airlock/virtio/device/console.ts';
import { type Features, featureSet, hasFeature } from '@airlock/virtio/features.ts';
import { Chain } from '@airlock/virtio/ring/chain.ts';
import { BROKEN, type DeviceQueue, DONE, MALFORMED } from '@airlock/virtio/ring/queue.ts';
import type { DeviceLink, ServedDevice } from '@airlock/virtio/served-device.ts';
import { OFFERED_RING_FEATURES } from '../ring-features.ts';
import { ConsoleControlSide, type ConsoleSize } from './control.ts';
import { CHAIN_LIMIT, ConsolePort } from './port.ts';
import type { PortEnd } from './port-end.ts';

export const CONTROL_RX = 2;
export const CONTROL_TX = 3;
/** Two queues each, and the two of control. */
export const PORTS_LIMIT = 16;

const SIZE = 0;
const MULTIPORT = 1;
const EMERG_WRITE = 2;
const EMERG_WRITE_AT = 8;
const RING_PACKED = 34;
const QUEUE_SIZE = 128;
const TURN_CHAINS = 64;
/** The longest message that a guest sends; the rest of a longer one is nothing that anybody knows. */
const CONTROL_LIMIT = 256;

export interface PortOptions {
  /** Plain ASCII, or empty. */
  readonly name: string;
  readonly isConsole: boolean;
  readonly end: PortEnd;
}

export interface ConsoleOptions {
  /** 1 to 16. The first is the one of a driver that knows of one only. */
  readonly ports: readonly PortOptions[];
  readonly size: ConsoleSize | null;
}

export class ConsoleDevice implements ServedDevice {
  readonly type = consoleDevice;
  readonly features: Features;
  readonly queueSizes: readonly number[];
  readonly chainLimit = CHAIN_LIMIT;
  readonly ports: readonly ConsolePort[];

  private readonly config: Uint8Array;
  private readonly control: ConsoleControlSide;
  private readonly chain = new Chain(2 * CHAIN_LIMIT);
  private readonly message = new Uint8Array(CONTROL_LIMIT);
  private link: DeviceLink | null = null;
  private controlRx: DeviceQueue | null = null;
  private controlTx: DeviceQueue | null = null;
  private multiport = false;
  private controlBegun = false;

  constructor({ ports, size }: ConsoleOptions) {
    const bits = [...OFFERED_RING_FEATURES, MULTIPORT, EMERG_WRITE, ...(size === null ? [] : [SIZE])];
    this.features = featureSet(bits);
    const values = { max_nr_ports: ports.length, ...(size === null ? {} : { cols: size.columns, rows: size.rows }) };
    const config = encodeConfig(consoleDevice, this.features, values);
    this.config = config.ok ? config.value : new Uint8Array(configSize(consoleDevice));
    this.ports = ports.map((port, i) => new ConsolePort(port, i === 0 ? 0 : 2 * i + 2, port.end));
    this.queueSizes = Array.from({ length: 2 * ports.length + 2 }, () => QUEUE_SIZE);
    this.control = new ConsoleControlSide(this.ports, size);
    for (const port of this.ports) {
      port.begin(() => {
        this.control.changed(port);
        this.tell();
      });
    }
  }

  readConfig(): Uint8Array {
    return this.config;
  }

  writeConfig(offset: number, bytes: Uint8Array): boolean {
    const [byte] = bytes;
    if (offset !== EMERG_WRITE_AT || bytes.length > 4 || byte === undefined) return false;
    this.ports[0]?.emergency(byte);
    return true;
  }

  start(link: DeviceLink): void {
    this.link = link;
    this.multiport = hasFeature(link.features, MULTIPORT);
    this.controlBegun = false;
    this.control.reset();
    for (const port of this.ports) port.start(link);
    // Without control queues nobody says that the port is open: it always is.
    if (!this.multiport) this.ports[0]?.accept(true);
  }

  startQueue(index: number, queue: DeviceQueue): void {
    if (index === CONTROL_RX) this.controlRx = queue;
    else if (index === CONTROL_TX) this.startControl(queue);
    else this.portOf(index)?.startQueue(index, queue);
  }

  private startControl(queue: DeviceQueue): void {
    this.controlTx = queue;
    const { avail, used, availWrap } = queue.position();
    const packed = this.link !== null && hasFeature(this.link.features, RING_PACKED);
    // What a driver said to another process before this one is not said again.
    if (!this.controlBegun && (avail !== 0 || used !== 0 || availWrap !== packed)) this.control.resume();
    this.controlBegun = true;
  }

  stopQueue(index: number): void {
    if (index === CONTROL_RX) this.controlRx = null;
    else if (index === CONTROL_TX) this.controlTx = null;
    else this.portOf(index)?.stopQueue(index);
  }

  stop(): void {
    this.link = null;
    this.control.reset();
    for (const port of this.ports) port.stop();
  }

  close(): void {
    this.stop();
    for (const port of this.ports) port.close();
  }

  serve(index: number): number {
    if (index === CONTROL_TX) return this.listen();
    if (index === CONTROL_RX) return this.tell();
    return this.portOf(index)?.serve(index) ?? 0;
  }

  private portOf(index: number): ConsolePort | undefined {
    return this.ports[index < 2 ? 0 : (index >> 1) - 1];
  }

  /** Takes messages of the guest, and answers. */
  private listen(): number {
    const queue = this.controlTx;
    if (queue === null) return 0;
    let taken = 0;
    while (taken < TURN_CHAINS) {
      const outcome = queue.take(this.chain);
      if (outcome === DONE) {
        const length = this.chain.read(0, this.message);
        queue.give(this.chain.id, 0);
        this.control.receive(this.message.subarray(0, length));
      } else if (outcome === MALFORMED) {
        this.control.malformed++;
      } else {
        this.checkBroken(outcome, queue);
        break;
      }
      taken++;
    }
    if (taken > 0) {
      queue.publish();
      this.link?.notify(CONTROL_TX);
    }
    this.tell();
    return taken;
  }

  /** Gives the guest its messages, while there are buffers for them. */
  private tell(): number {
    const queue = this.controlRx;
    if (queue === null) return 0;
    let taken = 0;
    while (taken < TURN_CHAINS && this.control.owing) {
      const outcome = queue.take(this.chain);
      if (outcome === DONE) {
        // A buffer that is too small for it loses the message: it is the guest's own.
        const message = this.control.next();
        const fits = message !== null && message.length <= this.chain.writableBytes;
        queue.give(this.chain.id, fits ? this.chain.write(0, message) : 0);
      } else if (outcome === MALFORMED) {
        this.control.malformed++;
      } else {
        this.checkBroken(outcome, queue);
        break;
      }
      taken++;
    }
    if (taken > 0) {
      queue.publish();
      this.link?.notify(CONTROL_RX);
    }
    return taken;
  }

  private checkBroken(outcome: number, queue: DeviceQueue): void {
    if (outcome === BROKEN && queue.violation !== null) this.link?.needsReset(queue.violation);
  }
}
