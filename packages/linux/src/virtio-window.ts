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
const DEVICE_STATUS = 0x14;
/** Up to and with config_generation; queue registers are not read. */
const COMMON_SIZE = 0x38;

export interface Offered {
  /** Bits that are set, ascending, below 128. */
  readonly bits: readonly number[];
  /** Device status; 0 after a reset, and whatever firmware or a driver left otherwise. */
  readonly status: number;
}

/**
 * Offered feature bits of the function whose configuration space `path` is. Codes: those of `Files`, and
 * `probe-no-window` (a legacy function, or one that does not have the capability that every modern one must have),
 * `probe-malformed` (capabilities that cannot be), `probe-lied` (the window does not give back what was put in).
 */
export async function readOffered(files: Files, path: string): Promise<Result<Offered>> {
  const config = await files.readAt(path, 0, STANDARD_CONFIG);
  if (!config.ok) return config;
  const found = findWindow(config.value);
  if (!found.ok) return found;
  const { window, common } = found.value;
  const hand = windowHand(files, path, window, common);
  const saved = config.value.slice(window.at + 4, window.at + 16);

  const opened = await hand.open();
  const result = opened.ok ? await readThrough(hand) : opened;
  const closed = await hand.restore(saved);
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
  open(): Promise<Result<void>>;
  read(register: number, width: 1 | 4): Promise<Result<number>>;
  write(register: number, value: number): Promise<Result<void>>;
  restore(saved: Uint8Array): Promise<Result<void>>;
}

function windowHand(files: Files, path: string, window: VirtioCapability, common: VirtioCapability): WindowHand {
  const barAt = window.at + 4;
  const offsetAt = window.at + 8;
  const lengthAt = window.at + 12;
  const dataAt = window.at + 16;
  let aimed = '';

  async function aim(register: number, width: 1 | 4): Promise<Result<void>> {
    if (aimed === `${register}/${width}`) return ok(undefined);
    aimed = '';
    const offset = await files.write(path, le32(common.offset + register), offsetAt);
    if (!offset.ok) return offset;
    const length = await files.write(path, le32(width), lengthAt);
    if (length.ok) aimed = `${register}/${width}`;
    return length;
  }

  return {
    open: () => files.write(path, Uint8Array.of(common.bar), barAt),
    async read(register, width) {
      const aimedWell = await aim(register, width);
      if (!aimedWell.ok) return aimedWell;
      const bytes = await files.readAt(path, dataAt, width);
      if (!bytes.ok) return bytes;
      const value = readLe(bytes.value, 0, width);
      return value === undefined ? fail('probe-lied', 'configuration space ends inside the window') : ok(value);
    },
    async write(register, value) {
      const aimedWell = await aim(register, 4);
      return aimedWell.ok ? files.write(path, le32(value), dataAt) : aimedWell;
    },
    async restore(saved) {
      // Length first: with a length of 0, which is what it mostly was, the window leads nowhere.
      const length = await files.write(path, saved.slice(8, 12), lengthAt);
      const offset = await files.write(path, saved.slice(4, 8), offsetAt);
      const bar = await files.write(path, saved.slice(0, 1), barAt);
      return !length.ok ? length : !offset.ok ? offset : bar;
    },
  };
}

async function readThrough(hand: WindowHand): Promise<Result<Offered>> {
  const before = await hand.read(FEATURE_SELECT, 4);
  if (!before.ok) return before;
  const bits: number[] = [];
  let failure: Result<never> | undefined;
  for (let word = 0; word < 4; word++) {
    const selected = await hand.write(FEATURE_SELECT, word);
    const echo = selected.ok ? await hand.read(FEATURE_SELECT, 4) : selected;
    if (!echo.ok) {
      failure = echo;
      break;
    }
    if (echo.value !== word) {
      // Without the echo the same word would be taken for all. Words 2 and 3 need not exist.
      if (word < 2) failure = fail('probe-lied', `feature selector reads ${echo.value} after ${word} was written`);
      break;
    }
    const value = await hand.read(FEATURE, 4);
    if (!value.ok) {
      failure = value;
      break;
    }
    for (let bit = 0; bit < 32; bit++) if ((value.value >>> bit) & 1) bits.push(word * 32 + bit);
  }
  const status = failure ?? (await hand.read(DEVICE_STATUS, 1));
  const restored = await hand.write(FEATURE_SELECT, before.value);
  if (!status.ok) return status;
  return restored.ok ? ok({ bits, status: status.value }) : restored;
}

function le32(value: number): Uint8Array {
  return Uint8Array.of(value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, (value >>> 24) & 0xff);
}
