/**
 * Entry of the gate's binary on QuickJS. Started by the gate's own /init (init-script.ts) with what the gate needs mounted; ends
 * with 0 when the real init may run, with anything else when it must not.
 */

import * as os from 'quickjs:os';
import * as std from 'quickjs:std';
import { formatProblem } from '@airlock/core/result.ts';
import { quickjsCommands } from './quickjs-commands.ts';
import { quickjsFiles, readTextFile } from './quickjs-files.ts';
import { type BootHands, boot, PARTS } from './sequence.ts';

/** The gate's exit codes, which its /init knows. */
const EXIT_HAND_OVER = 0;
const EXIT_HALT = 70;

const hands: BootHands = {
  files: quickjsFiles(),
  readText: readTextFile,
  // Nothing of the environment that the boot loader set.
  commands: quickjsCommands({ PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' }),
  now: () => os.now(),
  wait: async (milliseconds) => os.sleep(milliseconds),
  print: (text) => {
    std.out.puts(text);
    std.out.flush();
  },
  inodeOf: async ({ path }) => {
    // As the agent asks: of a link its own.
    const [found] = os.lstat(path);
    return found === null ? undefined : String(found.ino);
  },
};

/**
 * Ahead of the kernel's own threads, which test its cryptography for seconds after it started and would take half of a
 * single processor. Nobody waits for it: whether it works makes no difference but in time.
 */
function hurry(): void {
  os.exec([PARTS.busybox, 'renice', '-n', '-20', '-p', String(os.getpid())], { block: false, usePath: false, env: {} });
}

async function run(): Promise<number> {
  hurry();
  let because: string;
  try {
    const done = await boot(hands);
    if (done.ok) return EXIT_HAND_OVER;
    because = formatProblem(done.error);
  } catch (error) {
    because = describe(error);
  }
  hands.print(`airlock: !! ${because}\nairlock: !! trying with the built-in fallback: boot-critical devices only\n`);
  try {
    const done = await boot(hands, { fallbackBecause: because });
    if (done.ok) return EXIT_HAND_OVER;
    because = formatProblem(done.error);
  } catch (error) {
    because = describe(error);
  }
  hands.print(`airlock: !! ${because}\n`);
  return EXIT_HALT;
}

function describe(error: unknown): string {
  const text = error instanceof Error ? `${error.message}\n${error.stack ?? ''}` : String(error);
  return text.replace(/[^\x20-\x7e\n]/g, '?').slice(0, 2000);
}

run().then(
  (status) => std.exit(status),
  () => std.exit(EXIT_HALT),
);
