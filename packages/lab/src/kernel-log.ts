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
  readonly type: VirtioTypeName;
  readonly line: RegExp;
  /** For people: why Linux says it of every device of the type, however good it is. */
  readonly reason: string;
}

export const KNOWN_LINES: readonly KnownLine[] = [
  {
    type: 'gpu',
    line: /drm_plane_enable_fb_damage_clips\(\) not called/,
    reason:
      'virtio_gpu’s cursor plane does not ask for damage clips; the driver’s, before the device is asked anything',
  },
  {
    type: 'pmem',
    line: /unable to guarantee persistence of writes/,
    reason: 'x86 has no flush instruction that this virtual processor would need; libnvdimm says it of the machine',
  },
];

/** Lines of `dmesg -r` at warning (4) or worse, without those that are known for the type. */
export function complaints(log: string, type: VirtioTypeName | null): readonly string[] {
  return log
    .split('\n')
    .filter((line) => Number(/^<([0-9]+)>/.exec(line)?.[1] ?? 7) % 8 <= 4)
    .filter((line) => !KNOWN_LINES.some((known) => known.type === type && known.line.test(line)));
}

/** What the kernel logged since this was asked last. Codes: the guest's, `device-bench-failed`. */
export async function takeKernelLog(guest: Guest): Promise<Result<string>> {
  const log = await guest.run('dmesg -r -c', 20);
  if (!log.ok) return log;
  return log.value.status === 0 ? ok(log.value.stdout) : fail('device-bench-failed', `dmesg: ${log.value.stderr}`);
}
