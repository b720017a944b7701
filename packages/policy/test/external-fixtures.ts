/** Archives, modules and decisions for the tests of external engines. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { Decision } from '@airlock/core/decision.ts';
import type { Device, Inventory, KernelFacts } from '@airlock/core/device.ts';

export function vector(name: string): Uint8Array {
  return new Uint8Array(readFileSync(join(import.meta.dirname, 'vectors', 'opa', name)));
}

export const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);

// --- archives ---

export interface TarEntry {
  readonly name: string;
  readonly content?: Uint8Array;
  readonly type?: string;
  readonly link?: string;
  /** Written in place of the content's own length. */
  readonly size?: number | string;
  readonly prefix?: string;
  readonly magic?: string;
}

/** One header and its padded content; the checksum is right whatever else is wrong. */
export function tarEntry(entry: TarEntry): Uint8Array {
  const content = entry.content ?? new Uint8Array();
  const block = new Uint8Array(512 + Math.ceil(content.length / 512) * 512);
  const put = (offset: number, text: string) => block.set(bytesOf(text), offset);
  put(0, entry.name);
  put(100, '0000644\0');
  const size = entry.size ?? content.length;
  put(124, typeof size === 'string' ? size : `${size.toString(8).padStart(11, '0')}\0`);
  put(156, entry.type ?? '0');
  put(157, entry.link ?? '');
  put(257, entry.magic ?? 'ustar\x0000');
  put(345, entry.prefix ?? '');
  put(148, '        ');
  const sum = block.subarray(0, 512).reduce((total, byte) => total + byte, 0);
  put(148, `${sum.toString(8).padStart(6, '0')}\0 `);
  block.set(content, 512);
  return block;
}

export function tar(entries: readonly TarEntry[], end = 1024): Uint8Array {
  return join8([...entries.map(tarEntry), new Uint8Array(end)]);
}

