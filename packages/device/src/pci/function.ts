/**
 * A PCI function as a declaration: identity, capabilities and BARs, put together into the configuration space and the
 * regions that a VMM shows to its guest (PCIe 6.0 §7.5.1).
 */
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import type { FunctionLink, ServedFunction } from '@airlock/transport/vfio-user/served-function.ts';
import { CAP_PCI_EXPRESS, CAP_SRIOV, type Capability } from './capability.ts';
import type { Msix } from './msix.ts';
import {
  type Bank,
  BankMap,
  constant,
  type Register,
  RegisterTable,
  reserved,
  type Stored,
  stored,
} from './register.ts';

export interface BarOptions {
  readonly index: number;
  /** Bytes; a power of two, at least 16. */
  readonly size: number;
  readonly kind: 'memory32' | 'memory64' | 'io';
  readonly prefetchable?: boolean;
  readonly bank: Bank;
}

export interface PciFunctionOptions {
  readonly vendor: number;
  readonly device: number;
  readonly subsystemVendor?: number;
  readonly subsystem?: number;
  /** 24 bits: class, subclass, interface. */
  readonly classCode: number;
  readonly revision?: number;
  readonly capabilities?: readonly Capability[];
  readonly bars?: readonly BarOptions[];
  /** Its capability, table and pending bits are among the above. */
  readonly msix?: Msix;
  /** INTA# is there. */
  readonly interruptPin?: boolean;
  readonly multifunction?: boolean;
  /**
   * An SR-IOV virtual function as its own configuration space shows it (§9.3.4.1): `vendor` and `device` read as all
   * ones, BARs as zero (their addresses are in the physical function's capability), and of the command register only bus
   * mastering is its own. A virtual function that the VMM presents as a function by itself is an ordinary one. Asked at
   * each access where it is asked at all.
   */
  readonly virtual?: boolean | (() => boolean);
  /**
   * Bits of the command register that a virtual function has; bus mastering alone by the standard. A VMM that maps BARs
   * by each function's own register goes by memory space too, and software writes back what it reads there.
   */
  readonly virtualCommand?: number;
}

/** What the device behind the function is told. */
export interface FunctionEvents {
  /** A VMM is there. */
  attached?(link: FunctionLink): void;
  /** It is gone: nothing may touch its memory any more. */
  detached?(): void;
  /** Conventional or function-level reset: as after power-on. */
  reset?(): void;
  /** On return nothing of the device is in the middle of a transfer. */
  quiesce?(): void;
  /** The VMM mapped or unmapped memory. */
  memoryChanged?(): void;
  /** The command register was written: bus mastering may have come or gone. */
  commandChanged?(): void;
}

export const COMMAND_MEMORY = 0x2;
export const COMMAND_BUS_MASTER = 0x4;
const COMMAND_INTX_DISABLE = 0x400;
const STATUS_CAPABILITIES = 0x10;
const STATUS_INTERRUPT = 0x8;

export const CONFIG_SIZE = 4096;
const BARS = 6;

export class PciFunction implements ServedFunction {
  readonly regionSizes: readonly number[];
  readonly interrupts: { readonly intx: number; readonly msi: number; readonly msix: number };
  private readonly config: BankMap;
  private readonly header: RegisterTable;
  private readonly command: Stored;
  private readonly status: Stored;
  private readonly bars: readonly (Bank | undefined)[];
  private readonly msix: Msix | undefined;
  private readonly events: FunctionEvents;
  private link: FunctionLink | null = null;
  private line = false;
  private lineShown = false;

  private constructor(options: PciFunctionOptions, events: FunctionEvents, config: BankMap, header: Header) {
    this.config = config;
    this.header = header.table;
    this.command = header.command;
    this.status = header.status;
    this.events = events;
    this.msix = options.msix;
    const banks: (Bank | undefined)[] = Array.from({ length: BARS }, () => undefined);
    const sizes = Array.from({ length: BARS }, () => 0);
    for (const bar of options.bars ?? []) {
      banks[bar.index] = bar.bank;
      sizes[bar.index] = bar.size;
    }
    this.bars = banks;
    // VFIO's regions: six BARs, the ROM, configuration space, VGA.
    this.regionSizes = [...sizes, 0, CONFIG_SIZE, 0];
    const pin = options.interruptPin === true && (options.virtual ?? false) === false;
    this.interrupts = { intx: pin ? 1 : 0, msi: 0, msix: options.msix?.vectors ?? 0 };
    header.onCommand(() => {
      this.showLine();
      this.events.commandChanged?.();
    });
    if (this.msix) this.msix.send = (address, data) => this.link?.sendMessage(address, data);
  }

  /** Codes: `pci-bar-invalid`, `pci-capability-misplaced`, `pci-virtual-functions-invalid`. */
  static create(options: PciFunctionOptions, events: FunctionEvents = {}): Result<PciFunction> {
    const wrong = checkBars(options.bars ?? []) ?? checkVirtual(options);
    if (wrong !== null) return { ok: false, error: wrong };
    const config = new BankMap(CONFIG_SIZE);
    const first = placeCapabilities(config, options.capabilities ?? []);
    if (!first.ok) return first;
    const header = makeHeader(options, first.value);
    config.place(0, header.table);
    return ok(new PciFunction(options, events, config, header));
  }

