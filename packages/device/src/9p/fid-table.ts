/** What the guest holds: a fid is the guest's number for a file, and after an open for its open file. */
import type { FileCalls } from '@airlock/transport/sys/files.ts';
import { EBADF, EINVAL, ENFILE } from './errno.ts';
import { sameName } from './name.ts';
import type { Share, ShareNode } from './share.ts';

export interface OpenFile {
  readonly fd: number;
  readonly folder: boolean;
}

/** An extended attribute that is being read or written through a fid. */
export interface OpenAttribute {
  readonly writing: boolean;
  readonly name: Uint8Array;
  readonly value: Uint8Array;
  readonly flags: number;
  /** Bytes written so far. */
  filled: number;
}

export interface Fid {
  readonly number: number;
  readonly node: ShareNode;
  /** Where it was found, for requests that mean the name and not the file; null at the root. */
  parent: ShareNode | null;
  name: Uint8Array;
  open: OpenFile | null;
  attribute: OpenAttribute | null;
}

const NO_NAME = new Uint8Array(0);
/** Each may hold 64 KiB. */
const ATTRIBUTES_LIMIT = 64;

export class FidTable {
  private readonly fids = new Map<number, Fid>();
  private readonly share: Share;
  private readonly calls: FileCalls;
  private readonly limit: number;
  private attributes = 0;
  private opened = 0;

  constructor(share: Share, calls: FileCalls, limit: number) {
    this.share = share;
    this.calls = calls;
    this.limit = limit;
  }

  get size(): number {
    return this.fids.size;
  }

  get(number: number): Fid | undefined {
    return this.fids.get(number);
  }

  /** May `number` be a new fid? 0 or a negative errno. */
  mayAdd(number: number): number {
    if (number === 0xffffffff || this.fids.has(number)) return -EINVAL;
    const { held, descriptorLimit } = this.share;
    return this.fids.size >= this.limit || held + this.opened >= descriptorLimit ? -ENFILE : 0;
  }

  /** `node` is retained already and the table's from now on; so is `parent`, which this retains. */
  add(number: number, node: ShareNode, parent: ShareNode | null, name: Uint8Array | null): Fid {
    const fid: Fid = {
      number,
      node,
      parent: parent === null ? null : this.share.retain(parent),
      name: name?.slice() ?? NO_NAME,
      open: null,
      attribute: null,
    };
    this.fids.set(number, fid);
    return fid;
  }

  /** `fd` is the table's from now on. */
  setOpen(fid: Fid, fd: number): void {
    fid.open = { fd, folder: fid.node.kind === 'folder' };
    this.opened++;
  }

  /** 0, or a negative errno where too many are open. */
  setAttribute(fid: Fid, attribute: OpenAttribute): number {
    if (this.attributes >= ATTRIBUTES_LIMIT) return -ENFILE;
    fid.attribute = attribute;
    this.attributes++;
    return 0;
  }

  /** Descriptors left for files to be opened. */
  get mayOpen(): boolean {
    return this.share.held + this.opened < this.share.descriptorLimit;
  }

  remove(number: number): number {
    const fid = this.fids.get(number);
    if (fid === undefined) return -EBADF;
    this.fids.delete(number);
    if (fid.open !== null) {
      this.calls.close(fid.open.fd);
      this.opened--;
    }
    if (fid.attribute !== null) this.attributes--;
    if (fid.parent !== null) this.share.release(fid.parent);
    this.share.release(fid.node);
    return 0;
  }

  clear(): void {
    for (const number of [...this.fids.keys()]) this.remove(number);
  }

  /** A name moved: fids that were found under the old one are found under the new one. */
  renamed(from: ShareNode, name: Uint8Array, to: ShareNode, newName: Uint8Array): void {
    for (const fid of this.fids.values()) {
      if (fid.parent !== from || !sameName(fid.name, name)) continue;
      fid.parent = this.share.retain(to);
      this.share.release(from);
      fid.name = newName.slice();
    }
  }
}
