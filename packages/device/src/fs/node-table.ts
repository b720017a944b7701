/** What the guest holds of a share: nodes by number, counted as FUSE counts lookups, and open files. */
import type { FileCalls } from '@airlock/transport/sys/files.ts';
import { EBADF, ENFILE, ESTALE } from '../9p/errno.ts';
import { sameName } from '../9p/name.ts';
import type { Place, Share, ShareNode } from '../9p/share.ts';

export const ROOT = 1n;
const NO_NAME = new Uint8Array(0);
const HANDLES_LIMIT = 16_384;

interface HeldNode {
  readonly number: number;
  readonly node: ShareNode;
  /** Where it was found last: a file is opened by its name, and must be the same then. */
  parent: ShareNode;
  name: Uint8Array;
  lookups: bigint;
}

export interface Handle {
  readonly fd: number;
  readonly folder: boolean;
}

export class NodeTable {
  private readonly share: Share;
  private readonly calls: FileCalls;
  private readonly nodes = new Map<number, HeldNode>();
  private readonly byKey = new Map<string, HeldNode>();
  private readonly handles = new Map<number, Handle>();
  private lastNode = 1;
  private lastHandle = 0;

  constructor(share: Share, calls: FileCalls) {
    this.share = share;
    this.calls = calls;
  }

  get size(): number {
    return this.nodes.size;
  }

  get open(): number {
    return this.handles.size;
  }

  /** The file behind a number, or a negative errno. */
  get(number: bigint): ShareNode | number {
    if (number === ROOT) return this.share.root;
    return this.nodes.get(Number(number))?.node ?? -ESTALE;
  }

  /** The same with where it is; a negative errno. */
  place(number: bigint): Place | number {
    if (number === ROOT) return { node: this.share.root, parent: null, name: NO_NAME };
    return this.nodes.get(Number(number)) ?? -ESTALE;
  }

  /** Room for one more file? 0 or a negative errno. */
  mayAdd(): number {
    return this.share.held + this.handles.size >= this.share.descriptorLimit ? -ENFILE : 0;
  }

  /** Counts one lookup of `node`, which is retained already and the table's from now on; its number. */
  add(node: ShareNode, parent: ShareNode, name: Uint8Array): number {
    if (node === this.share.root) {
      this.share.release(node);
      return Number(ROOT);
    }
    const known = this.byKey.get(node.key);
    if (known !== undefined) {
      this.share.release(node);
      known.lookups++;
      this.moved(known, parent, name);
      return known.number;
    }
    this.lastNode++;
    const held = { number: this.lastNode, node, parent: this.share.retain(parent), name: name.slice(), lookups: 1n };
    this.nodes.set(held.number, held);
    this.byKey.set(node.key, held);
    return held.number;
  }

  forget(number: bigint, lookups: bigint): void {
    const held = number === ROOT ? undefined : this.nodes.get(Number(number));
    if (held === undefined) return;
    held.lookups -= lookups;
    if (held.lookups <= 0n) this.drop(held);
  }

  private moved(held: HeldNode, parent: ShareNode, name: Uint8Array): void {
    const before = held.parent;
    held.parent = this.share.retain(parent);
    held.name = name.slice();
    this.share.release(before);
  }

  /** A name moved: what was found under the old one is found under the new one. */
  renamed(from: ShareNode, name: Uint8Array, to: ShareNode, newName: Uint8Array): void {
    for (const held of this.nodes.values()) {
      if (held.parent === from && sameName(held.name, name)) this.moved(held, to, newName);
    }
  }

  private drop(held: HeldNode): void {
    this.nodes.delete(held.number);
    this.byKey.delete(held.node.key);
    this.share.release(held.parent);
    this.share.release(held.node);
  }

  /** `fd` is the table's from now on, also when there are too many: then a negative errno. */
  addHandle(fd: number, folder: boolean): number {
    if (this.handles.size >= HANDLES_LIMIT) {
      this.calls.close(fd);
      return -ENFILE;
    }
    this.lastHandle++;
    this.handles.set(this.lastHandle, { fd, folder });
    return this.lastHandle;
  }

  handle(number: bigint): Handle | null {
    return this.handles.get(Number(number)) ?? null;
  }

  removeHandle(number: bigint): number {
    const handle = this.handles.get(Number(number));
    if (handle === undefined) return -EBADF;
    this.handles.delete(Number(number));
    this.calls.close(handle.fd);
    return 0;
  }

  clear(): void {
    for (const { fd } of this.handles.values()) this.calls.close(fd);
    this.handles.clear();
    for (const held of [...this.nodes.values()]) this.drop(held);
  }
}
