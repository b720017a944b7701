/** Switching the machine off, at once: what runs and what is not written is lost. */
import type { Outcome } from '@airlock/core/plan.ts';
import type { Hands } from '../apply.ts';

/** Without a word to the service manager (systemd, sysvinit and busybox take the same). */
export const POWER_OFF: readonly string[] = ['poweroff', '-f', '-f'];
const TRIGGER = '/proc/sysrq-trigger';

/**
 * `argv` null: no program may be run here. Where the program does not do it the kernel is asked itself. An outcome that
 * somebody reads is one that did not work: never `enforced`.
 */
export async function powerOff(
  hands: Hands,
  argv: readonly string[] | null,
  wait: (milliseconds: number) => Promise<void>,
): Promise<Outcome> {
  const property = 'machine switched off';
  if (argv === null) {
    return { property, status: 'not-enforceable', because: 'no program is run on a machine that is only a folder' };
  }
  const ran = await hands.commands.run(argv, { timeout: 10_000 });
  if (ran.ok && ran.value.status === 0) await wait(5000);
  const written = await hands.files.write(TRIGGER, 'o');
  if (written.ok) await wait(5000);
  const program = ran.ok ? `${argv[0]} ended with ${ran.value.status}` : ran.error.message;
  const kernel = written.ok ? `the kernel took ${TRIGGER}` : written.error.message;
  return { property, status: 'failed', because: `${program}, ${kernel}, and the machine still runs` };
}
