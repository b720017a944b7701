/** A guest that speaks 9P2000.L to a session, one call a request, over a folder of its own. */
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { MSIZE_LIMIT, Session, sessionMemory } from '@airlock/device/9p/session.ts';
import { Share } from '@airlock/device/9p/share.ts';
import { must } from './in-memory-driver.ts';
import { type RealReactor, realReactor } from './real-reactor.ts';

export type Field = ['u8' | 'u16' | 'u32', number] | ['u64', bigint | number] | ['text' | 'bytes', string | Uint8Array];

const WIDTHS = { u8: 1, u16: 2, u32: 4, u64: 8 } as const;

export function bytesOf(value: string | Uint8Array): Uint8Array {
  return typeof value === 'string' ? new TextEncoder().encode(value) : value;
}

/** A whole message. */
export function encodeMessage(type: number, tag: number, fields: readonly Field[]): Uint8Array {
  const parts: number[] = [0, 0, 0, 0, type, tag & 255, tag >> 8];
  const number = (value: bigint, width: number) => {
    for (let i = 0; i < width; i++) parts.push(Number((value >> BigInt(8 * i)) & 255n));
  };
  for (const [kind, value] of fields) {
    if (typeof value === 'number' || typeof value === 'bigint') {
      assert.ok(kind !== 'text' && kind !== 'bytes');
      number(BigInt(value), WIDTHS[kind]);
    } else {
      const bytes = bytesOf(value);
      if (kind === 'text') number(BigInt(bytes.length), 2);
      for (const byte of bytes) parts.push(byte);
    }
  }
  const message = Uint8Array.from(parts);
  new DataView(message.buffer).setUint32(0, message.length, true);
  return message;
}

export interface Reply {
  /** 0, or the errno of Rlerror. */
  readonly errno: number;
  readonly type: number;
  readonly tag: number;
  readonly body: Uint8Array;
}

export const NO_FID = 0xffffffff;
export const ROOT = 0;

export interface Entry {
  readonly name: string;
  readonly path: bigint;
  readonly kind: number;
  readonly next: bigint;
}

export class P9Client {
  readonly real: RealReactor;
  readonly share: Share;
  readonly session: Session;
  /** The shared folder; beside it is `outside`. */
  readonly path: string;
  readonly outside: string;
  private tag = 0;

  private constructor(real: RealReactor, readOnly: boolean) {
    this.real = real;
    this.path = `${real.folder}/share`;
    this.outside = `${real.folder}/outside`;
    mkdirSync(this.path, { recursive: true });
    mkdirSync(this.outside, { recursive: true });
    this.share = must(Share.open(real.calls, this.path, { readOnly }));
    this.session = new Session(real.calls, this.share, memoryOf(real));
  }

  static async open(options: { readOnly?: boolean; prepare?: (share: string, outside: string) => void } = {}) {
    const real = await realReactor();
    mkdirSync(`${real.folder}/share`);
    mkdirSync(`${real.folder}/outside`);
    options.prepare?.(`${real.folder}/share`, `${real.folder}/outside`);
    const client = new P9Client(real, options.readOnly ?? false);
    assert.equal(client.version().errno, 0);
    assert.equal(client.attach(ROOT).errno, 0);
    return client;
  }

  end(): void {
    this.session.reset();
    this.share.close();
    this.real.end();
  }

  raw(message: Uint8Array, room = MSIZE_LIMIT): Uint8Array {
    this.session.input.bytes.set(message);
    const length = this.session.answer(message.length, room);
    assert.ok(length <= room);
    return this.session.output.bytes.slice(0, length);
  }

