/** The driver's side of virtio over PCI: it finds the structures by their capabilities and goes by the registers alone. */
import assert from 'node:assert/strict';
import { type Features, NO_FEATURES } from '@airlock/virtio/features.ts';
import { makeRegion, type Region } from '@airlock/virtio/memory/region.ts';
import { AddressSpace } from '@airlock/virtio/memory/space.ts';
import { createDriverQueue, ringFeatures } from '@airlock/virtio/ring/create.ts';
import type { DriverQueue } from '@airlock/virtio/ring/queue.ts';
import type { PciFunction } from '../../src/pci/function.ts';
import { type FakeLink, fakeLink } from './function-link.ts';

export const RAM = 0x1_0000_0000;
const RAM_SIZE = 1 << 20;
const CONFIG = 7;

export class RegisterDriver {
  readonly pci: PciFunction;
  readonly ram: Region;
  readonly link: FakeLink;
  readonly space: AddressSpace;
  private readonly structures = new Map<number, { bar: number; at: number; multiplier: number }>();
  private next = 0;

  constructor(pci: PciFunction) {
    this.pci = pci;
    this.space = new AddressSpace();
    const region = makeRegion('ram', new ArrayBuffer(RAM_SIZE));
    assert.ok(region.ok);
    this.ram = region.value;
    assert.ok(this.space.map({ start: RAM, size: RAM_SIZE, region: this.ram, offset: 0, access: 3 }).ok);
    this.link = fakeLink(this.space);
    pci.attach(this.link);
    this.find();
    this.config(4, 4, 0x6);
  }

  private find(): void {
    let at = this.config(0x34, 1);
    while (at !== 0) {
      if (this.config(at, 1) === 0x09) {
        const type = this.config(at + 3, 1);
        this.structures.set(type, {
          bar: this.config(at + 4, 1),
          at: this.config(at + 8, 4),
          multiplier: type === 2 ? this.config(at + 16, 4) : 0,
        });
      }
      at = this.config(at + 1, 1);
    }
  }

  private access(region: number, at: number, bytes: number, value?: number): number {
    const data = new Uint8Array(4);
    const view = new DataView(data.buffer);
    if (value === undefined) this.pci.readRegion(region, at, data.subarray(0, bytes));
    else {
      view.setUint32(0, value >>> 0, true);
      this.pci.writeRegion(region, at, data.subarray(0, bytes));
    }
    return view.getUint32(0, true);
  }

  /** Configuration space; reads without a value. */
  config(at: number, bytes: 1 | 2 | 4, value?: number): number {
    return this.access(CONFIG, at, bytes, value);
  }

  /** A place of structure `type`. */
  reg(type: number, at: number, bytes: 1 | 2 | 4, value?: number): number {
    const structure = this.structures.get(type);
    assert.ok(structure, `structure ${type}`);
    return this.access(structure.bar, structure.at + at, bytes, value);
  }

  common(at: number, bytes: 1 | 2 | 4, value?: number): number {
    return this.reg(1, at, bytes, value);
  }

  get status(): number {
    return this.common(0x14, 1);
  }

  set status(value: number) {
    this.common(0x14, 1, value);
  }

  offered(): Features {
    const word = (i: number) => {
      this.common(0, 4, i);
      return this.common(4, 4);
    };
    return [word(0), word(1), word(2), word(3)];
  }

  accept(features: Features): void {
    features.forEach((word, i) => {
      this.common(8, 4, i);
      this.common(12, 4, word);
    });
  }

  /** Up to FEATURES_OK; true when the device kept it. */
  negotiate(features: Features = NO_FEATURES): boolean {
    this.status = 0;
    this.status = 1;
    this.status = 3;
    this.accept(features);
    this.status = 11;
    return (this.status & 8) !== 0;
  }

  /** Memory of the driver's own; aligned to 4 KiB. */
  allocate(bytes: number): number {
    const at = this.next;
    this.next += Math.ceil(bytes / 4096) * 4096;
    assert.ok(this.next <= RAM_SIZE);
    return RAM + at;
  }

  /** Sets queue `index` up and enables it. */
  queue(index: number, size: number, features: Features, vector = 0xffff): DriverQueue {
    const addresses = {
      descriptors: this.allocate(16 * size),
      driver: this.allocate(4096),
      device: this.allocate(8192),
    };
    this.common(0x16, 2, index);
    this.common(0x18, 2, size);
    this.common(0x1a, 2, vector);
    for (const [at, address] of [
      [0x20, addresses.descriptors],
      [0x28, addresses.driver],
      [0x30, addresses.device],
    ] as const) {
      this.common(at, 4, address % 2 ** 32);
      this.common(at + 4, 4, Math.floor(address / 2 ** 32));
    }
    this.common(0x1c, 2, 1);
    const made = createDriverQueue(this.space, { size, features: ringFeatures(features), addresses });
    assert.ok(made.ok);
    return made.value;
  }

  kick(index: number): void {
    const multiplier = this.structures.get(2)?.multiplier ?? 0;
    this.common(0x16, 2, index);
    this.reg(2, this.common(0x1e, 2) * multiplier, 2, index);
  }
}
