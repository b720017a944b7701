/** Registers that every transport of registers has: selectors, and those of the queue that is selected. */
import type { Register } from '../pci/register.ts';
import type { DeviceSide, QueueSetup } from './device-side.ts';

/** Which feature word or which queue the other registers speak of. */
export interface Selected {
  device: number;
  driver: number;
  queue: number;
}

export class QueueRegisters {
  readonly selected: Selected = { device: 0, driver: 0, queue: 0 };
  private readonly side: DeviceSide;

  constructor(side: DeviceSide) {
    this.side = side;
  }

  get queue(): QueueSetup | undefined {
    return this.side.queues[this.selected.queue];
  }

  selector(name: string, bytes: 2 | 4, key: keyof Selected): Register {
    const { selected } = this;
    return {
      name,
      bytes,
      read: () => selected[key],
      write(value, enabled) {
        selected[key] = ((selected[key] & ~enabled) | (value & enabled)) >>> 0;
      },
      reset() {
        selected[key] = 0;
      },
    };
  }

  offeredFeatures(name: string): Register {
    return { name, bytes: 4, read: () => this.side.offered[this.selected.device] ?? 0, write() {} };
  }

  driverFeatures(name: string): Register {
    return {
      name,
      bytes: 4,
      read: () => this.side.driverFeatures[this.selected.driver] ?? 0,
      write: (value) => this.side.writeFeatures(this.selected.driver, value),
    };
  }

  /** A half of an address; an enabled queue's does not move (§4.1.4.3.2, §4.2.2.2). */
  half(name: string, key: 'descriptors' | 'driver' | 'device', high: boolean): Register {
    return {
      name,
      bytes: 4,
      read: () => {
        const address = this.queue?.[key] ?? 0;
        return high ? Math.floor(address / 2 ** 32) : address % 2 ** 32;
      },
      write: (value, enabled) => {
        const setup = this.queue;
        if (setup === undefined || setup.enabled) return;
        const [low, top] = [setup[key] % 2 ** 32, Math.floor(setup[key] / 2 ** 32)];
        const now = (((high ? top : low) & ~enabled) | (value & enabled)) >>> 0;
        setup[key] = high ? now * 2 ** 32 + low : top * 2 ** 32 + now;
      },
    };
  }

  size(name: string, bytes: 2 | 4): Register {
    return {
      name,
      bytes,
      read: () => this.queue?.size ?? 0,
      write: (value) => {
        const setup = this.queue;
        if (setup !== undefined && !setup.enabled && value >= 1 && value <= setup.most) setup.size = value;
      },
    };
  }

  enable(name: string, bytes: 2 | 4): Register {
    return {
      name,
      bytes,
      read: () => (this.queue?.enabled ? 1 : 0),
      write: (value) => {
        if (value === 1) this.side.enableQueue(this.selected.queue);
      },
    };
  }

  reset(name: string, bytes: 2 | 4): Register {
    return {
      name,
      bytes,
      // A reset is over when the write is (§4.1.4.3.1).
      read: () => 0,
      write: (value) => {
        if (value === 1) this.side.resetQueue(this.selected.queue);
      },
    };
  }

  status(name: string, bytes: 1 | 4): Register {
    return { name, bytes, read: () => this.side.status, write: (value) => this.side.writeStatus(value & 0xff) };
  }

  generation(name: string, bytes: 1 | 4): Register {
    return { name, bytes, read: () => this.side.generation, write() {} };
  }
}
