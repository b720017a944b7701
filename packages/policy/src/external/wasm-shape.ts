/**
 * Is this a module as the OPA compiler makes it? Looked at before anything compiles it: the memory limit holds only for
 * memory that we hand in, so a module must not bring memory or large tables of its own. WebAssembly 2.0 §5.5.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';

const SECTION = { import: 2, table: 4, memory: 5 } as const;
const LAST_SECTION = 13;
const TABLE_LIMIT = 65_536;
/** All that a compiled policy asks for: OPA's own functions, and memory that is ours. */
const FUNCTIONS = /^env\.(opa_abort|opa_println|opa_builtin[0-4])$/;

/** Code: `bundle-wasm-malformed`. */
export function checkWasm(bytes: Uint8Array): Result<void> {
  const wrong = (what: string) => fail('bundle-wasm-malformed', `policy.wasm: ${what}`);
  const magic = [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00];
  if (magic.some((byte, i) => bytes[i] !== byte)) return wrong('not a WebAssembly module');
  const at = { offset: 8 };
  while (at.offset < bytes.length) {
    const id = bytes[at.offset++] ?? 0;
    const size = readU32(bytes, at);
    if (size === undefined || at.offset + size > bytes.length) return wrong('a section is cut off');
    if (id > LAST_SECTION) return wrong(`section ${id} is unknown`);
    const end = at.offset + size;
    if (id === SECTION.import) {
      const foreign = foreignImport(bytes.subarray(at.offset, end));
      if (foreign !== null) return wrong(`it asks for ${foreign}`);
    }
    if (id === SECTION.memory && size > 1) return wrong('it brings memory of its own');
    if (id === SECTION.table && !tablesAreSmall(bytes.subarray(at.offset, end)))
      return wrong('its tables are too large');
    at.offset = end;
  }
  return ok(undefined);
}

/** The first import that no compiled policy has, or null. */
function foreignImport(section: Uint8Array): string | null {
  const at = { offset: 0 };
  const count = readU32(section, at) ?? 0;
  for (let i = 0; i < count; i++) {
    const module = readName(section, at);
    const name = readName(section, at);
    const kind = section[at.offset++];
    if (module === undefined || name === undefined) return 'something without a plain name';
    const full = `${module}.${name}`;
    if (kind === 0x00) {
      if (!FUNCTIONS.test(full) || readU32(section, at) === undefined) return full;
    } else if (kind === 0x02 && full === 'env.memory') {
      const flags = section[at.offset++];
      // 32-bit, not shared, with or without a maximum
      if (flags !== 0x00 && flags !== 0x01) return 'memory of another kind';
      for (let limit = 0; limit <= flags; limit++) if (readU32(section, at) === undefined) return full;
    } else {
      return full;
    }
  }
  return at.offset === section.length ? null : 'more than it lists';
}

/** At most 64 bytes of printable ASCII. */
function readName(bytes: Uint8Array, at: { offset: number }): string | undefined {
  const length = readU32(bytes, at);
  if (length === undefined || length > 64 || at.offset + length > bytes.length) return undefined;
  const name = String.fromCharCode(...bytes.subarray(at.offset, at.offset + length));
  at.offset += length;
  return /^[!-~]*$/.test(name) ? name : undefined;
}

/** Tables of function references with a stated, small maximum; OPA's compiler writes one such. */
function tablesAreSmall(section: Uint8Array): boolean {
  const at = { offset: 0 };
  const count = readU32(section, at);
  if (count === undefined || count > 1) return false;
  for (let i = 0; i < count; i++) {
    if (section[at.offset++] !== 0x70 || section[at.offset++] !== 0x01) return false; // funcref, with a maximum
    const least = readU32(section, at);
    const most = readU32(section, at);
    if (least === undefined || most === undefined || least > TABLE_LIMIT || most > TABLE_LIMIT) return false;
  }
  return at.offset === section.length;
}

/** LEB128, at most five bytes. */
function readU32(bytes: Uint8Array, at: { offset: number }): number | undefined {
  let value = 0;
  for (let shift = 0; shift < 35; shift += 7) {
    const byte = bytes[at.offset++];
    if (byte === undefined) return undefined;
    value += (byte & 0x7f) * 2 ** shift;
    if (byte < 0x80) return value < 2 ** 32 ? value : undefined;
  }
  return undefined;
}
