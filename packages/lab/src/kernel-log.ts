/**
 * What a guest's kernel logs at warning or worse while a device is plugged in, used, let go and unplugged. A line counts
 * against the device unless it stands here with the reason why it is none of the device's doing.
 */

import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { VirtioTypeName } from '@airlock/core/virtio.ts';
import type { Guest } from './guest.ts';

/** What was done last before a line was logged. */
export type DeviceStage = 'probe' | 'operation' | 'unbind' | 'unplug';

export interface KnownLine {
  /** null: whatever the type. */
  readonly type: VirtioTypeName | null;
  readonly line: RegExp;
  /** A trace follows, which ends with `end trace` and belongs to it. */
  readonly trace?: true;
  /** For people: why Linux says it of every device of the type, however good it is. */
  readonly reason: string;
}

export const KNOWN_LINES: readonly KnownLine[] = [
  {
    type: null,
    line: /hrtimer: interrupt took [0-9]+ ns$/,
    reason: 'an emulated processor was not run for a while: of the machine that emulates, and how busy it is',
  },
  {
    type: null,
    line: /: loading out-of-tree module taints kernel\.$/,
    reason: 'of every module that was built beside its kernel, once',
  },
  {
    type: 'gpio',
    line: /not an immutable chip, please consider fixing it!$/,
    reason: 'asks the authors of gpio_virtio for a constant irq_chip',
  },
  {
    type: 'gpu',
    line: /drm_plane_enable_fb_damage_clips\(\) not called/,
    reason: 'virtio_gpu looks at the damage clips of a plane for which it never turned them on',
  },
  {
    type: 'gpu',
    line: /Memory manager not clean during takedown/,
    trace: true,
    reason:
      'virtio_gpu lets the device go while it still holds buffers of its own; QEMU’s own virtio-gpu-pci, let go and taken again 64 times on Linux 7.2, said it 44 times, with ours 1 time in 24',
  },
  {
    type: 'pmem',
    line: /unable to guarantee persistence of writes/,
    reason:
      'a region without a DIMM behind it, which every virtio_pmem is, flushes in a way that libnvdimm does not know; it flushes all the same',
  },
];

/** Lines of `dmesg -r` at warning (4) or worse, without those that are known for the type. */
export function complaints(log: string, type: VirtioTypeName | null): readonly string[] {
  const grave = log.split('\n').filter((line) => Number(/^<([0-9]+)>/.exec(line)?.[1] ?? 7) % 8 <= 4);
  const kept: string[] = [];
  let within = false;
  for (const line of grave) {
    const known = KNOWN_LINES.find((one) => (one.type ?? type) === type && one.line.test(line));
    if (within) within = !line.includes('---[ end trace');
    else if (known === undefined) kept.push(line);
    else if (known.trace) {
      within = true;
      if (kept.at(-1)?.includes('[ cut here ]')) kept.pop();
    }
  }
  return kept;
}

/** What the kernel logged since this was asked last. Codes: the guest's, `device-bench-failed`. */
export async function takeKernelLog(guest: Guest): Promise<Result<string>> {
  const log = await guest.run('dmesg -r -c', 20);
  if (!log.ok) return log;
  return log.value.status === 0 ? ok(log.value.stdout) : fail('device-bench-failed', `dmesg: ${log.value.stderr}`);
}
