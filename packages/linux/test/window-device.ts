/**
 * A virtio function's configuration space with a working PCI_CFG window, as `Files`: the kernel's splitting of writes
 * into words, and a device behind it that can be made to misbehave.
 */
import { fail, ok } from '@airlock/core/result.ts';
import { fakeFiles } from '../src/fake-files.ts';
import type { Files } from '../src/files.ts';

export interface WindowDevice {
  readonly files: Files;
  readonly config: Uint8Array;
  /** Registers of the common configuration that were written, in order. */
  readonly registerWrites: { register: number; value: number }[];
  writes: number;
}

export interface Behaviour {
  readonly offered?: bigint;
  /** What the selector reads after `value` was written to it. */
  readonly echo?: (value: number) => number;
  /** The write with this number (from 1) fails. */
  readonly failAt?: number;
  /** Feature selector before the probe. */
  readonly selected?: number;
  /** BAR, offset, length of the window before the probe. */
  readonly left?: readonly [number, number, number];
}

export const CONFIG = '/sys/devices/pci0000:00/0000:00:03.0/config';
const WINDOW = 0x84;
const COMMON = 0x40;

export function windowDevice(behaviour: Behaviour = {}): WindowDevice {
  const config = new Uint8Array(256);
  const view = new DataView(config.buffer);
  view.setUint32(0, 0x1042_1af4, true);
  view.setUint16(6, 0x10, true);
  view.setUint32(8, 0x018000_01, true);
  config[0x34] = WINDOW;
  config.set([0x09, COMMON, 20, 5], WINDOW);
  config.set([0x09, 0, 16, 1, 4], COMMON);
  view.setUint32(COMMON + 8, 0x2000, true);
  view.setUint32(COMMON + 12, 0x1000, true);
  const [bar, offset, length] = behaviour.left ?? [0, 0, 0];
  config[WINDOW + 4] = bar;
  view.setUint32(WINDOW + 8, offset, true);
  view.setUint32(WINDOW + 12, length, true);

  let selected = behaviour.selected ?? 0;
  const offered = behaviour.offered ?? 0n;
  const device: WindowDevice = { files: fakeFiles(), config, registerWrites: [], writes: 0 };

  function target(): number | undefined {
    const where = view.getUint32(WINDOW + 8, true) - 0x2000;
    return config[WINDOW + 4] === 4 && view.getUint32(WINDOW + 12, true) === 4 && where >= 0 && where < 0x38
      ? where
      : undefined;
  }
  function access(write: boolean): void {
    const register = target();
    if (register === undefined) return;
    if (write) {
      const value = view.getUint32(WINDOW + 16, true);
      device.registerWrites.push({ register, value });
      if (register === 0) selected = behaviour.echo?.(value) ?? value;
    } else {
      const word = selected < 4 ? Number((offered >> BigInt(32 * selected)) & 0xffff_ffffn) : 0;
      view.setUint32(WINDOW + 16, register === 0 ? selected : register === 4 ? word : 0, true);
    }
  }
  const files: Files = {
    ...fakeFiles(),
    async readAt(path, at, count) {
      if (path !== CONFIG) return fail('file-missing', `${path}: ENOENT`);
      if (at <= WINDOW + 16 && at + count > WINDOW + 16) access(false);
      return ok(config.slice(at, at + count));
    },
    async write(path, data, at = 0) {
      if (path !== CONFIG || typeof data === 'string') return fail('file-missing', `${path}: ENOENT`);
      device.writes++;
      if (device.writes === behaviour.failAt) return fail('file-denied', `${path}: EPERM`);
      for (let i = 0; i < data.length; i += 4) {
        // Only BAR, offset, length and data of the window can be written.
        for (let j = i; j < Math.min(i + 4, data.length); j++) {
          const place = at + j;
          if (place === WINDOW + 4 || (place >= WINDOW + 8 && place < WINDOW + 20)) config[place] = data[j] ?? 0;
        }
        if (at + i === WINDOW + 16) access(true);
      }
      return ok(undefined);
    },
  };
  return {
    ...device,
    files,
    get writes() {
      return device.writes;
    },
  };
}

/** BAR, offset and length of the window as they stand. */
export function windowState(device: WindowDevice): readonly [number | undefined, number, number] {
  const view = new DataView(device.config.buffer);
  return [device.config[WINDOW + 4], view.getUint32(WINDOW + 8, true), view.getUint32(WINDOW + 12, true)];
}