export function join8(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((total, part) => total + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

export function manifest(entrypoint = 'hostile/x'): TarEntry {
  const content = bytesOf(
    JSON.stringify({ revision: '', roots: [''], wasm: [{ entrypoint, module: '/policy.wasm' }] }),
  );
  return { name: '/.manifest', content };
}

/** A bundle around a module of ours; more entries stand after the usual ones. */
export function bundleWith(wasm: Uint8Array, more: readonly TarEntry[] = []): Uint8Array {
  const data = { name: '/data.json', content: bytesOf('{}\n') };
  return new Uint8Array(gzipSync(tar([data, { name: '/policy.wasm', content: wasm }, manifest(), ...more])));
}

// --- modules ---

function leb(value: number): number[] {
  const low = value & 0x7f;
  const rest = value >>> 7;
  return rest === 0 ? [low] : [low | 0x80, ...leb(rest)];
}

/** i32.const, whose operand is signed. */
export function i32(value: number): number[] {
  const bytes: number[] = [0x41];
  let rest = value | 0;
  for (;;) {
    const low = rest & 0x7f;
    rest >>= 7;
    if ((rest === 0 && (low & 0x40) === 0) || (rest === -1 && (low & 0x40) !== 0)) return [...bytes, low];
    bytes.push(low | 0x80);
  }
}

const section = (id: number, body: readonly number[]) => [id, ...leb(body.length), ...body];
const list = (items: readonly (readonly number[])[]) => [...leb(items.length), ...items.flat()];
const name = (text: string) => [...leb(text.length), ...bytesOf(text)];

export interface ModuleShape {
  /** Body of opa_eval, which returns the address of the answer's JSON. */
  readonly evaluate: readonly number[];
  /** What stands at ANSWER. */
  readonly answer?: string;
  /** Body of the start function. */
  readonly start?: readonly number[];
  /** Sections of our own, in place of the usual import of memory. */
  readonly imports?: readonly number[];
  readonly extra?: readonly number[];
}

export const ANSWER = 0x300;

/** A module with OPA's ABI, written by hand: what a compiler would never make. */
export function moduleOf(shape: ModuleShape): Uint8Array {
  const types = list([
    [0x60, 0, 1, 0x7f],
    [0x60, 1, 0x7f, 1, 0x7f],
    [0x60, 2, 0x7f, 0x7f, 1, 0x7f],
    [0x60, 1, 0x7f, 0],
    [0x60, 7, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f],
    [0x60, 0, 0],
  ]);
  const functions: readonly (readonly [exported: string, type: number, body: readonly number[]])[] = [
    ['builtins', 0, i32(0x100)],
    ['entrypoints', 0, i32(0x200)],
    ['opa_json_dump', 1, [0x20, 0]],
    ['opa_malloc', 1, i32(0x800)],
    ['opa_json_parse', 2, i32(0x800)],
    ['opa_heap_ptr_get', 0, i32(0x1000)],
    ['opa_heap_ptr_set', 3, []],
    ['opa_eval', 4, shape.evaluate],
    ['begin', 5, shape.start ?? []],
  ];
  const exports = functions.map(([exported], index) => [...name(exported), 0, ...leb(index)]);
  const globals = [
    [...name('opa_wasm_abi_version'), 3, 0],
    [...name('opa_wasm_abi_minor_version'), 3, 1],
  ];
  const text = (at: number, value: string) => [0, ...i32(at), 0x0b, ...name(`${value}\0`)];
  return new Uint8Array([
    ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
    ...section(1, types),
    ...(shape.imports ?? section(2, list([[...name('env'), ...name('memory'), 2, 0, 1]]))),
    ...section(3, list(functions.map(([, type]) => [type]))),
    ...(shape.extra ?? []),
    ...section(6, list([1, 3].map((value) => [0x7f, 0, ...i32(value), 0x0b]))),
    ...section(7, list([...exports, ...globals])),
    ...(shape.start === undefined ? [] : section(8, leb(functions.length - 1))),
    ...section(10, list(functions.map(([, , body]) => [...leb(body.length + 2), 0, ...body, 0x0b]))),
    ...section(
      11,
      list([text(0x100, '{}'), text(0x200, '{"hostile/x":0}'), text(ANSWER, shape.answer ?? '[{"result":{}}]')]),
    ),
  ]);
}

/** For ModuleShape.imports and extra. */
export const importOf = (module: string, field: string, kind: readonly number[]): number[] =>
  section(2, list([[...name(module), ...name(field), ...kind]]));
export const ownMemory = section(5, list([[0, 1]]));
export const tableOf = (bytes: readonly number[]): number[] => section(4, list([bytes]));

// --- decisions ---

export const kernel: KernelFacts = {
  release: '7.2.12',
  arch: 'x86_64',
  confidential: 'sev-snp',
  autoprobe: {},
  modulesDisabled: false,
  lockdown: null,
  swiotlb: 'force',
  cmdline: '',
};

export function device(more: Partial<Device> = {}): Device {
  return {
    id: 'pci:0000:00:03.0',
    bus: 'pci',
    transport: null,
    location: '0000:00:03.0',
    path: '/sys/devices/pci0000:00/0000:00:03.0',
    nodes: [],
    type: 'network',
    vendor: 0x15b3,
    device: 0x1017,
    revision: 3,
    interfaces: [],
    faults: [],
    ...more,
  };
}

export function decision(more: Partial<Decision> = {}): Decision {
  return {
    device: 'pci:0000:00:03.0',
    level: 'limited',
    rule: { id: 'nic', file: 'policy.yaml', line: 7 },
    reason: 'rule-matched',
    detail: 'rule nic matched',
    tier: 'claimed',
    inputs: [],
    changes: [],
    pending: [],
    grantable: 'limited',
    ...more,
  };
}

export function inventory(...devices: readonly Device[]): Inventory {
  return { version: 1, kernel, devices };
}
