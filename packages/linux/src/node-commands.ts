/** `Commands` over node:child_process. */
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { type CommandOutcome, type Commands, OUTPUT_LIMIT } from './commands.ts';

export interface NodeCommandsOptions {
  /** Replaces the environment of this process. A small fixed one when left out: no LD_PRELOAD, no NODE_OPTIONS. */
  readonly env?: Readonly<Record<string, string>>;
}

const SMALL_ENV = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' };

export function nodeCommands(options: NodeCommandsOptions = {}): Commands {
  const env = options.env ?? SMALL_ENV;
  return {
    run(argv, { timeout = 10_000, input = '' } = {}) {
      const [program = '', ...rest] = argv;
      return new Promise<Result<CommandOutcome>>((resolve) => {
        const child = spawn(program, rest, { env, stdio: ['pipe', 'pipe', 'pipe'] });
        const written = { stdout: [] as Buffer[], stderr: [] as Buffer[] };
        const sizes = { stdout: 0, stderr: 0 };
        const end = (result: Result<CommandOutcome>) => {
          clearTimeout(timer);
          resolve(result);
        };
        const stop = (result: Result<never>) => {
          child.kill('SIGKILL');
          // A child of the child may hold the pipes open: do not wait for them.
          child.stdout.destroy();
          child.stderr.destroy();
          end(result);
        };
        const timer = setTimeout(
          () => stop(fail('command-timeout', `${program}: did not end in ${timeout} ms`)),
          timeout,
        );
        for (const name of ['stdout', 'stderr'] as const) {
          child[name].on('data', (chunk: Buffer) => {
            sizes[name] += chunk.length;
            if (sizes[name] > OUTPUT_LIMIT) {
              stop(fail('command-too-loud', `${program}: wrote more than ${OUTPUT_LIMIT} bytes to ${name}`));
            } else written[name].push(chunk);
          });
        }
        child.on('error', (error: NodeJS.ErrnoException) =>
          end(fail('command-missing', `${program}: ${error.code ?? error.message}`)),
        );
        child.on('close', (code, signal) =>
          end(
            ok({
              status: code ?? 128 + (signal === null ? 0 : constants.signals[signal]),
              stdout: Buffer.concat(written.stdout).toString('utf8'),
              stderr: Buffer.concat(written.stderr).toString('utf8'),
            }),
          ),
        );
        // A program that does not read its input closes the pipe: no error of ours.
        child.stdin.on('error', () => undefined);
        child.stdin.end(input);
      });
    },
  };
}
