/** The kernel's side of VDUSE as calls: make a device, hear its requests, fetch its memory, interrupt its driver. */
import { closeSync, openSync } from 'node:fs';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { Memory } from '../sys/libc.ts';
import { callFailed, putUint64, type SystemCalls, takeUint64 } from '../system-calls.ts';
import {
  CONFIG_HEADER,
  CREATE_DEV,
  DESTROY_DEV,
  DEV_GET_FEATURES,
  DEV_SET_CONFIG,
  GET_API_VERSION,
  INJECT_CONFIG_IRQ,
  IOTLB_GET_FD,
  NAME_LIMIT,
  type QueueState,
  readQueueState,
  SET_API_VERSION,
  VQ_GET_INFO,
  VQ_INJECT_IRQ,
  VQ_SETUP,
  VQ_SETUP_KICKFD,
} from './abi.ts';

export interface VduseDeclaration {
  /** The name below /dev/vduse and on the vdpa bus. */
  readonly name: string;
  /** VIRTIO's number of the device type. */
  readonly type: number;
  /** The lowest 64 bits. */
  readonly features: readonly [number, number];
  readonly queueSizes: readonly number[];
  readonly config: Uint8Array;
}

export interface QueueInfo {
  readonly size: number;
  readonly descriptors: number;
  readonly driver: number;
  readonly device: number;
  readonly state: QueueState;
  readonly ready: boolean;
}

/** One stretch of I/O addresses, and the descriptor that its memory is behind (the caller's to close). */
export interface IotlbRegion {
  readonly fd: number;
  readonly offset: number;
  readonly start: number;
  readonly size: number;
  /** READ 1, WRITE 2, as virtio/memory has them. */
  readonly access: number;
}

const O_RDWR = 2;
const VENDOR = 0x1af4;
const QUEUE_ALIGNMENT = 4096;
const SCRATCH = CONFIG_HEADER + 4096;

export class VduseKernel {
  readonly fd: number;
  readonly name: string;
  private readonly calls: SystemCalls;
  private readonly control: number;
  private readonly memory: Memory;

  private constructor(calls: SystemCalls, control: number, fd: number, name: string, memory: Memory) {
    this.calls = calls;
    this.control = control;
    this.fd = fd;
    this.name = name;
    this.memory = memory;
  }