  get busMaster(): boolean {
    return (this.command.value & COMMAND_BUS_MASTER) !== 0;
  }

  get memoryEnabled(): boolean {
    return (this.command.value & COMMAND_MEMORY) !== 0;
  }

  attach(link: FunctionLink): void {
    this.link = link;
    this.events.attached?.(link);
  }

  detach(): void {
    this.events.detached?.();
    this.link = null;
    this.resetRegisters();
  }

  quiesce(): void {
    this.events.quiesce?.();
  }

  memoryChanged(): void {
    this.events.memoryChanged?.();
  }

  readRegion(index: number, offset: number, into: Uint8Array): void {
    const bank = this.bankOf(index);
    if (bank === undefined) into.fill(0xff);
    else bank.read(offset, into);
  }

  writeRegion(index: number, offset: number, bytes: Uint8Array): void {
    this.bankOf(index)?.write(offset, bytes);
  }

  reset(): void {
    this.events.reset?.();
    this.resetRegisters();
  }

  /** Interrupts with a vector of MSI-X. Does nothing while MSI-X is off: see `setLine`. */
  interrupt(vector: number): void {
    if (this.link === null || this.msix === undefined) return;
    if (this.link.ownsInterrupts) {
      // The VMM holds the table, masks and all; our copy of the control word may be stale.
      this.link.trigger('msix', vector);
      return;
    }
    if (this.busMaster) this.msix.raise(vector);
  }

  /** Is MSI-X what the guest uses? As the function sees it. */
  get usesMsix(): boolean {
    return this.msix?.enabled ?? false;
  }

  get lineAsserted(): boolean {
    return this.lineShown;
  }

  /** INTA#: asserted until it is deasserted. Nothing for a function without one. */
  setLine(asserted: boolean): void {
    if (this.interrupts.intx === 0) return;
    this.line = asserted;
    this.showLine();
  }

  private showLine(): void {
    const before = this.lineShown;
    this.lineShown = this.line && (this.command.value & COMMAND_INTX_DISABLE) === 0;
    this.status.value = (this.status.value & ~STATUS_INTERRUPT) | (this.line ? STATUS_INTERRUPT : 0);
    if (this.lineShown && !before) this.link?.trigger('intx', 0);
  }

  private resetRegisters(): void {
    this.header.reset();
    this.config.reset();
    this.msix?.reset();
    this.line = false;
    this.lineShown = false;
  }

  private bankOf(index: number): Bank | undefined {
    return index === CONFIG_REGION ? this.config : this.bars[index];
  }
}

/** VFIO's number of the configuration space's region. */
const CONFIG_REGION = 7;

interface Header {
  readonly table: RegisterTable;
  readonly command: Stored;
  readonly status: Stored;
  onCommand(call: () => void): void;
}

function makeHeader(options: PciFunctionOptions, firstCapability: number): Header {
  let told = () => {};
  const { virtual: asked = false, virtualCommand = COMMAND_BUS_MASTER } = options;
  const virtual = typeof asked === 'boolean' ? () => asked : asked;
  /** Reads as `shown` and takes nothing while the function is a virtual one. */
  const unlessVirtual = (register: Register, shown = 0): Register => ({
    name: register.name,
    bytes: register.bytes,
    read: () => (virtual() ? shown : register.read()),
    write(value, enabled) {
      if (!virtual()) register.write(value, enabled);
    },
    reset: () => register.reset?.(),
  });
  const command = stored('command', 2, { writable: 0x0547, changed: () => told() });
  const ownCommand: Register = {
    ...command,
    read: () => (virtual() ? command.value & virtualCommand : command.value),
    write: (value, enabled) => command.write(value, virtual() ? enabled & virtualCommand : enabled),
  };
  const status = stored('status', 2, {
    initial: firstCapability === 0 ? 0 : STATUS_CAPABILITIES,
    clears: 0xf900,
  });
  const { classCode, revision = 0, subsystemVendor = options.vendor, subsystem = 0 } = options;
  const registers: Register[] = [
    unlessVirtual(constant('vendor', 2, options.vendor), 0xffff),
    unlessVirtual(constant('device', 2, options.device), 0xffff),
    ownCommand,
    status,
    constant('revision', 1, revision),
    constant('class', 3, classCode),
    unlessVirtual(stored('cache_line_size', 1, { writable: 0xff })),
    constant('latency_timer', 1, 0),
    unlessVirtual(constant('header_type', 1, options.multifunction ? 0x80 : 0)),
    constant('bist', 1, 0),
    ...barRegisters(options.bars ?? []).map((register) => unlessVirtual(register)),
    ...reserved(4), // cardbus
    constant('subsystem_vendor', 2, subsystemVendor),
    constant('subsystem', 2, subsystem),
    ...reserved(4), // no expansion ROM
    constant('capabilities', 1, firstCapability),
    ...reserved(7),
    unlessVirtual(stored('interrupt_line', 1, { writable: 0xff })),
    constant('interrupt_pin', 1, options.interruptPin && asked === false ? 1 : 0),
    ...reserved(2),
  ];
  return {
    table: new RegisterTable(registers),
    command,
    status,
    onCommand(call) {
      told = call;
    },
  };
}

