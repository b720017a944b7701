/** The inflight area of a connection: made here for GET_INFLIGHT_FD, or brought back with SET_INFLIGHT_FD. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { createSharedMemory, type Mapping, mapSharedMemory } from '../shared-memory.ts';
import type { SystemCalls } from '../system-calls.ts';
import { checkInflightArea, type InflightPart, inflightArea, inflightPart } from './inflight-area.ts';
import type { InflightArea } from './payload.ts';

export class InflightMemory {
  private readonly calls: SystemCalls;
  private area: InflightArea | null = null;
  private mapping: Mapping | null = null;
  /** Kept open until the next one, because a reply that carries it may still wait to be sent. */
  private fd = -1;

  constructor(calls: SystemCalls) {
    this.calls = calls;
  }

  /** New memory; the descriptor stays this object's. Codes: `vhost-user-inflight-invalid`, `system-call-failed`. */
  create(queues: number, queueSize: number): Result<{ readonly area: InflightArea; readonly fd: number }> {
    const area = inflightArea(queues, queueSize);
    if (!area.ok) return area;
    const made = createSharedMemory(this.calls, 'vhost-user-inflight', area.value.size);
    if (!made.ok) return made;
    const { fd } = made.value;
    const adopted = this.adopt(area.value, fd);
    if (!adopted.ok) {
      this.calls.close(fd);
      return adopted;
    }
    this.fd = fd;
    return ok({ area: area.value, fd });
  }

  /** Maps memory that the front-end kept; `fd` stays the caller's. Codes as `create`, and those of `mapSharedMemory`. */
  adopt(area: InflightArea, fd: number): Result<void> {
    const sound = checkInflightArea(area);
    if (!sound.ok) return sound;
    const mapping = mapSharedMemory(this.calls, fd, {
      name: 'vhost-user-inflight',
      offset: area.offset,
      length: area.size,
      writable: true,
    });
    if (!mapping.ok) return mapping;
    this.close();
    this.area = area;
    this.mapping = mapping.value;
    return ok(undefined);
  }

  /** The part of a queue; null where nothing is written down. Code: `vhost-user-inflight-invalid`. */
  part(index: number, size: number, packed: boolean): Result<InflightPart | null> {
    const { area, mapping } = this;
    if (area === null || mapping === null) return ok(null);
    if (mapping.region.bytes.length === 0) return fail('vhost-user-inflight-invalid', 'the area is gone');
    return inflightPart(mapping.region, area, index, size, packed);
  }

  /** No queue may use it any more. */
  close(): void {
    this.mapping?.release();
    this.mapping = null;
    this.area = null;
    if (this.fd >= 0) this.calls.close(this.fd);
    this.fd = -1;
  }
}
