/**
 * A folder of this machine that a guest may use, and nothing outside of it. Every file that the guest holds is an O_PATH
 * descriptor here; a name is looked up in such a descriptor, one component at a time, by openat2(2) with links neither
 * followed nor left open to a race. What is opened for I/O is looked up once more, in the same way, and must then be the
 * same file: /proc, through which a descriptor could be reopened, would be a way out for a process that was taken over.
 * Only regular files and folders are ever opened: pipes, sockets and devices are shown and never touched.
 *
 * Results are numbers as the kernel gives them: 0 or more, or a negative errno.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import {
  AT_EMPTY_PATH,
  AT_NO_AUTOMOUNT,
  O_CLOEXEC,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_NOCTTY,
  O_NOFOLLOW,
  O_PATH,
  O_RDONLY,
  O_TRUNC,
  O_WRONLY,
  OPEN_HOW_SIZE,
  pathBytes,
  RESOLVE_BENEATH,
  RESOLVE_NO_MAGICLINKS,
  RESOLVE_NO_SYMLINKS,
  RLIMIT_NOFILE,
  STATFS_SIZE,
  STATX_SIZE,
} from '@airlock/transport/sys/directories.ts';
import { O_NONBLOCK } from '@airlock/transport/sys/files.ts';
import type { Memory } from '@airlock/transport/sys/libc.ts';
import { putUint64, type SystemCalls, takeUint64 } from '@airlock/transport/system-calls.ts';
import { type Attributes, qidOf, readAttributes, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, STATX_MASK } from './attributes.ts';
import { EEXIST, EINVAL, EISDIR, ELOOP, ENOSYS, ENXIO, EPERM, EROFS, ESTALE } from './errno.ts';
import type { Qid } from './message.ts';
import { checkName, withZero } from './name.ts';

const RESOLVE_NO_XDEV = 0x01;
/** Where a lookup may lead: one step down, on the same mount, over no link of any kind. */
const RESOLVE = RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH;
const ITSELF = new Uint8Array(1);
const DOT = Uint8Array.of(0x2e, 0);
const ACCESS = 3;
const ALWAYS = O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
const LINK_LIMIT = 4096;
/** Descriptors that the process needs besides those of the share. */
const SPARE_DESCRIPTORS = 128;

export type FileKind = 'file' | 'folder' | 'link' | 'other';

/** One file of the share that the guest holds, however many fids lead to it. */
export interface ShareNode {
  /** O_PATH. */
  readonly fd: number;
  readonly kind: FileKind;
  readonly key: string;
  readonly device: bigint;
  /** The share forgets it when nobody is left. */
  references: number;
}

/** A file, and where it was found; a fid is one. */
export interface Place {
  readonly node: ShareNode;
  /** Null for the share itself. */
  readonly parent: ShareNode | null;
  readonly name: Uint8Array;
}

export interface ShareOptions {
  readonly readOnly: boolean;
}

/** Is it an errno? */
export function isErrno(value: ShareNode | number): value is number {
  return typeof value === 'number';
}

export class Share {
  readonly root: ShareNode;
  readonly readOnly: boolean;
  /** The most descriptors that this process may have for the share. */
  readonly descriptorLimit: number;
  private readonly calls: SystemCalls;
  private readonly nodes = new Map<string, ShareNode>();
  private readonly status: Memory;
  private readonly how: Memory;
  private readonly link: Memory;

  private constructor(calls: SystemCalls, options: ShareOptions & { readonly root: number; readonly limit: number }) {
    this.calls = calls;
    this.readOnly = options.readOnly;
    this.descriptorLimit = options.limit;
    this.status = calls.allocate(STATX_SIZE);
    this.how = calls.allocate(OPEN_HOW_SIZE);
    this.link = calls.allocate(LINK_LIMIT);
    const root = this.adopt(options.root);
    this.root = isErrno(root) ? { fd: options.root, kind: 'other', key: '', device: 0n, references: 1 } : root;
  }

