/** `Commands` of the boot gate, over QuickJS's `os`: fork and exec, output through pipes, a time limit. */

import * as os from 'quickjs:os';
import { asciiText } from '@airlock/core/bytes.ts';
import { fail, ok } from '@airlock/core/result.ts';
import { type Commands, OUTPUT_LIMIT } from '@airlock/linux/commands.ts';
import { utf8Bytes } from '../utf8.ts';
import { errnoName } from './quickjs-files.ts';

const O_NONBLOCK = 0o4000;
const EAGAIN = 11;
/** exec failed in the child: QuickJS ends it with this status. */
const EXEC_FAILED = 127;

export function quickjsCommands(env: Readonly<Record<string, string>>): Commands {
  /** A file that stands in for a pipe where the program's words are not wanted or given: opened once per call. */
  const open = (path: string, flags: number) => os.open(path, flags);

  return {
    async run(argv, { timeout = 10_000, input = '' } = {}) {
      const program = argv[0] ?? '';
      if (!program.startsWith('/')) return fail('command-missing', `${program}: not a path`);
      if (os.stat(program)[1] !== 0) return fail('command-missing', `${program}: ${errnoName(os.stat(program)[1])}`);
      const out = os.pipe();
      const entry = input === '' ? null : os.pipe();
      if (out === null) return fail('command-missing', `${program}: no pipe`);
      const [reader, writer] = out;
      const nothing = entry === null ? open('/dev/null', os.O_RDONLY) : -1;
      const pid = os.exec(argv, {
        block: false,
        usePath: false,
        env: { ...env },
        // Both outputs through one pipe: two would need a poll that QuickJS does not have.
        stdout: writer,
        stderr: writer,
        ...(entry !== null ? { stdin: entry[0] } : nothing >= 0 ? { stdin: nothing } : {}),
      });
      os.close(writer);
      if (nothing >= 0) os.close(nothing);
      if (entry !== null) {
        os.close(entry[0]);
        // At most what a pipe holds: a program that does not read must not hold us.
        const bytes = utf8Bytes(input).slice(0, 4096);
        os.write(entry[1], bytes.buffer as ArrayBuffer, 0, bytes.length);
        os.close(entry[1]);
      }
      if (pid < 0) {
        os.close(reader);
        return fail('command-missing', `${program}: ${errnoName(-pid)}`);
      }
      // Opened again without blocking: os.pipe() has no flags.
      const words = open(`/proc/self/fd/${reader}`, os.O_RDONLY | O_NONBLOCK);
      const from = words >= 0 ? words : reader;
      const buffer = new ArrayBuffer(4096);
      const started = os.now();
      let text = '';
      let total = 0;
      const drain = () => {
        // Without a second, non-blocking end there is no safe way to read while it runs.
        for (let rounds = 0; words >= 0 && rounds < 64; rounds++) {
          const count = os.read(from, buffer, 0, 4096);
          if (count <= 0) return count === 0 || count === -EAGAIN;
          total += count;
          if (total <= OUTPUT_LIMIT) text += asciiText(new Uint8Array(buffer, 0, count));
        }
        return true;
      };
      const finish = () => {
        drain();
        os.close(reader);
        if (words >= 0) os.close(words);
      };
      for (let pause = 1; ; ) {
        const [ended, status] = os.waitpid(pid, os.WNOHANG);
        if (ended !== 0) {
          finish();
          const code = ended < 0 ? 128 : (status & 0x7f) === 0 ? (status >> 8) & 0xff : 128 + (status & 0x7f);
          if (code === EXEC_FAILED) return fail('command-missing', `${program}: could not be run`);
          return ok({ status: code, stdout: text, stderr: text });
        }
        drain();
        const late = os.now() - started > timeout;
        if (late || total > OUTPUT_LIMIT) {
          os.kill(pid, os.SIGKILL);
          // A process that the kernel holds cannot be waited for; it stays behind.
          os.sleep(5);
          os.waitpid(pid, os.WNOHANG);
          finish();
          return late
            ? fail('command-timeout', `${program}: did not end in ${timeout} ms`)
            : fail('command-too-loud', `${program}: wrote more than ${OUTPUT_LIMIT} bytes`);
        }
        // Gives way to whatever else there is to do: a write that the kernel holds for a while runs beside the program.
        await new Promise<void>((resolve) => os.setTimeout(resolve, pause));
        if (pause < 4) pause += 1;
      }
    },
  };
}
