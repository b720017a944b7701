/** The eventfds that a client gave for a function's interrupts: VFIO's SET_IRQS. */
import { signalPeer } from '../event-fd.ts';
import type { SystemCalls } from '../system-calls.ts';

export class InterruptSet {
  readonly count: number;
  private readonly calls: SystemCalls;
  private readonly fds: number[];

  constructor(calls: SystemCalls, count: number) {
    this.calls = calls;
    this.count = count;
    this.fds = Array.from({ length: count }, () => -1);
  }

  /** `fd` is this object's from now on; -1 takes the vector's away. */
  assign(vector: number, fd: number): void {
    const old = this.fds[vector];
    if (old === undefined) {
      if (fd >= 0) this.calls.close(fd);
      return;
    }
    if (old >= 0) this.calls.close(old);
    this.fds[vector] = fd;
  }

  /** False when the client gave none for this vector, or it is of no use. */
  trigger(vector: number): boolean {
    const fd = this.fds[vector] ?? -1;
    return fd >= 0 && signalPeer(this.calls, fd);
  }

  clear(): void {
    for (let vector = 0; vector < this.count; vector++) this.assign(vector, -1);
  }
}
