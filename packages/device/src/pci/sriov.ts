/**
 * SR-IOV, both halves: the capability of a physical function as a table of registers (PCIe 6.0 §9.3.3), and what a virtual
 * function's own configuration space is made of (§9.3.4). What the standard leaves undefined is one thing here: nothing
 * happens.
 */
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import { CAP_SRIOV, type Capability } from './capability.ts';
import { constant, type Register, reserved, type Stored, stored } from './register.ts';

/** §9.3.3.3: bits of the control register. */
export const VF_ENABLE = 0x01;
export const VF_MEMORY_SPACE = 0x08;
export const ARI_HIERARCHY = 0x10;

/** §9.3.3.12: 4 KiB to 4 MiB, those that every device has to support. */
const PAGE_SIZES = 0x553;
const BARS = 6;
/** Numbers of buses, devices and functions: 16 bits. */
const ROUTING_IDS = 0x1_0000;
/** A device's own functions, without and with ARI. */
const FUNCTIONS = 8;
const ARI_FUNCTIONS = 256;

/** One BAR of every virtual function. Virtual functions have no I/O space (§9.3.3.14). */
export interface VirtualBar {
  readonly index: number;
  /** Bytes that one virtual function has of it; a power of two, at least 16. */
  readonly size: number;
  readonly kind: 'memory32' | 'memory64';
  readonly prefetchable?: boolean;
}

/** Where virtual functions are, counted from their physical one: the first, and how far from one to the next. */
export interface VirtualPlace {
  readonly offset: number;
  readonly stride: number;
}

export interface SriovOptions {
  /** TotalVFs and, without migration, InitialVFs. */
  readonly total: number;
  /** Device id of the virtual functions; their vendor is the physical one's. */
  readonly device: number;
  readonly bars?: readonly VirtualBar[];
  /** Bit n: pages of 2^(n+12) bytes. */
  readonly pageSizes?: number;
  /** §9.3.3.8: the physical function that this one depends on; its own number when it depends on none. */
  readonly dependency?: number;
  /** §9.3.3.9: may depend on how many are asked for and on whether functions beyond 7 can be reached. */
  readonly place?: (count: number, ari: boolean) => VirtualPlace;
  /** Virtual functions came (their number) or went (0). */
  readonly changed?: (enabled: number) => void;
  /** Where software has put a BAR of the virtual functions already, as firmware does; 0 when it did not. */
  readonly placed?: (bar: number) => number;
}

/** In the places behind the physical function where they can be reached there, else from the next bus on. */
function nextPlaces(total: number): (count: number, ari: boolean) => VirtualPlace {
  return (_count, ari) => ({ offset: total < (ari ? ARI_FUNCTIONS : FUNCTIONS) ? 1 : ARI_FUNCTIONS, stride: 1 });
}

export class Sriov {
  readonly capability: Capability;
  private readonly total: number;
  private readonly place: (count: number, ari: boolean) => VirtualPlace;
  private readonly bars: readonly VirtualBar[];
  private readonly changed: (enabled: number) => void;
  private readonly control: Stored;
  private readonly count: Stored;
  private readonly pageSize: Stored;
  private readonly barRegisters: readonly Register[];
  private told = 0;

  private constructor(options: SriovOptions) {
    const { total, bars = [], pageSizes = PAGE_SIZES, dependency = 0 } = options;
    this.total = total;
    this.bars = bars;
    this.place = options.place ?? nextPlaces(total);
    this.changed = options.changed ?? (() => {});
    const fixed = () => this.enabledBit;
    this.control = this.makeControl();
    this.count = lockedWhile(fixed, stored('num_vfs', 2, { writable: 0xffff }));
    // One bit, of a size that is supported; anything else is as if it had not been written (§9.3.3.13).
    const page = stored('system_page_size', 4, {
      initial: 1,
      writable: 0xffff_ffff,
      changed: (now, before) => {
        if (!isOneBit(now) || (now & pageSizes) === 0) page.value = before;
      },
    });
    this.pageSize = lockedWhile(fixed, page);
    this.barRegisters = this.makeBars(options.placed ?? (() => 0));
    this.capability = {
      space: 'extended',
      id: CAP_SRIOV,
      version: 1,
      registers: [
        // No migration; VF numbers do not depend on an ARI hierarchy being kept over resets (§9.3.3.2).
        constant('sriov_capabilities', 4, 0),
        this.control,
        constant('sriov_status', 2, 0),
        constant('initial_vfs', 2, total),
        constant('total_vfs', 2, total),
        this.count,
        constant('function_dependency_link', 1, dependency),
        ...reserved(1),
        { name: 'first_vf_offset', bytes: 2, read: () => this.placeNow().offset, write() {} },
        { name: 'vf_stride', bytes: 2, read: () => this.placeNow().stride, write() {} },
        ...reserved(2),
        constant('vf_device', 2, options.device),
        constant('supported_page_sizes', 4, pageSizes),
        this.pageSize,
        ...this.barRegisters,
        constant('vf_migration_state_array', 4, 0),
      ],
    };
  }

  /** Codes: `pci-bar-invalid`, `pci-virtual-functions-invalid`. */
  static create(options: SriovOptions): Result<Sriov> {
    const { total, bars = [] } = options;
    if (!Number.isInteger(total) || total < 0 || total > 0xffff) {
      return fail('pci-virtual-functions-invalid', `${total} virtual functions; from 0 to 65535`);
    }
    const wrong = checkVirtualBars(bars);
    return wrong === null ? ok(new Sriov(options)) : { ok: false, error: wrong };
  }

