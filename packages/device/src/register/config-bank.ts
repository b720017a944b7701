import type { Bank } from '../pci/register.ts';
import type { DeviceSide } from './device-side.ts';

/** The device's configuration space where a transport shows it; beyond its end there are zeros. */
export function deviceConfigBank(side: DeviceSide, size: number): Bank {
  return {
    size,
    read(offset, into) {
      const config = side.served.readConfig();
      for (let i = 0; i < into.length; i++) into[i] = config[offset + i] ?? 0;
    },
    write(offset, bytes) {
      side.served.writeConfig(offset, bytes);
    },
  };
}