  /**
   * Makes the device /dev/vduse/NAME; it appears to the system once somebody attaches it (`vdpa dev add`).
   * Codes: `vduse-missing`, `vduse-name-invalid`, `vduse-refused`.
   */
  static create(calls: SystemCalls, declaration: VduseDeclaration): Result<VduseKernel> {
    const { name, type, features, queueSizes, config } = declaration;
    if (!/^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name) || name.length > NAME_LIMIT || name === 'control') {
      return fail('vduse-name-invalid', `the name ${JSON.stringify(name)}`);
    }
    const control = open('/dev/vduse/control');
    if (control === null) {
      return fail('vduse-missing', 'there is no /dev/vduse/control', {
        hint: 'modprobe vduse (Linux 6.12 and later, CONFIG_VDPA_USER), as root',
      });
    }
    const memory = calls.allocate(SCRATCH);
    const { view, bytes, address } = memory;
    const refuse = (call: string, status: number): Result<never> => {
      closeSync(control);
      const failed = callFailed(calls, call, status);
      return failed.ok ? failed : fail('vduse-refused', failed.error.message);
    };
    const known = calls.ioctl(control, GET_API_VERSION, address);
    if (known < 0) return refuse('VDUSE_GET_API_VERSION', known);
    putUint64(view, 0, 0);
    const agreed = calls.ioctl(control, SET_API_VERSION, address);
    if (agreed < 0) return refuse('VDUSE_SET_API_VERSION', agreed);
    bytes.fill(0);
    writeName(bytes, name);
    view.setUint32(256, VENDOR, true);
    view.setUint32(260, type, true);
    view.setUint32(264, features[0], true);
    view.setUint32(268, features[1], true);
    view.setUint32(272, queueSizes.length, true);
    view.setUint32(276, QUEUE_ALIGNMENT, true);
    view.setUint32(332, config.length, true);
    bytes.set(config, CONFIG_HEADER);
    const made = calls.ioctl(control, CREATE_DEV, address);
    if (made < 0) return refuse(`VDUSE_CREATE_DEV(${name})`, made);
    const fd = open(`/dev/vduse/${name}`);
    if (fd === null) {
      destroy(calls, control, memory, name);
      closeSync(control);
      return fail('vduse-refused', `/dev/vduse/${name} cannot be opened`);
    }
    const kernel = new VduseKernel(calls, control, fd, name, memory);
    for (const [index, size] of queueSizes.entries()) {
      bytes.fill(0, 0, 32);
      view.setUint32(0, index, true);
      view.setUint16(4, size, true);
      const status = calls.ioctl(fd, VQ_SETUP, address);
      if (status >= 0) continue;
      kernel.close();
      const failed = callFailed(calls, `VDUSE_VQ_SETUP(${index})`, status);
      return failed.ok ? failed : fail('vduse-refused', failed.error.message);
    }
    return ok(kernel);
  }

  /** What the driver accepted, of the lowest 64 bits. */
  features(): readonly [number, number] {
    const { view, address } = this.memory;
    putUint64(view, 0, 0);
    this.calls.ioctl(this.fd, DEV_GET_FEATURES, address);
    return [view.getUint32(0, true), view.getUint32(4, true)];
  }

  /** Has the kernel given the device up? After that it refuses everything, and says so to nobody. */
  broken(): boolean {
    return this.calls.ioctl(this.fd, DEV_GET_FEATURES, this.memory.address) < 0;
  }

  /** Null where the kernel does not tell. */
  queue(index: number, packed: boolean): QueueInfo | null {
    const { view, bytes, address } = this.memory;
    bytes.fill(0, 0, 48);
    view.setUint32(0, index, true);
    if (this.calls.ioctl(this.fd, VQ_GET_INFO, address) < 0) return null;
    return {
      size: view.getUint32(4, true),
      descriptors: takeUint64(view, 8),
      driver: takeUint64(view, 16),
      device: takeUint64(view, 24),
      state: readQueueState(view, 32, packed),
      ready: view.getUint8(40) !== 0,
    };
  }

  /** The kernel signals `fd` when the driver kicks queue `index`. */
  setKick(index: number, fd: number): boolean {
    const { view, address } = this.memory;
    view.setUint32(0, index, true);
    view.setInt32(4, fd, true);
    return this.calls.ioctl(this.fd, VQ_SETUP_KICKFD, address) >= 0;
  }

  /** The first stretch of I/O addresses at or above `from`, up to `to`; null where there is none. */
  iotlb(from: number, to: number): IotlbRegion | null {
    const { view, bytes, address } = this.memory;
    bytes.fill(0, 0, 32);
    putUint64(view, 8, from);
    putUint64(view, 16, to);
    const fd = this.calls.ioctl(this.fd, IOTLB_GET_FD, address);
    if (fd < 0) return null;
    const start = takeUint64(view, 8);
    const last = takeUint64(view, 16);
    return { fd, offset: takeUint64(view, 0), start, size: last - start + 1, access: view.getUint8(24) & 3 };
  }

  /** A used buffer notification. */
  interrupt(index: number): void {
    const { view, address } = this.memory;
    view.setUint32(0, index, true);
    this.calls.ioctl(this.fd, VQ_INJECT_IRQ, address);
  }

  /** New bytes of configuration space, and their notification. */
  setConfig(config: Uint8Array): void {
    const { view, bytes, address } = this.memory;
    view.setUint32(0, 0, true);
    view.setUint32(4, config.length, true);
    bytes.set(config, 8);
    if (this.calls.ioctl(this.fd, DEV_SET_CONFIG, address) >= 0) this.calls.ioctl(this.fd, INJECT_CONFIG_IRQ, 0);
  }

  /** Takes the device away, unless it is attached still (`vdpa dev del` first): then false. */
  close(): boolean {
    closeSync(this.fd);
    const gone = destroy(this.calls, this.control, this.memory, this.name);
    closeSync(this.control);
    return gone;
  }
}

function destroy(calls: SystemCalls, control: number, memory: Memory, name: string): boolean {
  memory.bytes.fill(0, 0, 256);
  writeName(memory.bytes, name);
  return calls.ioctl(control, DESTROY_DEV, memory.address) >= 0;
}

function writeName(bytes: Uint8Array, name: string): void {
  for (let i = 0; i < name.length; i++) bytes[i] = name.charCodeAt(i);
}

function open(path: string): number | null {
  try {
    return openSync(path, O_RDWR | 0o4000);
  } catch {
    return null;
  }
}