/** §7.5.1.2.1: writable bits say the size; the low ones say the kind. */
function barRegisters(bars: readonly BarOptions[]): Register[] {
  const registers: Register[] = [];
  for (let index = 0; index < BARS; index++) {
    const bar = bars.find((each) => each.index === index);
    if (bar === undefined) {
      registers.push(constant(`bar${index}`, 4, 0));
      continue;
    }
    const kind = bar.kind === 'io' ? 1 : (bar.kind === 'memory64' ? 4 : 0) | (bar.prefetchable ? 8 : 0);
    const low = bar.size >= 2 ** 32 ? 0 : (~(bar.size - 1) & 0xffff_fff0) >>> 0;
    registers.push(stored(`bar${index}`, 4, { initial: kind, writable: low }));
    if (bar.kind === 'memory64') {
      const high = bar.size > 2 ** 32 ? ~(bar.size / 2 ** 32 - 1) >>> 0 : 0xffff_ffff;
      registers.push(stored(`bar${index + 1}`, 4, { writable: high }));
      index++;
    }
  }
  return registers;
}

function checkBars(bars: readonly BarOptions[]): Problem | null {
  const taken = new Set<number>();
  for (const { index, size, kind, bank } of bars) {
    const last = kind === 'memory64' ? index + 1 : index;
    const whole = Number.isInteger(Math.log2(size)) && size >= 16 && size <= 2 ** 52;
    if (!whole || index < 0 || last >= BARS || bank.size > size || (kind !== 'memory64' && size > 2 ** 31)) {
      return { code: 'pci-bar-invalid', message: `BAR ${index}: ${size} bytes, ${kind}` };
    }
    for (let each = index; each <= last; each++) {
      if (taken.has(each)) return { code: 'pci-bar-invalid', message: `BAR ${each} is declared twice` };
      taken.add(each);
    }
  }
  return null;
}

/** §9.3.4: what virtual functions do not have. */
function checkVirtual({ virtual, bars = [], capabilities = [] }: PciFunctionOptions): Problem | null {
  if ((virtual ?? false) === false) return null;
  if (bars.some(({ kind }) => kind === 'io')) {
    return { code: 'pci-bar-invalid', message: 'a virtual function has no I/O space' };
  }
  return capabilities.some(({ space, id }) => space === 'extended' && id === CAP_SRIOV)
    ? { code: 'pci-virtual-functions-invalid', message: 'a virtual function has no virtual functions of its own' }
    : null;
}

/** Puts the chains together. Gives where the standard one begins, 0 for none. Code: `pci-capability-misplaced`. */
function placeCapabilities(config: BankMap, capabilities: readonly Capability[]): Result<number> {
  const standard = layOut(
    capabilities.filter(({ space }) => space === 'standard'),
    0x40,
    0x100,
    2,
  );
  if (!standard.ok) return standard;
  const extended = layOut(
    capabilities.filter(({ space }) => space === 'extended'),
    0x100,
    CONFIG_SIZE,
    4,
  );
  if (!extended.ok) return extended;
  if (
    extended.value.length > 0 &&
    !capabilities.some(({ space, id }) => space === 'standard' && id === CAP_PCI_EXPRESS)
  ) {
    return fail('pci-capability-misplaced', 'extended capabilities need a PCI Express capability');
  }
  for (const [list, wide] of [
    [standard.value, false],
    [extended.value, true],
  ] as const) {
    list.forEach(({ capability, at }, i) => {
      const next = list[i + 1]?.at ?? 0;
      const head = wide
        ? [constant('header', 4, capability.id | ((capability.version ?? 1) << 16) | (next << 20))]
        : [constant('id', 1, capability.id), constant('next', 1, next)];
      config.place(at, new RegisterTable([...head, ...capability.registers]));
    });
  }
  if (extended.value.length > 0 && extended.value[0]?.at !== 0x100) {
    return fail('pci-capability-misplaced', 'the first extended capability stands at 0x100');
  }
  return ok(standard.value[0]?.at ?? 0);
}

interface Placed {
  readonly capability: Capability;
  readonly at: number;
}

/** In the order given; each at its own place or at the next free dword. */
function layOut(list: readonly Capability[], from: number, end: number, head: number): Result<Placed[]> {
  const placed: Placed[] = [];
  let free = from;
  for (const capability of list) {
    const size = head + capability.registers.reduce((sum, register) => sum + register.bytes, 0);
    const at = capability.at ?? free;
    if (at < free || at % 4 !== 0 || at + size > end) {
      return fail('pci-capability-misplaced', `capability ${capability.id}: ${size} bytes at ${at}`);
    }
    placed.push({ capability, at });
    free = Math.ceil((at + size) / 4) * 4;
  }
  return ok(placed);
}