  call(type: number, fields: readonly Field[], room?: number): Reply {
    const tag = this.tag++ & 0x7fff;
    const reply = this.raw(encodeMessage(type, tag, fields), room);
    const view = new DataView(reply.buffer);
    assert.equal(view.getUint32(0, true), reply.length);
    assert.equal(view.getUint16(5, true), tag);
    if (reply[4] === 7) return { errno: view.getUint32(7, true), type: 7, tag, body: new Uint8Array(0) };
    assert.equal(reply[4], type + 1);
    return { errno: 0, type: type + 1, tag, body: reply.subarray(7) };
  }

  version(msize = MSIZE_LIMIT, version = '9P2000.L'): Reply {
    return this.call(100, [
      ['u32', msize],
      ['text', version],
    ]);
  }

  attach(fid: number, tree = '', authentication = NO_FID): Reply {
    return this.call(104, [
      ['u32', fid],
      ['u32', authentication],
      ['text', 'root'],
      ['text', tree],
      ['u32', 0],
    ]);
  }

  /** Names as a path; the number of qids of the reply stands at the start of its body. */
  walk(fid: number, newFid: number, ...names: (string | Uint8Array)[]): Reply {
    const fields = names.map((name): Field => ['text', name]);
    return this.call(110, [['u32', fid], ['u32', newFid], ['u16', names.length], ...fields]);
  }

  /** Did all names lead somewhere? */
  reaches(newFid: number, ...names: string[]): boolean {
    const reply = this.walk(ROOT, newFid, ...names);
    return reply.errno === 0 && reply.body[0] === names.length;
  }

  clunk(fid: number): number {
    return this.call(120, [['u32', fid]]).errno;
  }

  lopen(fid: number, flags = 0): number {
    return this.call(12, [
      ['u32', fid],
      ['u32', flags],
    ]).errno;
  }

  lcreate(fid: number, name: string | Uint8Array, flags = 2, mode = 0o644): number {
    return this.call(14, [
      ['u32', fid],
      ['text', name],
      ['u32', flags],
      ['u32', mode],
      ['u32', 0],
    ]).errno;
  }

  read(fid: number, offset: number | bigint = 0, count = 65536): Uint8Array | number {
    const reply = this.call(116, [
      ['u32', fid],
      ['u64', offset],
      ['u32', count],
    ]);
    return reply.errno === 0 ? reply.body.subarray(4) : reply.errno;
  }

  write(fid: number, data: string | Uint8Array, offset: number | bigint = 0): Reply {
    const bytes = bytesOf(data);
    return this.call(118, [
      ['u32', fid],
      ['u64', offset],
      ['u32', bytes.length],
      ['bytes', bytes],
    ]);
  }

  readdir(fid: number, offset: bigint, count: number): Entry[] | number {
    const reply = this.call(40, [
      ['u32', fid],
      ['u64', offset],
      ['u32', count],
    ]);
    if (reply.errno !== 0) return reply.errno;
    const { body } = reply;
    const view = new DataView(body.buffer, body.byteOffset, body.length);
    assert.equal(view.getUint32(0, true), body.length - 4);
    assert.ok(body.length - 4 <= count);
    const entries: Entry[] = [];
    for (let at = 4; at < body.length; ) {
      const length = view.getUint16(at + 22, true);
      entries.push({
        path: view.getBigUint64(at + 5, true),
        next: view.getBigUint64(at + 13, true),
        kind: view.getUint8(at),
        name: new TextDecoder().decode(body.subarray(at + 24, at + 24 + length)),
      });
      at += 24 + length;
    }
    return entries;
  }

  getattr(fid: number) {
    const { errno, body } = this.call(24, [
      ['u32', fid],
      ['u64', 0x3fff],
    ]);
    const view = new DataView(body.buffer, body.byteOffset, body.length);
    if (errno !== 0) return { errno, mode: 0, size: 0, path: 0n, links: 0, type: 0, mtime: 0n };
    assert.equal(body.length, 153);
    return {
      errno,
      type: view.getUint8(8),
      path: view.getBigUint64(13, true),
      mode: view.getUint32(21, true),
      links: Number(view.getBigUint64(33, true)),
      size: Number(view.getBigUint64(49, true)),
      mtime: view.getBigUint64(89, true),
    };
  }