  /**
   * The folder at `path`, which may itself be a link. After this no path is needed any more.
   * Code: `share-not-usable`.
   */
  static open(calls: SystemCalls, path: string, options: ShareOptions): Result<Share> {
    const unusable = (what: string, status: number): Result<never> =>
      fail('share-not-usable', `${what}: ${calls.errnoName(-status)}`);
    const bytes = pathBytes(path);
    if (bytes === null) return fail('share-not-usable', 'a path with a zero byte');
    const root = calls.open(bytes, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (root < 0) return unusable(path, root);
    const share = new Share(calls, { ...options, root, limit: raiseDescriptorLimit(calls) });
    // Whether it can be read is tried now, not with the guest's first request.
    const again = share.openNode({ node: share.root, parent: null, name: ITSELF }, O_RDONLY);
    if (again >= 0) {
      calls.close(again);
      return ok(share);
    }
    share.close();
    return unusable(`reading ${path}`, again);
  }

  /** Descriptors of files that the guest holds. */
  get held(): number {
    return this.nodes.size;
  }

  retain(node: ShareNode): ShareNode {
    node.references++;
    return node;
  }

  release(node: ShareNode): void {
    node.references--;
    if (node.references > 0) return;
    this.nodes.delete(node.key);
    this.calls.close(node.fd);
  }

  close(): void {
    for (const node of this.nodes.values()) this.calls.close(node.fd);
    this.nodes.clear();
  }

  /** What `name` is in a folder, retained; a link is itself. */
  walk(folder: ShareNode, name: Uint8Array): ShareNode | number {
    const fd = this.lookUp(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);
    return fd < 0 ? fd : this.adopt(fd);
  }

  private lookUp(folder: ShareNode, name: Uint8Array, flags: number, mode: number): number {
    const wrong = checkName(name);
    if (wrong !== 0) return wrong;
    putUint64(this.how.view, 0, flags >>> 0);
    putUint64(this.how.view, 8, mode);
    putUint64(this.how.view, 16, RESOLVE);
    return this.calls.openat2(folder.fd, withZero(name), this.how.address);
  }

  /** Makes an O_PATH descriptor a node, or closes it where the file is known already. */
  private adopt(fd: number): ShareNode | number {
    const attributes = this.attributesOf(fd);
    if (typeof attributes === 'number') {
      this.calls.close(fd);
      return attributes;
    }
    const key = keyOf(attributes);
    const known = this.nodes.get(key);
    if (known !== undefined) {
      this.calls.close(fd);
      return this.retain(known);
    }
    const { device } = attributes;
    const node: ShareNode = { fd, kind: kindOf(attributes.mode), key, device, references: 1 };
    this.nodes.set(key, node);
    return node;
  }

  private attributesOf(fd: number): Attributes | number {
    const { status } = this;
    const found = this.calls.statx(fd, ITSELF, AT_EMPTY_PATH | AT_NO_AUTOMOUNT, STATX_MASK, status.address);
    return found < 0 ? found : readAttributes(status.view);
  }

  attributes(node: ShareNode): Attributes | number {
    return this.attributesOf(node.fd);
  }

  qid(node: ShareNode): Qid | number {
    const attributes = this.attributesOf(node.fd);
    return typeof attributes === 'number' ? attributes : qidOf(attributes, this.root.device);
  }

  /** A descriptor for I/O on a regular file or a folder. `flags`: access, O_TRUNC, O_SYNC, O_DSYNC. */
  openNode(place: Place, flags: number): number {
    const { node, parent, name } = place;
    if (node.kind === 'link') return -ELOOP;
    if (node.kind === 'other') return -ENXIO;
    if (this.readOnly && flags !== O_RDONLY) return -EROFS;
    if (node.kind === 'folder') return this.calls.openat(node.fd, DOT, flags | O_DIRECTORY | ALWAYS, 0);
    if (parent === null) return -ESTALE;
    // Cut only when it is known to be the file that is meant.
    const fd = this.lookUp(parent, name, (flags & ~O_TRUNC) | O_NOFOLLOW | ALWAYS, 0);
    if (fd < 0) return fd;
    let outcome = this.isSame(fd, node);
    if (outcome === 0 && (flags & O_TRUNC) !== 0) {
      outcome = (flags & ACCESS) === O_RDONLY ? this.changeSize(place, 0) : this.calls.ftruncate(fd, 0);
    }
    if (outcome >= 0) return fd;
    this.calls.close(fd);
    return outcome;
  }

  /** Does the descriptor lead to the node's file? 0, or a negative errno. */
  private isSame(fd: number, node: ShareNode): number {
    const attributes = this.attributesOf(fd);
    if (typeof attributes === 'number') return attributes;
    return keyOf(attributes) === node.key ? 0 : -ESTALE;
  }

  /**
   * Makes a regular file, or opens the one that is there unless `exclusive`. A pipe or device of that name is not opened.
   * Returns a descriptor with `created` set, which the caller releases.
   */
  create(folder: ShareNode, name: Uint8Array, flags: number, mode: number, exclusive: boolean): number {
    this.created = null;
    if (this.readOnly) return -EROFS;
    let fd = this.lookUp(folder, name, flags | O_CREAT | O_EXCL | O_NOFOLLOW | ALWAYS, mode);
    const there = fd === -EEXIST && !exclusive;
    if (fd < 0 && !there) return fd;
    const node = this.walk(folder, name);
    let outcome = isErrno(node) ? node : 0;
    if (!isErrno(node) && there) {
      fd = node.kind === 'folder' ? -EISDIR : this.openNode({ node, parent: folder, name }, flags);
      outcome = Math.min(fd, 0);
    } else if (!isErrno(node)) {
      outcome = this.isSame(fd, node);
    }
    if (outcome === 0 && !isErrno(node)) {
      this.created = node;
      return fd;
    }
    if (fd >= 0) this.calls.close(fd);
    if (!isErrno(node)) this.release(node);
    return outcome;
  }

  /** Of the last `create` that succeeded. */
  created: ShareNode | null = null;

  makeFolder(folder: ShareNode, name: Uint8Array, mode: number): number {
    return this.changing(name) ?? this.calls.mkdirat(folder.fd, withZero(name), mode);
  }

  /** A regular file, pipe or socket; `mode` holds which. */
  makeNode(folder: ShareNode, name: Uint8Array, mode: number): number {
    return this.changing(name) ?? this.calls.mknodat(folder.fd, withZero(name), mode);
  }

  makeLink(folder: ShareNode, name: Uint8Array, target: Uint8Array): number {
    if (target.length === 0 || target.length >= LINK_LIMIT || target.includes(0)) return -EINVAL;
    return this.changing(name) ?? this.calls.symlinkat(withZero(target), folder.fd, withZero(name));
  }

  /** Another name for a file that the guest holds. Where another file had its name meanwhile, it is taken back. */
  addName(place: Place, folder: ShareNode, name: Uint8Array): number {
    const refused = this.changing(name);
    if (refused !== null) return refused;
    if (place.parent === null) return -EPERM;
    const { node, parent } = place;
    const named = this.isNamed(node, parent, place.name);
    if (named < 0) return named;
    const linked = this.calls.linkat(parent.fd, withZero(place.name), folder.fd, withZero(name), 0);
    if (linked < 0) return linked;
    const right = this.isNamed(node, folder, name);
    if (right === -ESTALE) this.calls.unlinkat(folder.fd, withZero(name), 0);
    return right;
  }

  rename(from: ShareNode, name: Uint8Array, to: ShareNode, newName: Uint8Array): number {
    return (
      this.changing(name) ??
      this.changing(newName) ??
      this.calls.renameat(from.fd, withZero(name), to.fd, withZero(newName))
    );
  }

  unlink(folder: ShareNode, name: Uint8Array, flags: number): number {
    return this.changing(name) ?? this.calls.unlinkat(folder.fd, withZero(name), flags);
  }

  /** Is `name` still the file `node`? 0, or what is wrong. */
  isNamed(node: ShareNode, folder: ShareNode, name: Uint8Array): number {
    const found = this.walk(folder, name);
    if (isErrno(found)) return found;
    const same = found === node;
    this.release(found);
    return same ? 0 : -ESTALE;
  }

  /** What a link says, as a copy. */
  readLink(node: ShareNode): Uint8Array | number {
    if (node.kind !== 'link') return -EINVAL;
    const length = this.calls.readlinkat(node.fd, ITSELF, this.link.address, LINK_LIMIT);
    return length < 0 ? length : this.link.bytes.slice(0, length);
  }

  changeOwner(node: ShareNode, uid: number, gid: number): number {
    if (this.readOnly) return -EROFS;
    return this.calls.fchownat(node.fd, ITSELF, uid, gid, AT_EMPTY_PATH);
  }

  changeMode(place: Place, mode: number): number {
    if (this.readOnly) return -EROFS;
    const changed = this.calls.fchmodat2(place.node.fd, ITSELF, mode, AT_EMPTY_PATH);
    if (changed !== -ENOSYS) return changed;
    // Linux before 6.6: only what can be opened.
    const fd = this.openNode(place, O_RDONLY);
    if (fd < 0) return fd;
    const opened = this.calls.fchmod(fd, mode);
    this.calls.close(fd);
    return opened;
  }

  changeSize(place: Place, size: number): number {
    const fd = this.openNode(place, O_WRONLY);
    if (fd < 0) return fd;
    const changed = this.calls.ftruncate(fd, size);
    this.calls.close(fd);
    return changed;
  }

  /** `times`: the address of two struct timespec. */
  changeTimes(node: ShareNode, times: number): number {
    if (this.readOnly) return -EROFS;
    return this.calls.utimensat(node.fd, ITSELF, times, AT_EMPTY_PATH);
  }

  /** The 120 bytes of struct statfs; true until the next call. */
  fileSystem(node: ShareNode): DataView | number {
    const found = this.calls.fstatfs(node.fd, this.status.address);
    return found < 0 ? found : new DataView(this.status.view.buffer, this.status.view.byteOffset, STATFS_SIZE);
  }

  /** A negative errno where nothing may be changed, or not under that name. */
  private changing(name: Uint8Array): number | null {
    if (this.readOnly) return -EROFS;
    const wrong = checkName(name);
    return wrong === 0 ? null : wrong;
  }
}

function kindOf(mode: number): FileKind {
  const kind = mode & S_IFMT;
  if (kind === S_IFREG) return 'file';
  if (kind === S_IFDIR) return 'folder';
  return kind === S_IFLNK ? 'link' : 'other';
}

function keyOf(attributes: Attributes): string {
  return `${attributes.device}:${attributes.inode}`;
}

/** A guest that caches holds many files: as many descriptors as this process may have. */
function raiseDescriptorLimit(calls: SystemCalls): number {
  const limits = calls.allocate(16);
  if (calls.resourceLimit(RLIMIT_NOFILE, limits.address, false) < 0) return 1024 - SPARE_DESCRIPTORS;
  const hard = takeUint64(limits.view, 8);
  const soft = takeUint64(limits.view, 0);
  limits.bytes.copyWithin(0, 8, 16);
  const most = calls.resourceLimit(RLIMIT_NOFILE, limits.address, true) < 0 ? soft : hard;
  return Math.max(16, Math.min(most, 1_000_000) - SPARE_DESCRIPTORS);
}