  /** How many virtual functions are there now: none while VF Enable is clear, or NumVFs says more than there can be. */
  get enabled(): number {
    if (!this.enabledBit) return 0;
    return this.count.value <= this.total ? this.count.value : 0;
  }

  /** May software reach the memory of virtual functions (VF MSE)? */
  get memoryEnabled(): boolean {
    return (this.control.value & VF_MEMORY_SPACE) !== 0;
  }

  /**
   * Routing id of virtual function `index` (from 0) of a physical one; null when it is not there, or would be beyond the
   * last bus (§9.2.1.2).
   */
  routingId(physical: number, index: number): number | null {
    if (index < 0 || index >= this.enabled) return null;
    const { offset, stride } = this.placeNow();
    const id = physical + offset + index * stride;
    return id < ROUTING_IDS ? id : null;
  }

  /** Where a BAR of virtual function `index` lies: each has its part of what the physical function's register says. */
  barAddress(bar: number, index: number): number | null {
    const found = this.bars.find((each) => each.index === bar);
    const low = this.barRegisters[bar];
    if (found === undefined || low === undefined || index < 0 || index >= this.enabled) return null;
    const high = found.kind === 'memory64' ? (this.barRegisters[bar + 1]?.read() ?? 0) : 0;
    return high * 2 ** 32 + ((low.read() & ~0xf) >>> 0) + index * this.room(found);
  }

  private get enabledBit(): boolean {
    return (this.control.value & VF_ENABLE) !== 0;
  }

  private placeNow(): VirtualPlace {
    return this.place(this.count.value, (this.control.value & ARI_HIERARCHY) !== 0);
  }

  private makeControl(): Stored {
    const register = stored('sriov_control', 2, {
      writable: VF_ENABLE | VF_MEMORY_SPACE | ARI_HIERARCHY,
      changed: (now, before) => {
        // The numbers of virtual functions that are there do not change under them (§9.3.3.3.5).
        if ((before & now & VF_ENABLE) !== 0) register.value = (now & ~ARI_HIERARCHY) | (before & ARI_HIERARCHY);
        this.tell();
      },
    });
    const { reset } = register;
    // A reset of the physical function takes its virtual ones away (§9.2.2).
    register.reset = () => {
      reset?.();
      this.tell();
    };
    return register;
  }

  private tell(): void {
    const enabled = this.enabled;
    if (enabled === this.told) return;
    this.told = enabled;
    this.changed(enabled);
  }

  /** §9.3.3.14: a virtual function's memory begins on a page, so a smaller BAR takes up a page. */
  private room(bar: VirtualBar): number {
    return Math.max(bar.size, 4096 * this.pageSize.value);
  }

  private makeBars(placed: (bar: number) => number): Register[] {
    const registers: Register[] = [];
    for (let index = 0; index < BARS; index++) {
      const bar = this.bars.find((each) => each.index === index);
      if (bar === undefined) {
        registers.push(constant(`vf_bar${index}`, 4, 0));
        continue;
      }
      const wide = bar.kind === 'memory64';
      const kind = (wide ? 4 : 0) | (bar.prefetchable ? 8 : 0);
      // The mask is of what the page size makes of the BAR, also when the page size is written after the BAR.
      const mask = () => -this.room(bar);
      registers.push(
        barHalf(
          `vf_bar${index}`,
          kind,
          () => lowHalf(mask()) & ~0xf,
          () => lowHalf(placed(index)) & ~0xf,
        ),
      );
      if (wide) {
        registers.push(
          barHalf(
            `vf_bar${index + 1}`,
            0,
            () => highHalf(mask()),
            () => highHalf(placed(index)),
          ),
        );
        index++;
      }
    }
    return registers;
  }
}

function lowHalf(value: number): number {
  return Number(BigInt.asUintN(32, BigInt(value)));
}

function highHalf(value: number): number {
  return Number(BigInt.asUintN(32, BigInt(value) >> 32n));
}

/** Half a BAR: writable bits say the size, those of `fixed` the kind. Until it is written it says where it was placed. */
function barHalf(name: string, fixed: number, mask: () => number, placed: () => number): Register {
  let written: number | null = null;
  const value = () => ((((written ?? placed()) & mask()) | fixed) >>> 0) as number;
  return {
    name,
    bytes: 4,
    read: value,
    write(bits, enabled) {
      written = ((value() & ~enabled) | (bits & enabled)) >>> 0;
    },
    reset() {
      written = null;
    },
  };
}

/** The same register, which takes no writes while `locked`. */
function lockedWhile(locked: () => boolean, register: Stored): Stored {
  const { write } = register;
  register.write = (value, enabled) => {
    if (!locked()) write(value, enabled);
  };
  return register;
}

function isOneBit(value: number): boolean {
  return value !== 0 && (value & (value - 1)) === 0;
}

function checkVirtualBars(bars: readonly VirtualBar[]): Problem | null {
  const taken = new Set<number>();
  for (const { index, size, kind } of bars) {
    const last = kind === 'memory64' ? index + 1 : index;
    const sound = Number.isInteger(Math.log2(size)) && size >= 16 && size <= (kind === 'memory64' ? 2 ** 52 : 2 ** 31);
    if (!sound || !Number.isInteger(index) || index < 0 || last >= BARS) {
      return { code: 'pci-bar-invalid', message: `BAR ${index} of virtual functions: ${size} bytes, ${kind}` };
    }
    for (let each = index; each <= last; each++) {
      if (taken.has(each)) {
        return { code: 'pci-bar-invalid', message: `BAR ${each} of virtual functions is declared twice` };
      }
      taken.add(each);
    }
  }
  return null;
}