  setattr(
    fid: number,
    valid: number,
    to: { mode?: number; uid?: number; gid?: number; size?: number | bigint; times?: readonly bigint[] } = {},
  ): number {
    const times = to.times ?? [0n, 0n, 0n, 0n];
    return this.call(26, [
      ['u32', fid],
      ['u32', valid],
      ['u32', to.mode ?? 0],
      ['u32', to.uid ?? 0],
      ['u32', to.gid ?? 0],
      ['u64', to.size ?? 0],
      ...times.map((time): Field => ['u64', time]),
    ]).errno;
  }

  symlink(fid: number, name: string, target: string): number {
    return this.call(16, [
      ['u32', fid],
      ['text', name],
      ['text', target],
      ['u32', 0],
    ]).errno;
  }

  mknod(fid: number, name: string, mode: number): number {
    return this.call(18, [
      ['u32', fid],
      ['text', name],
      ['u32', mode],
      ['u32', 1],
      ['u32', 3],
      ['u32', 0],
    ]).errno;
  }

  mkdir(fid: number, name: string, mode = 0o755): number {
    return this.call(72, [
      ['u32', fid],
      ['text', name],
      ['u32', mode],
      ['u32', 0],
    ]).errno;
  }

  link(folder: number, fid: number, name: string): number {
    return this.call(70, [
      ['u32', folder],
      ['u32', fid],
      ['text', name],
    ]).errno;
  }

  rename(fid: number, folder: number, name: string): number {
    return this.call(20, [
      ['u32', fid],
      ['u32', folder],
      ['text', name],
    ]).errno;
  }

  renameat(from: number, name: string, to: number, newName: string): number {
    return this.call(74, [
      ['u32', from],
      ['text', name],
      ['u32', to],
      ['text', newName],
    ]).errno;
  }

  unlinkat(fid: number, name: string, flags = 0): number {
    return this.call(76, [
      ['u32', fid],
      ['text', name],
      ['u32', flags],
    ]).errno;
  }

  remove(fid: number): number {
    return this.call(122, [['u32', fid]]).errno;
  }

  readlink(fid: number): string | number {
    const { errno, body } = this.call(22, [['u32', fid]]);
    return errno === 0 ? new TextDecoder().decode(body.subarray(2)) : errno;
  }

  lock(fid: number, type: number, start = 0n, length = 0n): number {
    const { errno, body } = this.call(52, [
      ['u32', fid],
      ['u8', type],
      ['u32', 0],
      ['u64', start],
      ['u64', length],
      ['u32', 1],
      ['text', 'guest'],
    ]);
    return errno === 0 ? (body[0] ?? -1) : -errno;
  }

  getlock(fid: number, type: number, start = 0n, length = 0n): number {
    const { errno, body } = this.call(54, [
      ['u32', fid],
      ['u8', type],
      ['u64', start],
      ['u64', length],
      ['u32', 1],
      ['text', 'guest'],
    ]);
    return errno === 0 ? (body[0] ?? -1) : -errno;
  }

  xattrwalk(fid: number, newFid: number, name: string): number {
    return this.call(30, [
      ['u32', fid],
      ['u32', newFid],
      ['text', name],
    ]).errno;
  }

  xattrcreate(fid: number, name: string, size: number | bigint, flags = 0): number {
    return this.call(32, [
      ['u32', fid],
      ['text', name],
      ['u64', size],
      ['u32', flags],
    ]).errno;
  }
}

// Memory of a session is never given back, so the tests of one process share it.
const memories = new WeakMap<object, ReturnType<typeof sessionMemory>>();
function memoryOf(real: RealReactor): ReturnType<typeof sessionMemory> {
  const memory = memories.get(real.calls) ?? sessionMemory(real.calls);
  memories.set(real.calls, memory);
  return memory;
}
