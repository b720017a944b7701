/**
 * Registers as a table of `{ name, bytes, read, write }`, and what an access of any width and alignment does to it. The
 * same form serves configuration space, capabilities and BARs; a device that means harm is a table with other handlers.
 *
 * A register is at most four bytes; longer ones are several (the standards let software access them so).
 */

export interface Register {
  /** As the standard names it; empty for reserved bytes. */
  readonly name: string;
  readonly bytes: 1 | 2 | 3 | 4;
  /** The whole value, little-endian, without sign. Called once for an access that touches the register. */
  read(): number;
  /**
   * `value` holds what was written, in place; `enabled` has ones where bytes were written (the byte enables of PCIe
   * §2.2.5), so that a bit that is cleared by writing one is not cleared by a write beside it.
   */
  write(value: number, enabled: number): void;
  /** Back to the value after a reset. */
  reset?(): void;
}

/** What can stand at a place of configuration space or of a BAR. Offsets count from its own start. */
export interface Bank {
  readonly size: number;
  /** Fills all of `into`. */
  read(offset: number, into: Uint8Array): void;
  write(offset: number, bytes: Uint8Array): void;
  reset?(): void;
}

/** Bits of a value of so many bytes. */
function allOnes(bytes: number): number {
  return bytes === 4 ? 0xffffffff : 2 ** (8 * bytes) - 1;
}

/** A register that says the same always. */
export function constant(name: string, bytes: Register['bytes'], value: number): Register {
  const kept = (value & allOnes(bytes)) >>> 0;
  return { name, bytes, read: () => kept, write() {} };
}

/** Bytes that read as zero and ignore writes (RsvdZ, RsvdP). As many registers as it takes. */
export function reserved(bytes: number): Register[] {
  const registers: Register[] = [];
  for (let left = bytes; left > 0; left -= 4) {
    registers.push(constant('', Math.min(left, 4) as Register['bytes'], 0));
  }
  return registers;
}

export interface StoredOptions {
  readonly initial?: number;
  /** Ones for bits that software writes (RW). */
  readonly writable?: number;
  /** Ones for bits that writing one clears (RW1C). */
  readonly clears?: number;
  /** Called after a write with the value as it is now and as it was. */
  readonly changed?: (now: number, before: number) => void;
}

export interface Stored extends Register {
  /** The device's own way to change it, whatever software may write. */
  value: number;
}

/** A register that keeps what is written to it, as far as it may be written. */
export function stored(name: string, bytes: Register['bytes'], options: StoredOptions = {}): Stored {
  const { initial = 0, writable = 0, clears = 0, changed } = options;
  const register: Stored = {
    name,
    bytes,
    value: initial >>> 0,
    read: () => register.value,
    write(value, enabled) {
      const before = register.value;
      const takes = writable & enabled;
      const now = (((before & ~takes) | (value & takes)) & ~(value & clears & enabled)) >>> 0;
      register.value = now;
      changed?.(now, before);
    },
    reset() {
      register.value = initial >>> 0;
    },
  };
  return register;
}

/** Bytes that never change, such as those of a vendor's capability. */
export function fixedBytes(name: string, bytes: Uint8Array): Register[] {
  return Array.from(bytes, (byte, i) => constant(`${name}[${i}]`, 1, byte));
}

/** A table of registers, one behind the other, as a bank. */
export class RegisterTable implements Bank {
  readonly size: number;
  readonly registers: readonly Register[];
  private readonly starts: readonly number[];
  /** Which register holds a byte. */
  private readonly at: Uint16Array;

  constructor(registers: readonly Register[]) {
    this.registers = registers;
    const starts: number[] = [];
    let end = 0;
    for (const register of registers) {
      starts.push(end);
      end += register.bytes;
    }
    this.size = end;
    this.starts = starts;
    this.at = new Uint16Array(end);
    registers.forEach((register, i) => {
      const start = starts[i] ?? 0;
      this.at.fill(i, start, start + register.bytes);
    });
  }

  read(offset: number, into: Uint8Array): void {
    let done = 0;
    while (done < into.length) {
      const at = offset + done;
      const index = this.at[at];
      const register = index === undefined ? undefined : this.registers[index];
      if (register === undefined) {
        into.fill(0, done);
        return;
      }
      const skip = at - (this.starts[index ?? 0] ?? 0);
      const value = register.read();
      const count = Math.min(register.bytes - skip, into.length - done);
      for (let i = 0; i < count; i++) into[done + i] = value >>> (8 * (skip + i));
      done += count;
    }
  }

  write(offset: number, bytes: Uint8Array): void {
    let done = 0;
    while (done < bytes.length) {
      const at = offset + done;
      const index = this.at[at];
      const register = index === undefined ? undefined : this.registers[index];
      if (register === undefined) return;
      const skip = at - (this.starts[index ?? 0] ?? 0);
      const count = Math.min(register.bytes - skip, bytes.length - done);
      let value = 0;
      let enabled = 0;
      for (let i = 0; i < count; i++) {
        value |= (bytes[done + i] ?? 0) << (8 * (skip + i));
        enabled |= 0xff << (8 * (skip + i));
      }
      register.write(value >>> 0, enabled >>> 0);
      done += count;
    }
  }

  reset(): void {
    for (const register of this.registers) register.reset?.();
  }

  /** Where a register of that name begins; -1 when there is none. */
  offsetOf(name: string): number {
    const index = this.registers.findIndex((register) => register.name === name);
    return index < 0 ? -1 : (this.starts[index] ?? -1);
  }
}

/** Banks at places, with nothing between them: what no bank holds reads as zero and ignores writes. */
export class BankMap implements Bank {
  readonly size: number;
  private readonly parts: { readonly at: number; readonly bank: Bank }[] = [];

  constructor(size: number) {
    this.size = size;
  }

  /** False when it does not fit, or overlaps what is there. */
  place(at: number, bank: Bank): boolean {
    const end = at + bank.size;
    if (at < 0 || end > this.size) return false;
    if (this.parts.some((part) => at < part.at + part.bank.size && part.at < end)) return false;
    this.parts.push({ at, bank });
    this.parts.sort((a, b) => a.at - b.at);
    return true;
  }

  read(offset: number, into: Uint8Array): void {
    into.fill(0);
    const end = offset + into.length;
    for (const { at, bank } of this.parts) {
      const from = Math.max(at, offset);
      const to = Math.min(at + bank.size, end);
      if (from < to) bank.read(from - at, into.subarray(from - offset, to - offset));
    }
  }

  write(offset: number, bytes: Uint8Array): void {
    const end = offset + bytes.length;
    for (const { at, bank } of this.parts) {
      const from = Math.max(at, offset);
      const to = Math.min(at + bank.size, end);
      if (from < to) bank.write(from - at, bytes.subarray(from - offset, to - offset));
    }
  }

  reset(): void {
    for (const { bank } of this.parts) bank.reset?.();
  }
}
