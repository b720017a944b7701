/**
 * The only clocks that grants go by: time since boot (CLOCK_BOOTTIME, /proc/uptime) and the id of this boot. The wall
 * clock is the host's to move.
 */
import { asciiText } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { Files } from '@airlock/linux/files.ts';

export interface BootTime {
  /** Milliseconds since boot, sleep included. */
  readonly uptime: number;
  readonly boot: string;
}

/** Code: `clock-unreadable`. */
export async function readBootTime(files: Files): Promise<Result<BootTime>> {
  const [uptime, boot] = await Promise.all([
    files.read('/proc/uptime', 256),
    files.read('/proc/sys/kernel/random/boot_id', 256),
  ]);
  if (!uptime.ok) return fail('clock-unreadable', uptime.error.message);
  if (!boot.ok) return fail('clock-unreadable', boot.error.message);
  const seconds = /^([0-9]{1,12})\.([0-9]{2})(?: |\n|$)/.exec(asciiText(uptime.value));
  if (seconds === null) return fail('clock-unreadable', '/proc/uptime does not begin with a number of seconds');
  const id = asciiText(boot.value).trim();
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(id)) {
    return fail('clock-unreadable', '/proc/sys/kernel/random/boot_id is not a UUID');
  }
  return ok({ uptime: Number(seconds[1]) * 1000 + Number(seconds[2]) * 10, boot: id });
}
