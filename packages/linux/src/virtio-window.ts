/**
 * What a virtio function offers before any driver is bound, read through the VIRTIO_PCI_CAP_PCI_CFG window of its
 * configuration space (VIRTIO 1.3 §4.1.4.9). It writes configuration space and the device's feature selector, so it is
 * for the gate and `--probe` only, and only for a function without a driver. No BAR is mapped and memory decoding is
 * not needed: the device itself makes the access.
 */
import { readLe } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { Files } from './files.ts';
import {
  readHeader,
  STANDARD_CONFIG,
  VIRTIO_CAPABILITY,
  type VirtioCapability,
  virtioCapabilities,
  walkCapabilities,
} from './pci-config.ts';

/** Offsets in struct virtio_pci_common_cfg, §4.1.4.3. */
const FEATURE_SELECT = 0;
const FEATURE = 4;
/** Up to and with config_generation; queue registers are not read. */
const COMMON_SIZE = 0x38;

export interface Offered {
  /** Bits that are set, ascending. */
  readonly bits: readonly number[];
}

/**
 * Offered feature bits, of the first `words` times 32, of the function whose configuration space `path` is. The window
 * and the selector are left as they were found. Codes: those of `Files`, and
 * `probe-no-window` (a legacy function, or one that does not have the capability that every modern one must have),
 * `probe-malformed` (capabilities that cannot be), `probe-lied` (the window does not give back what was put in).
 */
export async function readOffered(files: Files, path: string, words: 2 | 4 = 4): Promise<Result<Offered>> {
  const config = await files.readAt(path, 0, STANDARD_CONFIG);
  if (!config.ok) return config;
  const found = findWindow(config.value);
  if (!found.ok) return found;
  const { window, common } = found.value;
  const hand = windowHand(files, path, window, common);
  const result = await readThrough(hand, words);
  const closed = await hand.restore(config.value.slice(window.at + 4, window.at + 16));
  return result.ok && !closed.ok ? closed : result;
}

/** Both capabilities that a probe needs, checked. */
export function findWindow(
  config: Uint8Array,
): Result<{ readonly window: VirtioCapability; readonly common: VirtioCapability }> {
  const header = readHeader(config);
  if (header === undefined) return fail('file-missing', 'configuration space reads as all ones: the device has gone');
  if (header.layout !== 0) return fail('probe-malformed', 'a virtio function with the header of a bridge');
  const walk = walkCapabilities(config);
  const all = virtioCapabilities(config, walk);
  // The first of each type counts (§4.1.4); Linux takes the first too.
  const common = all.find(({ type }) => type === VIRTIO_CAPABILITY.common);
  const window = all.find(({ type }) => type === VIRTIO_CAPABILITY.pciCfg);
  if (common === undefined || window === undefined) {
    if (walk.broken !== undefined) return fail('probe-malformed', `capabilities: ${walk.broken}`);
    return fail(
      'probe-no-window',
      common === undefined
        ? 'no common configuration: a legacy virtio function'
        : 'no PCI configuration access capability',
    );
  }
  const sound =
    window.size >= 20 &&
    window.at % 4 === 0 &&
    window.at + 20 <= STANDARD_CONFIG &&
    Math.abs(window.at - common.at) >= 16 &&
    common.bar <= 5 &&
    common.offset % 4 === 0 &&
    common.length >= COMMON_SIZE &&
    common.offset + common.length <= 0x1_0000_0000;
  return sound ? ok({ window, common }) : fail('probe-malformed', 'virtio capabilities of impossible size or place');
}

interface WindowHand {
  read(register: number): Promise<Result<number>>;
  write(register: number, value: number): Promise<Result<void>>;
  restore(saved: Uint8Array): Promise<Result<void>>;
}

/** Accesses of 32 bits to registers of the common configuration. The kernel writes what it is given word by word, upwards. */
function windowHand(files: Files, path: string, window: VirtioCapability, common: VirtioCapability): WindowHand {
  const barAt = window.at + 4;
  const offsetAt = window.at + 8;
  const dataAt = window.at + 16;
  const where = (register: number) => [...le32(common.offset + register), ...le32(4)];
  let aimed = -1;

  return {
    async read(register) {
      if (aimed !== register) {
        // The first time with the BAR; what shares its word is reserved and zero.
        const first = aimed === -1;
        const bytes = Uint8Array.from(first ? [common.bar, 0, 0, 0, ...where(register)] : where(register));
        const written = await files.write(path, bytes, first ? barAt : offsetAt);
        if (!written.ok) return written;
        aimed = register;
      }
      const bytes = await files.readAt(path, dataAt, 4);
      if (!bytes.ok) return bytes;
      const value = readLe(bytes.value, 0, 4);
      return value === undefined ? fail('probe-lied', 'configuration space ends inside the window') : ok(value);
    },
    write(register, value) {
      aimed = register;
      return files.write(path, Uint8Array.from([...where(register), ...le32(value)]), offsetAt);
    },
    restore: (saved) => files.write(path, saved, barAt),
  };
}

async function readThrough(hand: WindowHand, words: number): Promise<Result<Offered>> {
  const before = await hand.read(FEATURE_SELECT);
  if (!before.ok) return before;
  const result = await readWords(hand, words, before.value);
  const restored = await hand.write(FEATURE_SELECT, before.value);
  return result.ok && !restored.ok ? restored : result;
}

/** A selector that no device has features for. */
const NOWHERE = 0x5a5a;

async function readWords(hand: WindowHand, words: number, selected: number): Promise<Result<Offered>> {
  const bits: number[] = [];
  let parrot = true;
  for (let word = 0; word < words; word++) {
    if (word !== 0 || selected !== 0) {
      const written = await hand.write(FEATURE_SELECT, word);
      if (!written.ok) return written;
      const echo = await hand.read(FEATURE_SELECT);
      if (!echo.ok) return echo;
      if (echo.value !== word) {
        // Without the echo the same word would be taken for all. Words 2 and 3 need not exist.
        return word < 2
          ? fail('probe-lied', `feature selector reads ${echo.value} after ${word} was written`)
          : ok({ bits });
      }
    }
    const value = await hand.read(FEATURE);
    if (!value.ok) return value;
    for (let bit = 0; bit < 32; bit++) if ((value.value >>> bit) & 1) bits.push(word * 32 + bit);
    parrot &&= value.value === word;
  }
  if (!parrot) return ok({ bits });
  // Each word reads as its own number: a device with VERSION_1 alone, or memory with no device behind it.
  const written = await hand.write(FEATURE_SELECT, NOWHERE);
  if (!written.ok) return written;
  const value = await hand.read(FEATURE);
  if (!value.ok) return value;
  return value.value === NOWHERE ? fail('probe-lied', 'the window gives back whatever was written last') : ok({ bits });
}

function le32(value: number): Uint8Array {
  return Uint8Array.of(value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, (value >>> 24) & 0xff);
}
